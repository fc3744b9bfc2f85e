"""The sending part of the dispatch state machine. PostgreSQL serves as queue, lock and clock.

    accepted, retry_wait -> sending          claim: committed before any byte is sent, with a fence and a lease
    sending -> sent, failed, retry_wait, unknown    settle: by the holder of the fence
    unknown -> sent, failed, retry_wait      the same, if the holder is late
    sending -> unknown                       the lease ended. Never claimable again: the message may have been sent
    sent, unknown -> sending                 until_answered, and the device was heard from after FCM's time to live
    accepted, retry_wait -> expired          expires_at passed
    accepted, retry_wait, sending -> unknown after a restore: the message may have been sent since the snapshot

Zero rows from a guarded UPDATE mean that another process was first, and the caller must stop.
"""

import random
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from nexmdm.commands.message import Content
from nexmdm.runtime import logs, metrics, settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import NONE, Executor, Parameters, elapsed_ms, statement

DEFAULT_TTL_SECONDS = 600
Ttl = Annotated[int, msgspec.Meta(ge=1, le=86_400)]  # seconds
FCM_TTL_SECONDS = 240  # the agent drops messages that arrive 300 s after their ts
_MOST_CHARACTERS = 12_000  # maximum size of the results in one statement

Outcome = Literal["sent", "failed", "retry_wait", "unknown"]


class Result(msgspec.Struct, kw_only=True):
    """The result of one POST to FCM.

    Attributes:
        outcome: sent (accepted), failed (rejected permanently), retry_wait (certainly not accepted), or unknown.
        fcm_status: FCM's response as text.
        retry_after: seconds that FCM asked to wait.
        unregistered_token: the FCM registration token that FCM no longer knows.
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
    """A dispatch that the caller has claimed: only the caller may send it, once, before `until` (seconds of
    `time.time()`), when its lease or its time to live ends."""

    fence: int
    attempts: int
    fcm_token: str | None
    seconds_left: float
    until: float

    @property
    def ttl_seconds(self) -> int:
        """How long FCM may keep the message; at most until the command expires."""
        return int(min(FCM_TTL_SECONDS, self.seconds_left))


def claim(db: Executor, request_id: str, lease_seconds: int) -> Claim | None:
    """Claim one dispatch; None if it is not due, cannot be sent, or is claimed by another sender."""
    return next(iter(_claim(db, lease_seconds, limit=1, request_id=request_id)), None)


def claim_due(db: Executor, limit: int, lease_seconds: int, batch_id: str | None = None) -> list[Claim]:
    """Claim up to `limit` dispatches, skipping those that other senders hold: due ones, oldest first, and then, if no
    batch is given, until_answered commands that the device may have missed."""
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
    """Claim an unknown, failed, expired or unanswered dispatch for an operator's resend; None if it is in no such
    state.

    Args:
        key: the idempotency key of the resend itself; repeating it with the same key does nothing.
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
    """Create a dispatch that the caller has already claimed and sends itself; False if the request_id is taken or there
    is no such device. The sweep never sends it: if it is not settled within the lease it becomes `unknown`."""
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
    """The result of the POST by the holder of `fence`."""

    request_id: str
    fence: int
    result: Result


def settle(db: Executor, answers: list[Answer]) -> list[str | None]:
    """Record the results of POSTs in one statement; return the new state of each, or None if its fence was lost."""
    return [state for group in _groups(answers) for state in _settle(db, group)]


def _settle(db: Executor, group: dict[str, Answer]) -> list[str | None]:
    start = time.perf_counter()
    # The guard makes it safe to run twice: a second run finds the rows settled and reports that.
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
    """Group results so that each statement is small enough not to make RDS Proxy pin the session."""
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
    # FCM's Retry-After, or 5 s doubled with every attempt up to 300 s; plus up to 25 % jitter.
    jitter = random.uniform(1, 1.25)  # noqa: S311
    item = {**msgspec.structs.asdict(answer.result), "request_id": answer.request_id, "fence": answer.fence}
    return msgspec.json.encode({**item, "jitter": jitter}).decode()


def end_leases(db: Executor) -> int:
    """Mark dispatches whose lease ended as `unknown` (or `sent` if the device has answered); return how many."""
    return _transition(db, _END_LEASES, "DispatchUnknown", "unknown")


def expire(db: Executor, actor: Actor) -> int:
    """Mark unsent dispatches whose time to live has ended as `expired`; return how many."""
    return _transition(db, _EXPIRE, "DispatchExpired", "expired", actor.parameters())


def after_restore(db: Executor, actor: Actor) -> int:
    """Mark every open dispatch of a database restored from a snapshot as `unknown`; return how many.

    The database does not know what happened to them after the snapshot, so they are neither sent nor listed for their
    devices any more, unless an operator resends them. Call this before anything is sent from the restored database.
    """
    return _transition(
        db, _AFTER_RESTORE, "DispatchUnknown", "unknown", {"fcm_ttl_seconds": FCM_TTL_SECONDS, **actor.parameters()}
    )


def oldest_open_seconds(db: Executor) -> float:
    """The age in seconds of the oldest dispatch that is neither settled nor unknown; 0 if there is none."""
    return float(db.execute(_OLDEST_OPEN, repeatable=True)[0]["age"])


# Parameters that disable the kinds of claims in claim.sql that a call does not use.
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
    # Read before the database reads its own clock, so that the lease ends earlier for the holder.
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
