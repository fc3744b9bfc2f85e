"""The sending half of the dispatch state machine. PostgreSQL is the queue, the lock and the clock.

    accepted, retry_wait -> sending          claim: committed before any byte leaves, under a fence and a lease
    sending -> sent, failed, retry_wait, unknown    settle: by the holder of the fence
    unknown -> sent, failed, retry_wait      the same, when the holder comes late
    sending -> unknown                       the lease passed. Never back to claimable: the message may be on its way
    sent, unknown -> sending                 an until_answered command whose device was heard after FCM gave up
    accepted, retry_wait -> expired          expires_at passed
    accepted, retry_wait, sending -> unknown after a restore: the message may have been sent since the snapshot

Zero rows from a guarded UPDATE mean: somebody else was first, stop.
"""

import random
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from nexmdm.commands.message import Content
from nexmdm.runtime import logs, metrics, settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import NONE, Executor, Parameters, elapsed_ms, statement

DEFAULT_TTL_SECONDS = 600
FCM_TTL_SECONDS = 240  # the agent drops what arrives 300 s after its ts
_MOST_CHARACTERS = 12_000  # of the answers in one statement

Outcome = Literal["sent", "failed", "retry_wait", "unknown"]


class Result(msgspec.Struct, kw_only=True):
    """What became of one POST to FCM.

    Attributes:
        outcome: sent (accepted), failed (refused for good), retry_wait (certainly not accepted), unknown.
        fcm_status: FCM's answer as text.
        retry_after: seconds that FCM asked to wait.
        unregistered_token: the address that FCM no longer knows.
    """

    outcome: Outcome
    fcm_status: str
    fcm_message_id: str | None = None
    http_code: int | None = None
    latency_ms: int | None = None
    error_msg: str | None = None
    response_json: str | None = None
    retry_after: float | None = None
    unregistered_token: str | None = None


class Claim(Content, kw_only=True):
    """A dispatch that the caller now holds: it alone may send it, once, before `until` (seconds of `time.time()`), when
    its lease or its life ends."""

    fence: int
    attempts: int
    fcm_token: str | None
    seconds_left: float
    until: float

    @property
    def ttl_seconds(self) -> int:
        """How long FCM may keep the message: not beyond the command's own end."""
        return int(min(FCM_TTL_SECONDS, self.seconds_left))


def claim(db: Executor, request_id: str, lease_seconds: int) -> Claim | None:
    """Claim one dispatch, or None: it is not due, not sendable, or another holds it."""
    return next(iter(_claim(db, lease_seconds, limit=1, request_id=request_id)), None)


def claim_due(db: Executor, limit: int, lease_seconds: int, batch_id: str | None = None) -> list[Claim]:
    """Claim up to `limit` dispatches, skipping those that others hold: what is due, oldest first, and then, when no
    batch is named, until_answered commands that the device can have missed."""
    return _claim(db, lease_seconds, limit=limit, batch_id=batch_id, repeats=batch_id is None)


def claim_again(
    db: Executor,
    request_id: str,
    *,
    lease_seconds: int,
    ttl_seconds: int,
    actor: Actor,
    reason: str,
    key: str | None = None,
) -> Claim | None:
    """An operator's resend of an unknown, failed, expired or unacknowledged dispatch; None when it is none of those.

    Args:
        key: the idempotency key of the resend itself: with the same one it is done once.
    """
    again = {"resend": request_id, "ttl_seconds": ttl_seconds, "reason": reason, "key": key}
    return next(iter(_claim(db, lease_seconds, limit=1, **again, **actor.parameters())), None)


def claim_new(
    db: Executor,
    *,
    request_id: str,
    device_id: str,
    action: str,
    payload_hash: str | None,
    fcm_status: str,
    retries: int,
) -> bool:
    """Make a dispatch that the caller holds from the start and sends by itself; False when the request_id is taken or
    there is no such device. The sweep never sends it: if it is not settled within the lease it becomes `unknown`."""
    start = time.perf_counter()
    config = settings.load()
    parameters = {
        "request_id": request_id,
        "device_id": device_id,
        "action": action,
        "payload_hash": payload_hash,
        "fcm_status": fcm_status,
        "retries": retries,
        "ttl_seconds": DEFAULT_TTL_SECONDS,
        "lease_seconds": config.dispatch_lease_seconds,
        "fcm_ttl_seconds": FCM_TTL_SECONDS,
    }
    made = bool(db.execute(_CLAIM_NEW, parameters))
    event = "create" if made else "idempotency_hit"
    logs.db_operation(event, "fcm_dispatches", {"request_id": request_id}, elapsed_ms(start))
    return made


class Answer(msgspec.Struct):
    """What became of the POST that the holder of `fence` made."""

    request_id: str
    fence: int
    result: Result


def settle(db: Executor, answers: list[Answer]) -> list[str | None]:
    """Record what became of POSTs, in one statement; the new state of each, or None when its fence was lost."""
    return [state for group in _groups(answers) for state in _settle(db, group)]


def _settle(db: Executor, group: dict[str, Answer]) -> list[str | None]:
    start = time.perf_counter()
    # The guard makes it safe to run twice: a second run finds the rows settled and says so.
    rows = db.execute(_SETTLE, {"answers": f"[{','.join(group)}]"}, repeatable=True)
    states = {row["request_id"]: row["state"] for row in rows}
    latency_ms = elapsed_ms(start)
    for answer in group.values():
        _count(answer.result)
        state, outcome = states.get(answer.request_id), answer.result.outcome
        keys = {"request_id": answer.request_id, "fence": answer.fence, "outcome": outcome, "state": state}
        logs.db_operation("update", "fcm_dispatches", keys, latency_ms)
    return [states.get(answer.request_id) for answer in group.values()]


def _groups(answers: list[Answer]) -> Iterator[dict[str, Answer]]:
    """By their JSON, as many as fit into a statement that a proxy does not pin the session for."""
    group: dict[str, Answer] = {}
    for answer in answers:
        item = _item(answer)
        if group and sum(map(len, group)) + len(item) > _MOST_CHARACTERS:
            yield group
            group = {}
        group[item] = answer
    if group:
        yield group


def _item(answer: Answer) -> str:
    # What FCM asks for, or 5 s doubled with every attempt up to 300 s; never less, up to a quarter more.
    jitter = random.uniform(1, 1.25)  # noqa: S311
    item = {**msgspec.structs.asdict(answer.result), "request_id": answer.request_id, "fence": answer.fence}
    return msgspec.json.encode({**item, "jitter": jitter}).decode()


def end_leases(db: Executor) -> int:
    """Dispatches whose lease passed become `unknown` (or `sent` when the device has answered); returns how many."""
    return _transition(db, _END_LEASES, "DispatchUnknown", "unknown")


def expire(db: Executor, actor: Actor) -> int:
    """Dispatches whose time is over and that were not sent become `expired`; returns how many."""
    return _transition(db, _EXPIRE, "DispatchExpired", "expired", actor.parameters())


def after_restore(db: Executor, actor: Actor) -> int:
    """Every dispatch that is open in a database restored from a snapshot becomes `unknown`; returns how many.

    What became of it between the snapshot and now is not in here, so it is neither sent nor listed for its device any
    more, unless an operator resends it. For a database that nothing has been sent from since it was restored.
    """
    return _transition(
        db, _AFTER_RESTORE, "DispatchUnknown", "unknown", {"fcm_ttl_seconds": FCM_TTL_SECONDS, **actor.parameters()}
    )


def oldest_open_seconds(db: Executor) -> float:
    """The age of the oldest dispatch that is neither settled nor unknown, in seconds; 0 when there is none."""
    return float(db.execute(_OLDEST_OPEN, repeatable=True)[0]["age"])


# What closes the ways into claim.sql that a call does not take.
_NO_WAY = {
    "request_id": None,
    "batch_id": None,
    "repeats": False,
    "resend": None,
    "ttl_seconds": 0,
    **Actor("").parameters(),
    "reason": None,
    "key": None,
}


def _claim(db: Executor, lease_seconds: int, **ways: Any) -> list[Claim]:
    start = time.perf_counter()
    # Taken before the database takes its own: the holder's idea of the lease ends first.
    now = time.time()
    parameters = {**_NO_WAY, **ways, "lease_seconds": lease_seconds, "fcm_ttl_seconds": FCM_TTL_SECONDS}
    rows = db.execute(_CLAIM, parameters)
    keys = {"claimed": len(rows), "request_ids": [row["request_id"] for row in rows[:10]]}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return [Claim(**row, until=now + min(lease_seconds, row["seconds_left"])) for row in rows]


def _transition(db: Executor, sql: str, metric: str, state: str, parameters: Parameters = NONE) -> int:
    start = time.perf_counter()
    rows = db.execute(sql, parameters, repeatable=True)
    if rows:
        keys = {"state": state, "count": len(rows), "request_ids": [row["request_id"] for row in rows[:10]]}
        logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    moved = len([row for row in rows if row["state"] == state])
    if moved:
        metrics.count(metric, moved)
    return moved


def _count(result: Result) -> None:
    metrics.count(
        {
            "sent": "DispatchSent",
            "failed": "DispatchFailed",
            "retry_wait": "DispatchRetried",
            "unknown": "DispatchUnknown",
        }[result.outcome]
    )
    if result.latency_ms is not None:
        metrics.milliseconds("SendLatency", result.latency_ms)


_CLAIM_NEW = statement(__package__, "claim_new")
_SETTLE = statement(__package__, "settle")
_CLAIM = statement(__package__, "claim")
_END_LEASES = statement(__package__, "end_leases")
_EXPIRE = statement(__package__, "expire")
_AFTER_RESTORE = statement(__package__, "after_restore")
_OLDEST_OPEN = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age
FROM fcm_dispatches WHERE state IN ('accepted', 'retry_wait', 'sending')
"""
