"""How a device sends what waits: one by one, now and then twice at once, or a queue of heartbeats in one batch."""

import asyncio
import random
import time
from typing import Any

import httpx

from local.fleet.credentials import Credentials
from local.fleet.ledger import Ledger
from local.fleet.link import Link
from local.fleet.outbox import Item, Outbox, pause
from local.fleet.pace import Pace

MOST_REFUSALS = 5  # answers 401 in a row after which the agent wipes its credentials and enrolls again
BATCH = 500
REJECTED = {"status": "rejected"}


class Sender:
    def __init__(self, outbox: Outbox, link: Link, ledger: Ledger, pace: Pace, rng: random.Random) -> None:
        self._outbox, self._link, self._ledger, self._pace, self._rng = outbox, link, ledger, pace, rng
        self._in_batches = rng.random() < pace.batch_share
        self._refusals = 0

    async def send_next(self, credentials: Credentials) -> bool:
        """Try what is due; False when nothing is."""
        batch = self._outbox.due_heartbeats(BATCH) if self._in_batches else []
        if len(batch) > 1:
            await self._send_batch(batch, credentials)
        elif item := self._outbox.due():
            await self._send_one(item, credentials)
        else:
            return False
        return True

    def refused(self) -> bool:
        """Whether the credentials were refused too often; asking starts the count again."""
        refused = self._refusals >= MOST_REFUSALS
        self._refusals = 0 if refused else self._refusals
        return refused

    async def _send_one(self, item: Item, credentials: Credentials) -> None:
        twice = item.is_heartbeat and self._rng.random() < self._pace.duplicate_share
        self._ledger.duplicated += twice
        answers = await asyncio.gather(*[self._attempt(item, credentials) for _ in range(1 + twice)])
        self._settle([item], any(answers))

    async def _attempt(self, item: Item, credentials: Credentials) -> bool:
        answer = await self._post(item.path, item.content, credentials, item.header)
        success = answer is not None and answer.is_success
        if item.is_heartbeat:
            self._count(item, credentials, answer, answer.json() if success else REJECTED)
        return success

    async def _send_batch(self, batch: list[Item], credentials: Credentials) -> None:
        content = b'{"heartbeats": [' + b", ".join(item.content for item in batch) + b"]}"
        answer = await self._post("/v1/heartbeats", content, credentials, "Authorization")
        success = answer is not None and answer.is_success
        results = answer.json()["results"] if success else [REJECTED] * len(batch)
        for item, result in zip(batch, results, strict=True):
            self._count(item, credentials, answer, result)
        self._settle(batch, success)

    async def _post(self, path: str, content: bytes, credentials: Credentials, header: str) -> httpx.Response | None:
        answer = await self._link.post(path, content, credentials.device_token, header)
        if answer is not None:
            self._refusals = self._refusals + 1 if answer.status_code == 401 else 0
        return answer

    def _count(
        self, item: Item, credentials: Credentials, answer: httpx.Response | None, result: dict[str, Any]
    ) -> None:
        if answer is None or answer.status_code >= 500:
            self._ledger.heartbeat_uncertain(credentials.device_id, item.taken_at)
        elif result.get("status") == "rejected":
            self._ledger.rejected += 1
        else:
            self._ledger.heartbeat_accepted(credentials.device_id, item.taken_at, result.get("status") == "duplicate")

    def _settle(self, items: list[Item], success: bool) -> None:
        """Everything that is not 2xx is tried again, a 410 and a 422 too, until the outbox drops it."""
        for item in items:
            if success:
                self._outbox.remove(item)
            else:
                item.attempts += 1
                self._ledger.retries += 1
                item.not_before = time.monotonic() + pause(item.attempts, self._rng) * self._pace.backoff_scale
        if success and any(item.attempts for item in items):
            self._outbox.all_due()
