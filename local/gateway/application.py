"""The HTTP API of template.yaml, locally: `python -m local.gateway [--port 8000] [--host 127.0.0.1]`.

Serves exactly the template's routes by invoking their functions in execution environments, and returns the errors of an
HTTP API in the same format: 404, 403, 413, 500 and 503. Prints one line, `listening on http://HOST:PORT`.
"""

import asyncio
import os
import sys
from typing import IO, Any

from starlette.requests import Request as Received
from starlette.responses import Response as Reply
from starlette.types import Receive, Scope, Send

from local.gateway import payload, signature
from local.gateway.environment import Environments
from local.gateway.payload import Request, own_answer
from local.gateway.routing import Routes
from local.template import Function, Template

LONGEST_BODY = 10 * 1024 * 1024
LONGEST_DRAIN = 100 * 1024 * 1024
INTEGRATION_SECONDS = 30


class Gateway:
    """An ASGI application. keys: key pairs that may call operator routes; output: for handlers' prints, None for
    stderr."""

    def __init__(
        self,
        template: Template,
        keys: signature.KeyPair | None,
        limit: int = 4,
        output: IO[bytes] | None = None,
        integration_seconds: float = INTEGRATION_SECONDS,
    ) -> None:
        self._routes = Routes(template.routes)
        self._keys = keys
        self._limit = limit
        self._output = output
        self._integration_seconds = integration_seconds
        self._environments: dict[str, Environments] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        received = Received(scope, receive)
        body = await _body(received)
        answer = own_answer(413, "Request Entity Too Large") if body is None else await self._answer(received, body)
        reply = Reply(answer.body, answer.status)
        reply.raw_headers += [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        await reply(scope, receive, send)

    async def invoke(self, function: Function, event: Any) -> Any:
        """Invoke a function once; return an `Outcome`. Errors are printed to stderr."""
        if function.name not in self._environments:
            self._environments[function.name] = Environments(function, self._limit, self._output)
        outcome = await self._environments[function.name].invoke(event)
        if outcome.error:
            error = outcome.error
            print(f"{function.name}: {error['errorType']}: {error['errorMessage']}", file=sys.stderr, flush=True)
        return outcome

    def close(self) -> None:
        for environments in self._environments.values():
            environments.close()

    async def _answer(self, received: Received, body: bytes) -> payload.Response:
        request = _request(received, body)
        found = self._routes.find(request.method, request.path)
        if found is None:
            return own_answer(404, "Not Found")
        route, parameters = found
        caller = None
        if route.authorizer == "AWS_IAM":
            caller = signature.caller(request, self._keys)
            if caller is None:
                return own_answer(403, "Forbidden")
        return await self._integrate(route.function, payload.event(request, route, parameters, caller))

    async def _integrate(self, function: Function, event: payload.Event) -> payload.Response:
        invocation = asyncio.create_task(self.invoke(function, event))
        self._running.add(invocation)
        invocation.add_done_callback(self._running.discard)
        try:
            # Shielded, because a function continues when the API has stopped waiting for it.
            outcome = await asyncio.wait_for(asyncio.shield(invocation), self._integration_seconds)
        except TimeoutError:
            return own_answer(503, "Service Unavailable")
        answer = None if outcome.error else payload.response(outcome.result)
        return answer or own_answer(500, "Internal Server Error")


def key_pair() -> signature.KeyPair | None:
    """The key pair from the environment, which may call operator routes."""
    key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return signature.KeyPair(key_id, secret, os.environ.get("AWS_SESSION_TOKEN")) if key_id and secret else None


def required_key_pair() -> signature.KeyPair:
    """The key pair from the given environment variables."""
    keys = key_pair()
    if keys is None:
        raise LookupError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set")
    return keys


async def _body(received: Received) -> bytes | None:
    """The body; None if it is too long. The rest of a moderately long one is discarded, so that the client gets the
    response."""
    parts, size = [], 0
    announced = received.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > LONGEST_DRAIN:
        return None
    async for part in received.stream():
        size += len(part)
        if size <= LONGEST_BODY:
            parts.append(part)
        elif size > LONGEST_DRAIN:
            break
    return b"".join(parts) if size <= LONGEST_BODY else None


def _request(received: Received, body: bytes) -> Request:
    scope = received.scope
    return Request(
        method=scope["method"],
        target=scope["raw_path"].partition(b"?")[0].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        body=body,
        client=(scope.get("client") or ("127.0.0.1", 0))[0],
        protocol=f"HTTP/{scope['http_version']}",
    )
