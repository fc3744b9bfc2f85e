"""Many devices in one process, with their enrollment tokens and their storage."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from local.fleet.device import Context, Device
from local.fleet.field import FieldDevice
from local.fleet.ledger import Ledger
from local.fleet.link import TIMEOUT, FieldLink, Link
from local.fleet.pace import Pace
from local.fleet.reference import ReferenceDevice
from local.fleet.storage import Storage

TokensFor = Callable[[list[str]], Awaitable[dict[str, str]]]
MOST_CONNECTIONS = 64  # of all reference agents together; the existing agent uses one per request
TWIN_EVERY = 10
BOTH = ("field", "reference")


class Fleet:
    """A fleet against one server.

    Args:
        tokens_for: returns {alias: enrollment token}.
        profiles: of the agents, assigned in turn.
        keep: a file that preserves the phones' storage between runs.
        hmac_keys: the primary and rotation key of phones that receive them.
        attended: a person enrolls a phone again that has lost its credentials.
        odd: phones send unusual values, have wrong clocks, are wiped and share tokens; one in ten has a twin.
    """

    def __init__(
        self,
        url: str,
        count: int,
        tokens_for: TokensFor,
        pace: Pace,
        profiles: Sequence[str] = BOTH,
        keep: Path | None = None,
        prefix: str = "sim",
        ledger: Ledger | None = None,
        hmac_keys: tuple[str, ...] = (),
        attended: bool = True,
        odd: bool = False,
    ) -> None:
        self.ledger = ledger or Ledger()
        self._tokens = _Tokens(tokens_for)
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS)
        self._pooled = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits)
        single = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._single = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=single)
        context = Context(self.ledger, pace, Storage(keep), self._tokens.one, hmac_keys, attended, odd)
        self.devices = [
            self._device(profiles[number % len(profiles)], f"{prefix}-{number + 1:04}", context)
            for number in range(count)
        ]
        # Two phones with one image: the same credentials, but a different model and uptime.
        self.twins = [
            FieldDevice(device.alias, FieldLink(self._single, self.ledger), context, twin=True)
            for device in (self.devices[::TWIN_EVERY] if odd else ())
        ]

    async def run(self) -> None:
        """Until cancelled."""
        await self._tokens.fetch([device.alias for device in self.devices if device.credentials is None])
        async with asyncio.TaskGroup() as tasks:
            for device in (*self.devices, *self.twins):
                tasks.create_task(device.run())

    async def drain(self, seconds: float) -> int:
        """After `run` was cancelled: send waiting reports for at most `seconds`; return how many are left."""
        tasks = [asyncio.create_task(device.drain()) for device in self.devices if device.busy]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sum(len(device.outbox) for device in self.devices)

    async def close(self) -> None:
        for device in (*self.devices, *self.twins):
            await device.give_up()
        await self._pooled.aclose()
        await self._single.aclose()

    def deliver(self, fcm_token: str, data: dict[str, str]) -> None:
        """Deliver a message to the device that has the FCM token now, if there is one."""
        for device in self.devices:
            if device.credentials and device.credentials.fcm_token == fcm_token:
                device.receive(data)

    @property
    def device_ids(self) -> list[str]:
        return [device.credentials.device_id for device in self.devices if device.credentials]

    def _device(self, profile: str, alias: str, context: Context) -> Device:
        match profile:
            case "field":
                return FieldDevice(alias, FieldLink(self._single, self.ledger), context)
            case "reference":
                return ReferenceDevice(alias, Link(self._pooled, self.ledger), context)
            case _:
                raise ValueError(f"no profile is named {profile!r}; the profiles are {' and '.join(BOTH)}")


class _Tokens:
    """Enrollment tokens, fetched for all devices at the start, and individually for re-enrollments."""

    def __init__(self, tokens_for: TokensFor) -> None:
        self._tokens_for = tokens_for
        self._waiting: dict[str, str] = {}

    async def fetch(self, aliases: list[str]) -> None:
        with contextlib.suppress(httpx.TransportError):  # then each device fetches its own
            self._waiting |= await self._tokens_for(aliases) if aliases else {}

    async def one(self, alias: str) -> str | None:
        if alias in self._waiting:
            return self._waiting.pop(alias)
        try:
            return (await self._tokens_for([alias])).get(alias)
        except httpx.HTTPError:
            return None
