"""Many devices in one process, with their enrollment tokens and their credentials."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from local.fleet.credentials import Keyring
from local.fleet.device import Device
from local.fleet.ledger import Ledger
from local.fleet.pace import Pace

TokensFor = Callable[[list[str]], Awaitable[dict[str, str]]]
MOST_CONNECTIONS = 64


class Fleet:
    """tokens_for: gives {alias: enrollment token}. keep: a file where credentials stay between runs. hmac_keys: the
    devices' primary and rotation key."""

    def __init__(
        self,
        url: str,
        count: int,
        tokens_for: TokensFor,
        pace: Pace,
        keep: Path | None = None,
        prefix: str = "sim",
        ledger: Ledger | None = None,
        hmac_keys: tuple[str, ...] = (),
    ) -> None:
        self.ledger = ledger or Ledger()
        self._tokens = _Tokens(tokens_for)
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS)
        self._http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(40, pool=None), limits=limits)
        keyring = Keyring(keep)
        self.devices = [
            Device(f"{prefix}-{number:04}", self._http, self.ledger, pace, keyring, self._tokens.one, hmac_keys)
            for number in range(1, count + 1)
        ]

    async def run(self) -> None:
        """Until cancelled."""
        await self._tokens.fetch([device.alias for device in self.devices if device.credentials is None])
        async with asyncio.TaskGroup() as tasks:
            for device in self.devices:
                tasks.create_task(device.run())

    async def drain(self, seconds: float) -> int:
        """After `run` was cancelled: send what waits, for at most `seconds`; returns how much is left."""
        tasks = [asyncio.create_task(device.drain()) for device in self.devices if device.busy]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sum(len(device.outbox) for device in self.devices)

    async def close(self) -> None:
        for device in self.devices:
            await device.give_up()
        await self._http.aclose()

    def deliver(self, fcm_token: str, data: dict[str, str]) -> None:
        """A message to whichever device holds the FCM token now; to nobody when none does."""
        for device in self.devices:
            if device.credentials and device.credentials.fcm_token == fcm_token:
                device.receive(data)

    @property
    def device_ids(self) -> list[str]:
        return [device.credentials.device_id for device in self.devices if device.credentials]


class _Tokens:
    """Tokens fetched for many at once at the start, and one by one for those who start over."""

    def __init__(self, tokens_for: TokensFor) -> None:
        self._tokens_for = tokens_for
        self._waiting: dict[str, str] = {}

    async def fetch(self, aliases: list[str]) -> None:
        with contextlib.suppress(httpx.TransportError):  # then each device asks for itself
            self._waiting |= await self._tokens_for(aliases) if aliases else {}

    async def one(self, alias: str) -> str | None:
        if alias in self._waiting:
            return self._waiting.pop(alias)
        try:
            return (await self._tokens_for([alias])).get(alias)
        except httpx.HTTPError:
            return None
