"""The sending half of the dispatch state machine. PostgreSQL is the queue, the lock and the clock.

    accepted, retry_wait -> sending          claim: committed before any byte leaves, under a fence and a lease
    sending -> sent, failed, retry_wait, unknown    settle: by the holder of the fence
    unknown -> sent, failed, retry_wait      the same, when the holder comes late
    sending -> unknown                       the lease passed. Never back to claimable: the message may be on its way
    accepted, retry_wait -> expired          expires_at passed
    accepted, retry_wait, sending -> unknown after a restore: the message may have been sent since the snapshot

Zero rows from a guarded UPDATE mean: somebody else was first, stop.
"""

import random
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from nexmdm.runtime import logs, metrics, settings
from nexmdm.runtime.database import NONE, Executor, Parameters, Row, elapsed_ms

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


class Claim(msgspec.Struct):
    """A dispatch that the caller now holds: it alone may send it, once, before `until` (seconds of `time.time()`), when
    its lease or its life ends."""

    dispatch: Row
    until: float

    @property
    def ttl_seconds(self) -> int:
        """How long FCM may keep the message: not beyond the command's own end."""
        return int(min(FCM_TTL_SECONDS, self.dispatch["seconds_left"]))


def claim(db: Executor, request_id: str, lease_seconds: int) -> Claim | None:
    """Claim one dispatch, or None: it is not due, not sendable, or another holds it."""
    return next(iter(_claim(db, _CLAIM_ONE, {"request_id": request_id}, lease_seconds)), None)


def claim_due(db: Executor, limit: int, lease_seconds: int, batch_id: str | None = None) -> list[Claim]:
    """Claim up to `limit` dispatches that are due, oldest first, skipping those that others hold."""
    return _claim(db, _CLAIM_DUE, {"limit": limit, "batch_id": batch_id}, lease_seconds)


def claim_again(
    db: Executor,
    request_id: str,
    *,
    lease_seconds: int,
    ttl_seconds: int,
    by: str,
    reason: str,
    key: str | None = None,
) -> Claim | None:
    """An operator's resend of an unknown, failed, expired or unacknowledged dispatch; None when it is none of those.

    Args:
        key: the idempotency key of the resend itself: with the same one it is done once.
    """
    parameters = {"request_id": request_id, "ttl_seconds": ttl_seconds, "by": by, "reason": reason, "key": key}
    return next(iter(_claim(db, _CLAIM_AGAIN, parameters, lease_seconds)), None)


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


def expire(db: Executor) -> int:
    """Dispatches whose time is over and that were not sent become `expired`; returns how many."""
    return _transition(db, _EXPIRE, "DispatchExpired", "expired")


def after_restore(db: Executor) -> int:
    """Every dispatch that is open in a database restored from a snapshot becomes `unknown`; returns how many.

    What became of it between the snapshot and now is not in here, so it is neither sent nor listed for its device any
    more, unless an operator resends it. For a database that nothing has been sent from since it was restored.
    """
    return _transition(db, _AFTER_RESTORE, "DispatchUnknown", "unknown", {"fcm_ttl_seconds": FCM_TTL_SECONDS})


def oldest_open_seconds(db: Executor) -> float:
    """The age of the oldest dispatch that is neither settled nor unknown, in seconds; 0 when there is none."""
    return db.execute(_OLDEST_OPEN, repeatable=True)[0]["age"]


def _claim(db: Executor, sql: str, parameters: dict[str, Any], lease_seconds: int) -> list[Claim]:
    start = time.perf_counter()
    # Taken before the database takes its own: the holder's idea of the lease ends first.
    now = time.time()
    rows = db.execute(sql, {**parameters, "lease_seconds": lease_seconds, "fcm_ttl_seconds": FCM_TTL_SECONDS})
    keys = {"claimed": len(rows), "request_ids": [row["request_id"] for row in rows[:10]]}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return [Claim(row, now + min(lease_seconds, row["seconds_left"])) for row in rows]


def _transition(db: Executor, sql: str, metric: str, state: str, parameters: Parameters = NONE) -> int:
    start = time.perf_counter()
    rows = db.execute(sql, parameters, repeatable=True)
    if rows:
        keys = {"state": state, "count": len(rows), "request_ids": [row["request_id"] for row in rows[:10]]}
        logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    moved = sum(row["state"] == state for row in rows)
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


_CLAIMED = """
    fence = f.fence + 1,
    attempts = f.attempts + 1,
    retries = f.attempts,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    next_at = NULL,
    sent_at = clock_timestamp(),
    -- The last attempt's answer is not this one's.
    fcm_status = 'pending',
    http_code = NULL,
    error_msg = NULL,
    response_json = NULL,
    -- Until when FCM may still deliver this message, whatever we hear of it: retention waits for it.
    fcm_expires_at = clock_timestamp() + make_interval(secs => %(lease_seconds)s + %(fcm_ttl_seconds)s)"""

_RETURNING = """
RETURNING f.request_id, f.device_id, f.action, f.payload, f.secrets, f.fence, f.attempts, d.fcm_token,
    extract(epoch FROM f.expires_at - clock_timestamp())::float8 AS seconds_left"""

_SENDABLE = """
    f.state IN ('accepted', 'retry_wait') AND f.completed_at IS NULL
    AND coalesce(f.next_at, f.created_at) <= clock_timestamp() AND f.expires_at > clock_timestamp()
    AND d.fcm_token IS NOT NULL AND d.deleted_at IS NULL"""

_CLAIM_ONE = f"""
UPDATE fcm_dispatches f SET state = 'sending', {_CLAIMED}
FROM devices d
WHERE f.request_id = %(request_id)s AND d.id = f.device_id AND {_SENDABLE}
{_RETURNING}
"""

_CLAIM_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT f.request_id FROM fcm_dispatches f JOIN devices d ON d.id = f.device_id
    WHERE {_SENDABLE} AND (%(batch_id)s IS NULL OR f.batch_id = %(batch_id)s)
    ORDER BY coalesce(f.next_at, f.lease_until, f.created_at)
    LIMIT %(limit)s
    FOR UPDATE OF f SKIP LOCKED
)
UPDATE fcm_dispatches f SET state = 'sending', {_CLAIMED}
FROM due, devices d
WHERE f.request_id = due.request_id AND d.id = f.device_id
{_RETURNING}
"""

_CLAIM_AGAIN = f"""
UPDATE fcm_dispatches f SET state = 'sending', {_CLAIMED},
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
    audit = f.audit || jsonb_build_object(
        'event', 'resend', 'from', f.state, 'by', %(by)s, 'reason', %(reason)s, 'at', clock_timestamp(), 'key', %(key)s)
FROM devices d
WHERE f.request_id = %(request_id)s AND d.id = f.device_id
  AND f.state IN ('unknown', 'failed', 'expired', 'sent') AND f.completed_at IS NULL
  AND f.secrets IS DISTINCT FROM '{{}}'::jsonb
  -- Nobody asked here for those of `claim_new` and of an adopted database: their parameters are not known.
  AND f.created_by IS NOT NULL
  AND (%(key)s IS NULL OR NOT f.audit @> jsonb_build_array(jsonb_build_object('key', %(key)s)))
  AND d.fcm_token IS NOT NULL AND d.deleted_at IS NULL
{_RETURNING}
"""

# A row that the device has completed meanwhile is `sent`, whatever FCM answered: an acknowledgement that overtook the
# answer has moved it there already, and the answer is still worth keeping.
_SETTLE = """
WITH answer AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(answers)s) AS given(
        request_id text, fence int, jitter float8, outcome text, fcm_status text, fcm_message_id text, http_code int,
        latency_ms int, error_msg text, response_json text, retry_after float8, unregistered_token text)
), settled AS (
    UPDATE fcm_dispatches f SET
        state = CASE WHEN f.completed_at IS NOT NULL THEN 'sent' ELSE a.outcome END,
        lease_until = NULL,
        next_at = CASE WHEN f.completed_at IS NULL AND a.outcome = 'retry_wait'
            THEN clock_timestamp() + a.jitter * make_interval(
                secs => coalesce(a.retry_after, least(5 * 2 ^ least(f.attempts - 1, 6), 300))) END,
        fcm_status = a.fcm_status,
        fcm_message_id = coalesce(a.fcm_message_id, f.fcm_message_id),
        http_code = a.http_code,
        latency_ms = a.latency_ms,
        error_msg = a.error_msg,
        response_json = a.response_json,
        secrets = CASE WHEN f.secrets IS NULL THEN NULL
                       WHEN f.completed_at IS NOT NULL OR a.outcome IN ('sent', 'failed') THEN '{}'::jsonb
                       ELSE f.secrets END
    FROM answer a
    WHERE f.request_id = a.request_id AND f.fence = a.fence
      AND (f.state IN ('sending', 'unknown')
           OR (f.state = 'sent' AND f.completed_at IS NOT NULL AND f.http_code IS NULL))
    RETURNING f.request_id, f.state, f.device_id, a.unregistered_token
), forgotten AS (
    -- Only if it is still the address that was sent to: the device may have reported a new one meanwhile.
    UPDATE devices d SET fcm_token = NULL FROM settled
    WHERE d.id = settled.device_id AND d.fcm_token = settled.unregistered_token
)
SELECT request_id, state FROM settled
"""

_CLAIM_NEW = """
INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, fcm_status, retries, state, fence, attempts,
    created_at, sent_at, expires_at, lease_until, fcm_expires_at)
SELECT %(request_id)s, id, %(action)s, %(payload_hash)s, %(fcm_status)s, %(retries)s, 'sending', 1, 1,
    clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
    clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    clock_timestamp() + make_interval(secs => %(lease_seconds)s + %(fcm_ttl_seconds)s)
FROM devices WHERE id = %(device_id)s AND deleted_at IS NULL
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id
"""

_END_LEASES = """
WITH passed AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches WHERE state = 'sending' AND lease_until < clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE fcm_dispatches f SET
    state = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE 'sent' END,
    lease_until = NULL,
    fcm_status = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE f.fcm_status END,
    error_msg = 'The sender did not come back within its lease; FCM may have the message.'
FROM passed WHERE f.request_id = passed.request_id
RETURNING f.request_id, f.state
"""

_EXPIRE = """
WITH over AS MATERIALIZED (
    SELECT request_id FROM fcm_dispatches
    WHERE state IN ('accepted', 'retry_wait') AND expires_at <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE fcm_dispatches f SET state = 'expired', next_at = NULL,
    secrets = CASE WHEN f.secrets IS NOT NULL THEN '{}'::jsonb END
FROM over WHERE f.request_id = over.request_id
RETURNING f.request_id, f.state
"""

# Its key stays until FCM has dropped what was sent in the last moment before the restore.
_AFTER_RESTORE = """
UPDATE fcm_dispatches f SET
    state = CASE WHEN f.completed_at IS NULL THEN 'unknown' ELSE 'sent' END,
    lease_until = NULL, next_at = NULL,
    expires_at = least(f.expires_at, clock_timestamp()),
    fcm_expires_at = greatest(f.fcm_expires_at, clock_timestamp() + make_interval(secs => %(fcm_ttl_seconds)s)),
    error_msg = 'The database was restored from a snapshot; the message may have been sent after it was taken.',
    audit = f.audit || jsonb_build_object(
        'event', 'restore', 'by', NULL, 'from', f.state, 'at', clock_timestamp())
WHERE f.state IN ('accepted', 'retry_wait', 'sending')
RETURNING f.request_id, f.state
"""

_OLDEST_OPEN = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age
FROM fcm_dispatches WHERE state IN ('accepted', 'retry_wait', 'sending')
"""
