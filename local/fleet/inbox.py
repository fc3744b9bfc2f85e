"""Messages for a fleet from a fake FCM in another process."""

import asyncio
from collections.abc import Callable

import httpx
import msgspec
from msgspec import Struct

WAIT_SECONDS = 25


class _Message(Struct):
    """One that a device received; `data` is the FCM data message."""

    number: int
    token: str
    data: dict[str, str]


class _Messages(Struct):
    messages: list[_Message]


async def follow(double_url: str, deliver: Callable[[str, dict[str, str]], None]) -> None:
    """Deliver every message of the fake from now on, until cancelled; outages are waited out."""
    async with httpx.AsyncClient(base_url=double_url, timeout=WAIT_SECONDS + 10) as http:
        last = await _last(http)
        while True:
            try:
                for message in await _messages(http, last, WAIT_SECONDS):
                    last = message.number
                    deliver(message.token, message.data)
            except httpx.TransportError:
                await asyncio.sleep(1)


async def _last(http: httpx.AsyncClient) -> int:
    return max((message.number for message in await _messages(http, 0, 0)), default=0)


async def _messages(http: httpx.AsyncClient, after: int, wait: float) -> list[_Message]:
    answer = await http.get("/control/messages", params={"after": after, "wait": wait})
    return msgspec.json.decode(answer.raise_for_status().content, type=_Messages).messages
