"""A device's HTTP calls, with the agent's headers. None stands for no answer; the device tries again later."""

import json
import time
from typing import Any

import httpx

from local.fleet.ledger import Ledger

ALWAYS = {"Content-Type": "application/json", "User-Agent": "okhttp/4.12.0"}


class Link:
    def __init__(self, http: httpx.AsyncClient, ledger: Ledger) -> None:
        self._http, self._ledger = http, ledger

    async def register(self, token: str, alias: str, by_qr_code: bool) -> httpx.Response | None:
        """The agent puts the alias in the query when it was started by a QR code, else in the body."""
        if by_qr_code:
            return await self._post("/v1/register", b"", {"X-Admin": token}, params={"alias": alias})
        return await self._post("/v1/register", json.dumps({"alias": alias}).encode(), {"X-Admin-Key": token})

    async def post(self, path: str, content: bytes, device_token: str, header: str) -> httpx.Response | None:
        """header: Authorization or X-Device-Token, whichever the agent uses for this route."""
        value = f"Bearer {device_token}" if header == "Authorization" else device_token
        return await self._post(path, content, {header: value})

    async def _post(self, path: str, content: bytes, headers: dict[str, str], **options: Any) -> httpx.Response | None:
        start = time.perf_counter()
        try:
            answer = await self._http.post(path, content=content, headers={**ALWAYS, **headers}, **options)
        except httpx.TransportError:
            self._ledger.unreachable += 1
            return None
        self._ledger.answered(path, answer.status_code, time.perf_counter() - start)
        return answer
