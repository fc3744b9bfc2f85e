"""Call a function as an HTTP API does: find the template's route, build a format 2.0 payload, run the handler.

    answer = call("POST", "/v1/heartbeat", body, token=token)
    answer.status, answer.json

Operator routes arrive signed by `OPERATOR`, as IAM would let them through. Every response is checked against the
OpenAPI document.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

from local import template
from local.gateway import payload
from local.gateway.routing import Routes
from tests.support import reference

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = "arn:aws:iam::000000000000:user/operator"
CONTEXT = SimpleNamespace(
    aws_request_id="00000000-0000-0000-0000-000000000000",
    function_name="ofTheTest",
    get_remaining_time_in_millis=lambda: 60_000,
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def problem(self, status: int, path: str | None = None) -> dict[str, Any]:
        """Return the problem document (RFC 9457) after checking its status and, if given, the path of its field."""
        assert self.status == status, (self.status, self.text)
        assert self.headers["content-type"] == "application/problem+json"
        document = self.json
        assert document["status"] == status
        assert {"type", "title", "detail"} <= document.keys()
        if path is not None:
            assert document["errors"][0]["path"] == path, document
            assert document["detail"].startswith(path)
        return document


@cache
def routes() -> Routes:
    return Routes(template.load().routes)


# The handler of a route, and the event that the gateway builds for it.
Call: TypeAlias = tuple[Any, payload.Event]


def event(
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    query: dict[str, Any] | None = None,
) -> Call:
    """The handler of a route, and the event that the gateway builds for it. A body of bytes is sent unchanged."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"host": "api.test", "content-type": "application/json", **(headers or {})}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    request = payload.Request(
        method, path, urlencode(query or {}), [(name.lower(), value) for name, value in sent.items()], content
    )
    found = routes().find(method, request.path)
    assert found, f"the template has no route {method} {path}"
    route, parameters = found
    caller = {"userArn": OPERATOR} if route.authorizer == "AWS_IAM" else None
    module, _, name = route.function.handler.rpartition(".")
    return getattr(import_module(module), name), payload.event(request, route, parameters, caller)


def call(method: str, path: str, body: Any = None, **how: Any) -> Answer:
    handler, sent = event(method, path, body, **how)
    answer = payload.response(handler(sent, CONTEXT))
    assert answer is not None, "an HTTP API would reject the function's result"
    found = Answer(answer.status, dict(answer.headers), answer.body.decode())
    reference.check(sent["routeKey"], found.status, found.headers, found.text)
    return found


class Device(NamedTuple):
    id: str
    token: str


def enroll(alias: str = "lobby", **token: Any) -> tuple[str, str]:
    """Enroll a new device as an operator and an agent would; return (device_id, device token)."""
    made = call("POST", "/v1/enroll-tokens", {"aliases": [alias], **token})
    assert made.status == 201, made.text
    answer = call("POST", "/v1/register", {"alias": alias}, headers={"x-admin-key": made.json["items"][0]["token"]})
    assert answer.status == 200, answer.text
    return answer.json["device_id"], answer.json["device_token"]
