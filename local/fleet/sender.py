"""Sends heartbeats and other reports of a phone, and records them in the ledger."""

import asyncio
import random
import time

from local.fleet.ledger import Ledger
from local.fleet.link import Link, Response
from local.fleet.outbox import Item
from local.fleet.storage import Body, Credentials

REJECTED = {"status": "rejected"}


class Sender:
    """duplicate_share: of heartbeats that the network delivers twice at once."""

    def __init__(self, link: Link, ledger: Ledger, duplicate_share: float, rng: random.Random) -> None:
        self._link, self._ledger, self._duplicate_share, self._rng = link, ledger, duplicate_share, rng

    async def send(self, item: Item, credentials: Credentials) -> Response | None:
        """Send one item by its own route. Of two responses the successful one is returned."""
        twice = item.is_heartbeat and self._rng.random() < self._duplicate_share
        self._ledger.duplicated += twice
        responses = await asyncio.gather(*[self._attempt(item, credentials) for _ in range(1 + twice)])
        return next((r for r in responses if r is not None and r.is_success), responses[0])

    async def send_batch(self, batch: list[Item], credentials: Credentials) -> Response | None:
        sent_at = time.time()
        content = b'{"heartbeats": [' + b", ".join(item.content for item in batch) + b"]}"
        try:
            response = await self._link.post("/v1/heartbeats", content, credentials.device_token, "Authorization")
        except asyncio.CancelledError:
            self._not_answered(batch, credentials, sent_at)
            raise
        results = response.json()["results"] if response and response.is_success else [REJECTED] * len(batch)
        for item, result in zip(batch, results, strict=True):
            self._count(item, credentials, response, result, sent_at)
        return response

    async def _attempt(self, item: Item, credentials: Credentials) -> Response | None:
        sent_at = time.time()
        path = item.path.replace("{device_id}", credentials.device_id)
        try:
            response = await self._link.post(path, item.content, credentials.device_token, item.header)
        except asyncio.CancelledError:
            self._not_answered([item], credentials, sent_at)
            raise
        if item.is_heartbeat:
            succeeded = response is not None and response.is_success
            result = response.json() if response and succeeded else REJECTED
            self._count(item, credentials, response, result, sent_at)
        return response

    def _not_answered(self, items: list[Item], credentials: Credentials, sent_at: float) -> None:
        """The run ended before the response arrived; the server may have received them."""
        for item in items:
            self._count(item, credentials, None, REJECTED, sent_at)

    def _count(
        self,
        item: Item,
        credentials: Credentials,
        response: Response | None,
        result: Body,
        sent_at: float,
    ) -> None:
        if item.taken_at is None:
            return
        if response is None or response.status >= 500:
            self._ledger.heartbeat_uncertain(credentials.device_id, item.taken_at, sent_at)
        elif result.get("status") == "rejected":
            self._ledger.rejected += 1
        else:
            duplicate = result.get("status") == "duplicate"
            self._ledger.heartbeat_accepted(credentials.device_id, item.taken_at, duplicate, sent_at)
