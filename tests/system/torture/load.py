"""A simulated fleet that works while faults happen, and the responses it got."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from local.fleet.fleet import Fleet
from local.fleet.ledger import Key, Ledger
from local.fleet.pace import Pace
from local.operator_api import Operator
from tests.local.processes import eventually
from tests.support.fcm import HMAC_KEY
from tests.system.torture.stack import BUCKET_SECONDS, KEYS, Stack

DRAIN_SECONDS, LONGEST_CALL_SECONDS = 30, 40


class Answer(NamedTuple):
    """One request of a device: when it was sent (`time.monotonic()`), the path, and the response."""

    sent: float
    path: str
    status: int


@dataclass
class Record(Ledger):
    """The fleet's ledger, which also keeps every response."""

    answers: list[Answer] = field(default_factory=list)

    def answered(self, path: str, status: int, seconds: float) -> None:
        super().answered(path, status, seconds)
        self.answers.append(Answer(time.monotonic() - seconds, path, status))

    def told_since(self, moment: float) -> list[Answer]:
        """Responses to requests sent from `moment` on, in the order of their arrival."""
        oldest = moment - LONGEST_CALL_SECONDS
        recent = itertools.takewhile(lambda answer: answer.sent >= oldest, reversed(list(self.answers)))
        return [answer for answer in recent if answer.sent >= moment]

    @property
    def acknowledged(self) -> set[Key]:
        """(device, bucket) of every heartbeat that the server acknowledged."""
        return set(self._stored)


class Load:
    """A fleet in its own thread. Any thread may read `record`."""

    def __init__(self, stack: Stack, devices: int) -> None:
        self.record = Record(BUCKET_SECONDS)
        self._stack, self._count = stack, devices
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._left: int | None = None
        self._failed: BaseException | None = None
        self.device_ids: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._failed or len(self.device_ids) == self._count, 60)

    def stop(self) -> None:
        """Stop after the devices have sent what they still hold.

        Raises:
            AssertionError: Something was left unsent, or the fleet itself failed.
        """
        if self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DRAIN_SECONDS + 30)
        assert self._failed is None, self._failed
        assert self._left == 0, f"{self._left} requests were never answered"

    def wait_for_answers(self, count: int, statuses: set[int], since: float, seconds: float = 60) -> None:
        """Wait until devices got `count` responses with one of these statuses."""
        eventually(lambda: sum(a.status in statuses for a in self.record.told_since(since)) >= count, seconds)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self._failed = error

    async def _work(self) -> None:
        self._stop = asyncio.Event()
        async with httpx.AsyncClient(base_url=self._stack.url, timeout=LONGEST_CALL_SECONDS) as http:
            pace = Pace(
                interval=0.4, backoff_scale=0.02, duplicate_share=0.1, offline_share=0.02, announced_scale=0.4 / 600
            )
            fleet = Fleet(
                self._stack.url,
                self._count,
                Operator(http, KEYS).enrollment_tokens,
                pace,
                ledger=self.record,
                hmac_keys=(HMAC_KEY,),
            )
            self._stack.fake_fcm.on_delivery = lambda message: self._loop.call_soon_threadsafe(
                fleet.deliver, message.token, message.data
            )
            running = asyncio.create_task(fleet.run())
            while not self._stop.is_set():
                self.device_ids = fleet.device_ids
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.1)
                if running.done():
                    running.result()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._left = await fleet.drain(DRAIN_SECONDS)
            await fleet.close()


@contextmanager
def under_load(stack: Stack, devices: int = 10) -> Iterator[Load]:
    load = Load(stack, devices)
    load.start()
    try:
        yield load
    finally:
        load.stop()
