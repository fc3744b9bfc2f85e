"""Messages for a fleet from a fake FCM in another process."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

WAIT_SECONDS = 25


async def follow(double_url: str, deliver: Callable[[str, dict[str, str]], None]) -> None:
    """Hand over every message that the double delivers from now on. Until cancelled; an outage is waited out."""
    async with httpx.AsyncClient(base_url=double_url, timeout=WAIT_SECONDS + 10) as http:
        last = await _last(http)
        while True:
            try:
                for message in await _messages(http, last, WAIT_SECONDS):
                    last = message["number"]
                    deliver(message["token"], message["data"])
            except httpx.TransportError:
                await asyncio.sleep(1)


async def _last(http: httpx.AsyncClient) -> int:
    return max((message["number"] for message in await _messages(http, 0, 0)), default=0)


async def _messages(http: httpx.AsyncClient, after: int, wait: float) -> list[dict[str, Any]]:
    answer = await http.get("/control/messages", params={"after": after, "wait": wait})
    messages: list[dict[str, Any]] = answer.raise_for_status().json()["messages"]
    return messages
