"""What clients did and were told, and the rules that it must satisfy: `check(history, stored)` lists violations.

An operation answered with 2xx is `ok`. One that was refused (4xx) is `failed` and had no effect. One without a
response, or with a 5xx, is `unknown` and may have had its effect. Times are those of the clients: `a` was before `b` if
a.returned < b.invoked, and otherwise concurrent with it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from tests.system.dispatch.machine import FIXED, TRANSITIONS

Outcome = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True)
class Operation:
    """kind: heartbeat, command, show, cancel, ack or register. subject: what it was about: (device, bucket), a
    request_id, or a token_id. value: from the response. asked: from the request."""

    kind: str
    subject: Any
    invoked: float
    returned: float
    outcome: Outcome
    value: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stored:
    """What the database and the fake FCM hold at the end.

    commands: rows by request_id. tokens: {token_id: (uses_allowed, uses_consumed)}. devices: {device_id: token_id}.
    posts: POSTs of a request_id that FCM accepted or may have accepted. accepted: those that it certainly accepted.
    """

    heartbeats: list[tuple[str, int]] = field(default_factory=list)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)


def check(history: list[Operation], stored: Stored) -> list[str]:
    """Return one line for each violation."""
    return [*_heartbeats(history, stored), *_commands(history, stored), *_tokens(history, stored)]


def _of(history: list[Operation], *kinds: str) -> list[Operation]:
    return [operation for operation in history if operation.kind in kinds]


def _heartbeats(history: list[Operation], stored: Stored) -> Iterator[str]:
    rows = Counter(stored.heartbeats)
    sent = _of(history, "heartbeat")
    for subject in {operation.subject for operation in sent if operation.outcome == "ok"} - rows.keys():
        yield f"heartbeat {subject}: acknowledged and not stored"
    for subject in rows.keys() - {operation.subject for operation in sent if operation.outcome != "failed"}:
        yield f"heartbeat {subject}: stored, but never sent"
    for subject, count in rows.items():
        if count > 1:
            yield f"heartbeat {subject}: {count} rows for one bucket"


def _commands(history: list[Operation], stored: Stored) -> Iterator[str]:
    about: dict[str, list[Operation]] = defaultdict(list)
    for operation in _of(history, "command", "show", "cancel", "ack"):
        about[operation.subject].append(operation)
    for request_id, operations in about.items():
        told = [operation for operation in operations if operation.outcome == "ok" and operation.kind != "ack"]
        row = stored.commands.get(request_id)
        if row is None:
            if told:
                yield f"{request_id}: acknowledged and not stored"
            continue
        yield from _fixed(request_id, operations, told, row)
        yield from _states(request_id, told, row)
        yield from _acks(request_id, operations, row)
        said = any(operation.value["state"] == "sent" for operation in told)
        if said and row["result"] is None and not stored.accepted[request_id]:
            yield f"{request_id}: reported as sent, but FCM accepted no message"
    for request_id, count in stored.posts.items():
        if count > 1:
            yield f"{request_id}: {count} POSTs that FCM accepted or may have"


def _fixed(request_id: str, operations: list[Operation], told: list[Operation], row: dict[str, Any]) -> Iterator[str]:
    """Values fixed at acceptance never differ, and are those of a request."""
    for operation in told:
        for name in FIXED:
            if operation.value[name] != row[name]:
                yield f"{request_id}: {name} was {operation.value[name]!r} and is {row[name]!r}"
    asked = [
        operation.asked for operation in operations if operation.kind == "command" and operation.outcome != "failed"
    ]
    if row["device_id"] not in [each["device_id"] for each in asked]:
        yield f"{request_id}: no request named {row['device_id']}"


def _states(request_id: str, told: list[Operation], row: dict[str, Any]) -> Iterator[str]:
    """The state in each response is reachable from that in every earlier one, and the row's state from all of them."""
    for later in told:
        for earlier in told:
            was, now = earlier.value["state"], later.value["state"]
            if earlier.returned < later.invoked and now not in reachable(was):
                yield f"{request_id}: reported {was}, then {now}"
        if row["state"] not in reachable(later.value["state"]):
            yield f"{request_id}: reported {later.value['state']}, but stored {row['state']}"


def _acks(request_id: str, operations: list[Operation], row: dict[str, Any]) -> Iterator[str]:
    acks = [operation for operation in operations if operation.kind == "ack"]
    if any(ack.outcome == "ok" for ack in acks) and row["result"] is None:
        yield f"{request_id}: an acknowledgment was accepted and is not stored"
    if row["result"] is not None and row["result"] not in [a.asked["result"] for a in acks if a.outcome != "failed"]:
        yield f"{request_id}: its result {row['result']!r} was never reported"
    for operation in operations:
        if operation.outcome == "ok" and operation.value.get("result") not in (None, row["result"]):
            yield f"{request_id}: its result was {operation.value['result']!r} and is {row['result']!r}"


def _tokens(history: list[Operation], stored: Stored) -> Iterator[str]:
    made = Counter(stored.devices.values())
    for token_id, (allowed, consumed) in stored.tokens.items():
        if not made[token_id] <= consumed <= allowed:
            yield f"token {token_id}: {made[token_id]} devices, {consumed} uses of {allowed}"
    for operation in _of(history, "register"):
        device_id = operation.value.get("device_id")
        if operation.outcome == "ok" and stored.devices.get(device_id) != operation.subject:
            yield f"token {operation.subject}: registered {device_id}, which is not stored"


@cache
def reachable(state: str) -> frozenset[str]:
    """The states that a command may reach from this one, including itself. No operator resends here."""
    seen, waiting = {state}, [state]
    while waiting:
        here = waiting.pop()
        onward = {b for a, b in TRANSITIONS if a == here and (b != "sending" or here in ("accepted", "retry_wait"))}
        waiting += onward - seen
        seen |= onward
    return frozenset(seen)
