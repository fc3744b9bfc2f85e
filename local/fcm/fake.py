"""The fake's state: behaviours per registration token, received requests, and deliveries."""

import asyncio
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from local.fcm.behaviours import Behaviour, Reply, at_random, json_reply, reply

SEND = re.compile(r"/v1/projects/(?P<project>[^/]+)/messages:send")
TOKEN = "/token"
EVERY = "*"
ACCESS_SECONDS = 3600
# A message of FCM HTTP v1, as it was sent: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
Message: TypeAlias = dict[str, Any]


@dataclass
class Record:
    """One request. at: seconds since 1970. outcome: the behaviour's kind, or an earlier error."""

    number: int
    at: float
    path: str
    headers: dict[str, str]
    token: str | None
    message: Message
    outcome: str = "arrived"
    delivered: bool = False
    answered_at: float | None = None

    @property
    def data(self) -> dict[str, str]:
        return dict(self.message.get("data", {}))


@dataclass(frozen=True)
class Delivery:
    number: int
    token: str
    data: dict[str, str] = field(default_factory=dict)


class FakeFcm:
    """Can be used from any thread.

    on_message: called in a thread with the record of a received message, before anything is decided or sent; it may
    block. on_delivery: called with each message that a device receives.
    """

    def __init__(self, misbehave: float = 0.0, seed: int | None = None) -> None:
        self.on_message: Callable[[Record], None] | None = None
        self.on_delivery: Callable[[Delivery], None] | None = None
        self.misbehave = misbehave
        self._rng = random.Random(seed)
        self._behaviours: dict[str, list[Behaviour]] = {}
        self._records: list[Record] = []
        self._deliveries: list[Delivery] = []
        self._access: dict[str, float] = {}
        self._changed = threading.Condition()

    # --- used by tests

    def behave(self, token: str, *behaviours: Behaviour | str) -> None:
        """Set the behaviours for the next messages to a registration token, in order; the last one stays unless it has
        `times`.

        token: `*` applies to every token without its own behaviours, `/token` to the OAuth endpoint.
        """
        given = [Behaviour(entry) if isinstance(entry, str) else entry for entry in behaviours]
        last = len(given) - 1
        with self._changed:
            self._behaviours[token] = [
                behaviour if n == last or behaviour.times else Behaviour(**{**asdict(behaviour), "times": 1})
                for n, behaviour in enumerate(given)
            ]

    def forget(self) -> None:
        """Forget behaviours, requests and deliveries; access tokens stay valid."""
        with self._changed:
            self._behaviours.clear()
            self._records.clear()
            self._deliveries.clear()

    def revoke_access(self) -> None:
        """Reject every access token issued so far with 401."""
        self._access.clear()

    def requests(self, after: int = 0, path: str | None = None) -> list[Record]:
        """The received requests. path: `/token`, or None for messages."""
        with self._changed:
            wanted = TOKEN if path == TOKEN else None
            return [r for r in self._records if r.number > after and (r.path == TOKEN) == (wanted == TOKEN)]

    def posts(self, request_id: str) -> list[Record]:
        """The messages with a request_id, in order of arrival."""
        return [record for record in self.requests() if record.data.get("request_id") == request_id]

    def deliveries(self, after: int = 0) -> list[Delivery]:
        with self._changed:
            return [delivery for delivery in self._deliveries if delivery.number > after]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        """Wait until a request makes the condition true.

        Raises:
            TimeoutError: it did not become true.
        """
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise TimeoutError("the fake did not see it")

    # --- used by the server

    def grant(self, assertion_given: bool) -> Reply:
        """An access token for a signed assertion, whose signature is not checked."""
        behaviour = self._next_behaviour(TOKEN)
        self._record(TOKEN, {}, None, {}).outcome = behaviour.kind
        if behaviour.kind != "200":
            return reply(behaviour, "fake_fcm") or json_reply(503, {"error": "unavailable"})
        if not assertion_given:
            return json_reply(400, {"error": "invalid_grant", "error_description": "no assertion"})
        access = secrets.token_urlsafe(24)
        self._access[access] = time.monotonic() + ACCESS_SECONDS
        return json_reply(200, {"access_token": access, "expires_in": ACCESS_SECONDS, "token_type": "Bearer"})

    async def receive(self, path: str, headers: dict[str, str], body: bytes) -> tuple[Record, Behaviour]:
        """Handle a received message: record it, run the hook, decide, deliver."""
        message = _message(body)
        record = self._record(path, headers, message.get("token") if message else None, message or {})
        if self.on_message:
            await asyncio.to_thread(self.on_message, record)
        behaviour = self._decide(record, valid=bool(message and message.get("token")))
        record.outcome, record.delivered = behaviour.kind, behaviour.delivers
        if behaviour.delivers:
            self._deliver(record)
        self._tell()
        return record, behaviour

    def answered(self, record: Record) -> None:
        record.answered_at = time.time()
        self._tell()

    def _decide(self, record: Record, valid: bool) -> Behaviour:
        access = record.headers.get("authorization", "").removeprefix("Bearer ")
        if self._access.get(access, 0) < time.monotonic():
            return Behaviour("401")
        return self._next_behaviour(record.token) if valid and record.token else Behaviour("400")

    def _next_behaviour(self, token: str) -> Behaviour:
        with self._changed:
            own = self._behaviours.get(token) or (self._behaviours.get(EVERY) if token != TOKEN else None)
            if not own:
                return at_random(self._rng, self.misbehave) if token != TOKEN else Behaviour()
            first = own[0]
            if first.times is not None:
                own[0] = Behaviour(**{**asdict(first), "times": first.times - 1})
                if first.times <= 1:
                    own.pop(0)
            return first

    def _record(self, path: str, headers: dict[str, str], token: str | None, message: Message) -> Record:
        with self._changed:
            record = Record(len(self._records) + 1, time.time(), path, headers, token, message)
            self._records.append(record)
            self._changed.notify_all()
        return record

    def _deliver(self, record: Record) -> None:
        assert record.token is not None
        with self._changed:
            delivery = Delivery(len(self._deliveries) + 1, record.token, record.data)
            self._deliveries.append(delivery)
        if self.on_delivery:
            self.on_delivery(delivery)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _message(body: bytes) -> Message | None:
    try:
        message: Message = json.loads(body)["message"]
        return message
    except (ValueError, KeyError, TypeError):
        return None
