"""One device: enrolls, takes heartbeats, sends what waits in its outbox, starts over when its token is refused."""

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import httpx

from local.fleet.body import Phone
from local.fleet.commands import Commands
from local.fleet.credentials import Credentials, Keyring
from local.fleet.installer import Installer
from local.fleet.ledger import Ledger
from local.fleet.link import Link
from local.fleet.outbox import Item, Outbox, pause
from local.fleet.pace import Pace
from local.fleet.sender import Sender


class Device:
    """token_for: gives an enrollment token made for an alias, None when there is none at present."""

    def __init__(
        self,
        alias: str,
        http: httpx.AsyncClient,
        ledger: Ledger,
        pace: Pace,
        keyring: Keyring,
        token_for: Callable[[str], Awaitable[str | None]],
        hmac_keys: tuple[str, ...] = (),
    ) -> None:
        self.alias = alias
        self.outbox = Outbox()
        self._ledger, self._pace, self._keyring, self._token_for = ledger, pace, keyring, token_for
        self._rng = random.Random(alias)
        self._phone = Phone(alias, self._rng)
        self._link = Link(http, ledger)
        self._sender = Sender(self.outbox, self._link, ledger, pace, self._rng)
        self._commands = Commands(self.queue, self.queue_heartbeat, ledger, hmac_keys, self._install)
        self._installer = Installer(http, self.queue, ledger)
        self._installing: set[asyncio.Task] = set()
        self._by_qr_code = self._rng.random() < 0.5
        self._offline_until = 0.0
        self._something_to_send = asyncio.Event()

    @property
    def credentials(self) -> Credentials | None:
        return self._keyring.get(self.alias)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_heartbeats())
            tasks.create_task(self._send())

    async def drain(self) -> None:
        """After `run`: take no more heartbeats, return when nothing waits."""
        self._offline_until = 0.0
        self.outbox.all_due()
        sending = asyncio.create_task(self._send())
        try:
            while self.busy:
                await asyncio.sleep(0.02)
        finally:
            sending.cancel()

    @property
    def busy(self) -> bool:
        """Something waits to be sent, or is being installed."""
        return bool(len(self.outbox) or self._installing)

    async def give_up(self) -> None:
        """What is still being installed is not any more: the network is gone for good."""
        tasks = list(self._installing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def queue(
        self, path: str, body: dict[str, Any], header: str = "Authorization", taken_at: float | None = None
    ) -> None:
        """Send it as soon as the network lets us."""
        item = Item(path, json.dumps(body).encode(), taken_at, header)
        self._ledger.dropped += len(self.outbox.add(item))
        self._something_to_send.set()

    def queue_heartbeat(self, ping_request_id: str | None = None) -> None:
        """Nothing before the enrollment: the body names the device."""
        if known := self.credentials:
            body = self._phone.heartbeat(known.device_id, known.fcm_token, len(self.outbox), ping_request_id)
            taken_at = datetime.fromisoformat(body["timestamp_utc"]).timestamp()
            self.queue("/v1/heartbeat", body, taken_at=taken_at)

    def receive(self, data: dict[str, str]) -> None:
        """A message from FCM, which keeps it while the device has no network."""
        wait = self._offline_until - time.monotonic()
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self.receive, data)
        elif known := self.credentials:
            self._commands.receive(known.device_id, data)

    def _install(self, data: dict[str, str]) -> None:
        task = asyncio.create_task(self._installer.install(self.credentials.device_token, data))
        self._installing.add(task)
        task.add_done_callback(self._installing.discard)

    async def _take_heartbeats(self) -> None:
        pace = self._pace
        await asyncio.sleep(self._rng.uniform(0, pace.interval))
        while True:
            if self._rng.random() < pace.offline_share:
                self._offline_until = time.monotonic() + pace.interval * self._rng.uniform(*pace.offline_intervals)
            self.queue_heartbeat()
            await asyncio.sleep(pace.interval * self._rng.uniform(0.9, 1.1))

    async def _send(self) -> None:
        while True:
            while (offline := self._offline_until - time.monotonic()) > 0:
                await asyncio.sleep(min(offline, 0.5))
            if self.credentials is None:
                await self._enrol()
            if not await self._sender.send_next(self.credentials):
                await self._wait_for_something()
            if self._sender.refused():
                self._keyring.set(self.alias, None)
                self._ledger.wiped += 1

    async def _wait_for_something(self) -> None:
        self._something_to_send.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.outbox.next_due()):
                await self._something_to_send.wait()

    async def _enrol(self) -> None:
        """Until it succeeds. The same token is tried again, since an answer can be lost; a refused one is replaced."""
        token, attempts = None, 0
        while True:
            token = token or await self._token_for(self.alias)
            answer = await self._link.register(token, self.alias, self._by_qr_code) if token else None
            if answer is not None and answer.is_success:
                self._enrolled(answer.json())
                return
            if answer is not None and answer.is_client_error:
                self._ledger.rejected += 1
                token = None
            attempts += 1
            self._ledger.retries += 1
            await asyncio.sleep(pause(attempts, self._rng) * self._pace.backoff_scale)

    def _enrolled(self, answer: dict[str, str]) -> None:
        fcm_token = f"{self.alias}:APA91b{uuid.uuid4().hex}"
        self._keyring.set(self.alias, Credentials(answer["device_id"], answer["device_token"], fcm_token))
        self._ledger.registered += 1
        self.queue("/v1/devices/fcm-token", {"device_id": answer["device_id"], "fcm_token": fcm_token})
