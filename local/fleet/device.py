"""The common parts of both kinds of agents: a phone, an outbox, an unreliable network, an FCM inbox."""

import asyncio
import contextlib
import json
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from local.fleet.commands import Inbox, Run
from local.fleet.ledger import Ledger
from local.fleet.link import Link, Response
from local.fleet.odd import Odd
from local.fleet.outbox import Item, Outbox, pause
from local.fleet.pace import Pace
from local.fleet.phone import Phone
from local.fleet.storage import Body, Credentials, Storage, Stored

FCM_KEEPS_SECONDS = 240  # the server's FCM ttl: a phone that is without network for longer never gets the message
LOOKS_SECONDS = 1  # between checks of a phone whose image another phone also has
MOST_REFUSALS = 5  # number of consecutive 401 responses after which an agent discards its credentials


@dataclass(frozen=True)
class Context:
    """The context that the devices of a fleet share.

    Args:
        token_for: returns an enrollment token for an alias, or None if there is none at present.
        hmac_keys: primary and rotation key of phones that receive them.
        attended: a person re-enrolls phones that have lost their credentials.
        odd: phones behave unusually; see `local.fleet.odd`.
    """

    ledger: Ledger
    pace: Pace
    storage: Storage
    token_for: Callable[[str], Awaitable[str | None]]
    hmac_keys: tuple[str, ...] = ()
    attended: bool = True
    odd: bool = False


class Device(ABC):
    """One phone. `ran` has the commands that it ran, by request_id."""

    profile: ClassVar[str]

    def __init__(self, alias: str, link: Link, context: Context, twin: bool = False) -> None:
        """twin: this is the second phone with the same image and credentials."""
        self.alias = alias
        self.outbox = Outbox()
        self.ran: dict[str, Run] = {}
        self._link, self._context = link, context
        self._ledger, self._pace = context.ledger, context.pace
        self._rng = random.Random(f"twin of {alias}" if twin else alias)
        self.odd = Odd(self._rng, self._pace.odd_share) if context.odd else None
        self._twin = twin
        self.phone = Phone(alias, self._rng, self.stored)
        self._inbox = Inbox(self._ledger, context.hmac_keys, self._handle)
        self._online = asyncio.Event()
        self._online.set()
        self._returns: asyncio.TimerHandle | None = None
        self._held: list[tuple[float, dict[str, str]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._enrolled = asyncio.Event()
        self._refusals = 0

    # --- its state

    @property
    def stored(self) -> Stored:
        return self._context.storage.of(self.alias)

    @property
    def credentials(self) -> Credentials | None:
        return self.stored.credentials

    @property
    def online(self) -> bool:
        """Whether it has a network."""
        return self._online.is_set() and not self.phone.cut_off

    @property
    def busy(self) -> bool:
        """Whether something is waiting to be sent or running."""
        return bool(len(self.outbox) or self._tasks)

    # --- events

    @abstractmethod
    async def run(self) -> None:
        """Live until cancelled."""

    @abstractmethod
    async def enroll(self, token: str) -> Response | None:
        """Register with an enrollment token and store the returned credentials."""

    @abstractmethod
    async def report(self) -> None:
        """Create a heartbeat now and send waiting reports."""

    @abstractmethod
    async def send_waiting(self) -> None:
        """Try to send every waiting report once."""

    @abstractmethod
    def restart(self) -> None:
        """Restart the agent's process, which loses its memory."""

    @abstractmethod
    def _handle(self, request_id: str, data: dict[str, str]) -> None:
        """Handle a genuine message."""

    def go_offline(self, seconds: float | None = None) -> None:
        """Lose the network, for some seconds or until `go_online`."""
        self._online.clear()
        if seconds is not None:
            self._returns = asyncio.get_running_loop().call_later(seconds, self.go_online)

    def go_online(self) -> None:
        """Regain the network: FCM delivers what it still has, and waiting reports become due."""
        if self._returns:
            self._returns.cancel()
        self._online.set()
        self.outbox.all_due()
        held, self._held = self._held, []
        for at, data in held:
            if time.monotonic() - at <= FCM_KEEPS_SECONDS:
                self.receive(data)

    def spend_offline(self, seconds: float, interval: float) -> None:
        """Simulate that the phone was without network for the last `seconds` and created a heartbeat every
        `interval`."""
        self.outbox.age(seconds)
        self._held = [(at - seconds, data) for at, data in self._held]
        ago = seconds
        while ago > 0:
            self.queue_heartbeat(ago=ago)
            ago -= interval

    def receive(self, data: dict[str, str]) -> None:
        """Receive a message from FCM, which keeps it while the device has no network."""
        if not self.online:
            self._held.append((time.monotonic(), data))
        elif known := self.credentials:
            self._inbox.receive(known.device_id, data)

    def factory_reset(self) -> None:
        """Wipe the phone, which can then be enrolled again."""
        for task in self._tasks:
            task.cancel()
        self._context.storage.erase(self.alias)
        self.phone = Phone(self.alias, self._rng, self.stored)
        self.outbox = Outbox()
        self._held.clear()
        self.restart()

    # --- sending

    def queue(self, path: str, body: Body, header: str = "Authorization", taken_at: float | None = None) -> Item:
        if self.odd:
            self.odd.change(body, heartbeat=taken_at is not None)
        item = Item(path, json.dumps(body).encode(), taken_at, header)
        self._ledger.dropped += len(self.outbox.add(item))
        return item

    def queue_heartbeat(self, ping_request_id: str | None = None, ago: float = 0.0) -> Item | None:
        """Whether it can send; not before enrollment, because the body names the device."""
        known = self.credentials
        if known is None:
            return None
        fcm_token: str | None = known.fcm_token
        if self.odd:
            self.phone.clock_offset = self.odd.clock()
            if self.odd.shares_a_token():
                fcm_token = self._context.storage.other_fcm_token(self.alias)
        body = self.phone.heartbeat(known.device_id, fcm_token, len(self.outbox), ping_request_id, ago)
        taken_at = datetime.fromisoformat(body["timestamp_utc"]).timestamp()
        return self.queue("/v1/heartbeat", body, taken_at=taken_at)

    async def drain(self) -> None:
        """After `run`: create no more heartbeats, return when nothing is waiting."""
        self.go_online()
        while self.busy:
            if self.credentials is None and not self._tasks:
                return
            self.outbox.all_due()
            await self.send_waiting()
            if self.busy:
                await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Wait until all its background tasks are done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def give_up(self) -> None:
        """Stop all background tasks, because the network is gone permanently."""
        if self._returns:
            self._returns.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count_refusal(self, response: Response | None) -> bool:
        """Whether this was the fifth 401 in a row."""
        if response is not None:
            self._refusals = self._refusals + 1 if response.status == 401 else 0
        if self._refusals < MOST_REFUSALS:
            return False
        self._refusals = 0
        return True

    def forget_credentials(self) -> None:
        self.stored.credentials = None
        self._enrolled.clear()
        self.save()

    def save(self) -> None:
        self._context.storage.save()

    async def until_enrolled(self) -> None:
        """In an attended fleet, enroll the phone, with the same token until there is a response."""
        token, attempts = None, 0
        while self.credentials is None:
            if self._twin or not self._context.attended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOKS_SECONDS):
                        await self._enrolled.wait()
                continue
            token = token or await self._context.token_for(self.alias)
            response = await self.enroll(token) if token else None
            if response is not None and 400 <= response.status < 500:
                self._ledger.rejected += 1
                token = None
            if self.credentials is None:
                attempts += 1
                self._ledger.retries += 1
                await asyncio.sleep(pause(attempts, self._rng) * self._pace.backoff_scale)

    def keep_credentials(self, response: Response) -> Credentials:
        """Store the response of a successful registration."""
        answer, earlier = response.json(), self.credentials
        fcm_token = earlier.fcm_token if earlier else f"{self.alias}:APA91b{uuid.uuid4().hex}"
        known = self.stored.credentials = Credentials(answer["device_id"], answer["device_token"], fcm_token)
        self.save()
        self._ledger.registered += 1
        self._enrolled.set()
        return known

    def note(self, request_id: str, action: str, succeeded: bool | None = True) -> None:
        """Record that it runs a command. succeeded: None if not known yet."""
        known = self.credentials
        if known:
            self._ledger.ran[(known.device_id, request_id)] += 1
        self.ran[request_id] = Run(action, succeeded)

    def finish(self, request_id: str, succeeded: bool) -> None:
        """Record the result of a command that it runs."""
        self.ran[request_id].succeeded = succeeded
