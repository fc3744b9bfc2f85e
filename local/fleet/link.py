"""A phone's HTTP calls. None means no response; the agent tries again later."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx

from local.fleet.ledger import Ledger

ALWAYS = {"Content-Type": "application/json", "User-Agent": "okhttp/4.12.0"}
TIMEOUT = httpx.Timeout(40, pool=None)


class Response(NamedTuple):
    """redirect: the headers of the first redirect that was followed."""

    status: int
    headers: httpx.Headers
    content: bytes
    redirect: httpx.Headers | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body's JSON, or an empty object if it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return {}

    @property
    def retry_after(self) -> float:
        value = self.headers.get("retry-after", "")
        return float(value) if value.isdecimal() else 0.0


class Link:
    """Calls over persistent connections; redirects are not followed."""

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger) -> None:
        self._http, self._ledger = http, ledger

    async def post(self, path: str, content: bytes, device_token: str, header: str) -> Response | None:
        """Send a body with the device token.

        Args:
            header: Authorization or X-Device-Token, whichever the agent uses for this route.
        """
        return await self.send("POST", path, content, credential(device_token, header))

    async def send(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Response | None:
        start = time.perf_counter()
        try:
            response = await self._exchange(method, path, content, {**ALWAYS, **headers})
        except (httpx.TransportError, httpx.TooManyRedirects):
            self._ledger.unreachable += 1
            return None
        self._ledger.answered(path, response.status, time.perf_counter() - start)
        return response

    async def _exchange(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Response:
        got = await self._http.request(method, path, content=content, headers=headers)
        return Response(got.status_code, got.headers, got.content)


class FieldLink(Link):
    """Calls like those of the existing agent's HTTP client.

    It follows redirects (a 301 or 302 turns its POST into a GET, a 308 does not) and sends `X-Device-Token` to any
    host. It repeats a request once after 408 and after 503 with `Retry-After: 0`. Each request uses a separate
    connection that stays open until `collect_garbage`, because responses are never closed.
    """

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger) -> None:
        super().__init__(http, ledger)
        self._unclosed: list[tuple[httpx.Response, AsyncIterator[bytes]]] = []

    @property
    def open_connections(self) -> int:
        return len(self._unclosed)

    async def collect_garbage(self) -> None:
        unclosed, self._unclosed = self._unclosed, []
        for response, _ in unclosed:
            await response.aclose()

    async def _exchange(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Response:
        first = await self._once(method, path, content, headers)
        repeats = first.status == 408 or (first.status == 503 and first.headers.get("retry-after") == "0")
        return await self._once(method, path, content, headers) if repeats else first

    async def _once(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Response:
        request = self._http.build_request(method, path, content=content, headers=headers)
        got = await self._http.send(request, stream=True, follow_redirects=True)
        # Reading past the declared length would let httpx close the connection, which the agent never does.
        body, chunks = b"", got.aiter_raw()
        length = got.headers.get("content-length")
        while length is None or len(body) < int(length):
            chunk = await anext(chunks, None)
            if chunk is None:
                break
            body += chunk
        self._unclosed.append((got, chunks))
        return Response(got.status_code, got.headers, body, got.history[0].headers if got.history else None)


def credential(device_token: str, header: str) -> dict[str, str]:
    return {header: f"Bearer {device_token}" if header == "Authorization" else device_token}
