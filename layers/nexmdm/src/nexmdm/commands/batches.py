"""Bulk commands: one statement makes the batch and one dispatch per device; the selector is evaluated once."""

import time
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nexmdm.commands.actions import ACTIONS
from nexmdm.commands.single import CANCEL, Command, Count, Instant
from nexmdm.commands.states import Answered, Delivery, DispatchState
from nexmdm.devices.cohort import cohort
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms
from nexmdm.runtime.errors import Invalid, PayloadMismatch


class Filter(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which devices: those that fit every condition given, or all."""

    online: bool | None = None
    alias_prefix: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    agent_version: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    all: bool | None = None


def selector(device_ids: list[str] | None, filter_: Filter | None) -> dict[str, Any]:
    """The canonical selector of a bulk command: sorted distinct ids, or the filter's conditions.

    Raises:
        Invalid: neither or both were given, the filter is empty, or `all` is mixed with conditions.
    """
    if (device_ids is None) == (filter_ is None):
        raise Invalid("$", "give either device_ids or filter")
    if device_ids is not None:
        return {"device_ids": sorted(set(device_ids))}
    conditions = {name: value for name, value in msgspec.structs.asdict(filter_).items() if value is not None}
    if not conditions:
        raise Invalid("$.filter", 'is empty; to mean every device say {"all": true}')
    if "all" in conditions and (len(conditions) > 1 or conditions["all"] is not True):
        raise Invalid("$.filter.all", "is true and stands alone")
    return {"filter": conditions}


def accept(db: Executor, command: Command, interval_seconds: int) -> bool:
    """Store the batch and a dispatch for every device it selects, once per request_id; returns whether it is new.

    Raises:
        PayloadMismatch: the request_id stands for something else.
        Invalid: an id is no device's, or the filter selects none. Nothing was stored.
    """
    start = time.perf_counter()
    if _replayed(db, command, start):
        return False
    chosen = command.target["selector"]
    conditions = chosen.get("filter", {})
    parameters = {
        **command.columns(),
        "selector": msgspec.json.encode(chosen).decode(),
        "selector_shown": _selector_shown(chosen),
        "device_ids": chosen.get("device_ids"),
        "online": conditions.get("online"),
        "alias_prefix": conditions.get("alias_prefix"),
        "agent_version": conditions.get("agent_version"),
        "interval_seconds": interval_seconds,
    }
    answer = db.execute(_ACCEPT, parameters)[0]
    if answer["made"]:
        keys = {"request_id": command.request_id, "devices": answer["selected"], "action": command.action}
        logs.db_operation("create", "command_batches", keys, elapsed_ms(start))
        metrics.count("CommandAccepted")
        return True
    if answer["missing"]:
        raise Invalid("$.device_ids", f"there are no such devices: {', '.join(answer['missing'])}")
    if not answer["selected"]:
        raise Invalid("$.filter", "selects no device")
    if not _replayed(db, command, start):
        # A single command of this name was there first.
        raise PayloadMismatch(command.request_id)
    return False


def _selector_shown(selector: dict[str, Any]) -> str:
    """For the event log: a filter as it is, device ids as their number and a hash."""
    ids = selector.get("device_ids")
    if ids is not None:
        selector = {"device_ids": len(ids), "sha256": sha256(",".join(ids).encode()).hexdigest()}
    return msgspec.json.encode(selector).decode()


def accept_installations(tx: Executor, command: Command, build_id: int, percent: int, download_url: str) -> bool:
    """The same for install_apk to the cohort of a build: an installation for each device, and a command that names it.

    Returns:
        Whether there is a batch now; without one every device of the cohort has the build or was asked.

    Raises:
        PayloadMismatch: the request_id stands for something else.
    """
    start = time.perf_counter()
    if _replayed(tx, command, start):
        return True
    parameters = {
        **command.columns(),
        "selector": msgspec.json.encode(command.target["selector"]).decode(),
        "build_id": build_id,
        "percent": percent,
        "download_url": download_url,
    }
    answer = tx.execute(_ACCEPT_INSTALLATIONS, parameters)[0]
    if answer["selected"] and not answer["made"]:
        raise PayloadMismatch(command.request_id)
    keys = {"request_id": command.request_id, "devices": answer["selected"], "action": command.action}
    logs.db_operation("create", "command_batches", keys, elapsed_ms(start))
    metrics.count("CommandAccepted")
    return answer["made"]


class Batch(Struct, forbid_unknown_fields=True, kw_only=True):
    """A bulk command with a count of its members for each state. `delivery` is that of its members."""

    request_id: str
    action: str | None
    delivery: Delivery | None
    answered: Answered | None
    device_count: Count
    selector: dict[str, Any]
    created_by: str
    created_at: Instant
    states: dict[DispatchState, int]


def show(db: Executor, request_id: str) -> Batch | None:
    """A batch with its device_count and `states`, a count for each state; None when there is no such batch."""
    rows = db.execute(_SHOW, {"request_id": request_id}, repeatable=True)
    if not rows:
        return None
    action = ACTIONS.get(rows[0]["action"])
    return msgspec.convert({**rows[0], "answered": action and action.answered}, Batch)


def cancel(db: Executor, request_id: str, actor: Actor) -> int:
    """Cancel those of the batch's dispatches that may still be sent and are not being sent now; returns how many."""
    start = time.perf_counter()
    parameters = {"request_id": None, "batch_id": request_id, "name": request_id, **actor.parameters()}
    rows = db.execute(CANCEL, parameters, repeatable=True)
    keys = {"request_id": request_id, "cancelled": len(rows), "by": actor.name}
    logs.db_operation("update", "fcm_dispatches", keys, elapsed_ms(start))
    return len(rows)


def _replayed(db: Executor, command: Command, start: float) -> bool:
    found = db.execute(_FIND, {"request_id": command.request_id}, repeatable=True)
    if not found:
        return False
    logs.db_operation("idempotency_hit", "command_batches", {"request_id": command.request_id}, elapsed_ms(start))
    if not command.equals(found[0]["payload_hash"], found[0]["secrets"]):
        raise PayloadMismatch(command.request_id)
    metrics.count("IdempotencyHit")
    return True


# Its members have the same secrets, as long as any of them holds its own.
_FIND = """
SELECT payload_hash,
    (SELECT secrets FROM fcm_dispatches WHERE batch_id = b.request_id AND secrets <> '{}'::jsonb LIMIT 1) AS secrets
FROM command_batches b WHERE b.request_id = %(request_id)s
"""

# Those who use the same name take turns: the statement that follows in the same message, and so in the same
# transaction, sees what those before it have committed. No further round trip.
HOLD_NAME = "SELECT pg_advisory_xact_lock(hashtextextended('nexmdm.command ' || %(request_id)s, 0));"

# The batch row when anything is `selected` and nothing `missing`, and a dispatch for each of its `members`.
_BATCH = """
batch AS (
    INSERT INTO command_batches (request_id, payload_hash, selector, device_count, created_by, created_at)
    SELECT %(request_id)s, %(payload_hash)s, %(selector)s::jsonb, count(*), %(by)s, clock_timestamp() FROM selected
    WHERE NOT EXISTS (SELECT FROM missing)
      AND NOT EXISTS (SELECT FROM fcm_dispatches WHERE request_id = %(request_id)s)
    HAVING count(*) > 0
    ON CONFLICT (request_id) DO NOTHING
    RETURNING request_id, created_at
)"""

_DISPATCHED = """
dispatched AS (
    INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, payload, secrets, delivery, created_by,
        state, refused, batch_id, created_at, sent_at, expires_at)
    SELECT batch.request_id || ':' || members.id, members.id, %(action)s, %(payload_hash)s,
        %(payload)s::jsonb || members.payload, %(secrets)s::jsonb, %(delivery)s, %(by)s, 'accepted', 0, batch.request_id,
        batch.created_at, batch.created_at, batch.created_at + make_interval(secs => %(ttl_seconds)s)
    FROM batch CROSS JOIN members
)"""

_ACCEPT = f"""{HOLD_NAME}
WITH selected AS MATERIALIZED (
    SELECT d.id FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL
      AND (%(device_ids)s::text[] IS NULL OR d.id = ANY (%(device_ids)s::text[]))
      AND (%(alias_prefix)s IS NULL OR d.alias ^@ %(alias_prefix)s)
      AND (%(agent_version)s IS NULL OR l.agent_version = %(agent_version)s)
      AND (%(online)s IS NULL OR %(online)s = coalesce(
          l.last_seen_at > statement_timestamp() - 3 * make_interval(secs => %(interval_seconds)s), false))
), missing AS (
    SELECT unnest(%(device_ids)s::text[]) AS id EXCEPT SELECT id FROM selected
), {_BATCH}, members AS (
    SELECT id, '{{}}'::jsonb AS payload FROM selected
), {_DISPATCHED}, event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, after)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'command.send_many',
        'command:' || batch.request_id, %(event)s::jsonb || jsonb_build_object(
            'device_count', (SELECT count(*) FROM selected), 'selector', %(selector_shown)s::jsonb)
    FROM batch
)
SELECT EXISTS (SELECT FROM batch) AS made, (SELECT count(*) FROM selected) AS selected,
    ARRAY(SELECT id FROM missing ORDER BY id LIMIT 10) AS missing
"""

# Of a build's cohort those that neither have it nor are about to: an installation for each, made here, and a command
# that names it. An installation that was asked for longer ago than a command lives is asked for again.
_ACCEPT_INSTALLATIONS = f"""{HOLD_NAME}
WITH selected AS MATERIALIZED (
    SELECT d.id FROM devices d
    WHERE d.deleted_at IS NULL AND {cohort("%(build_id)s", "d.id")} < %(percent)s
      AND NOT EXISTS (
          SELECT FROM apk_installations i
          WHERE i.device_id = d.id AND i.apk_version_id = %(build_id)s
            AND (i.status = 'completed' OR (i.status <> 'failed'
                 AND i.initiated_at > statement_timestamp() - make_interval(secs => %(ttl_seconds)s))))
), missing AS (
    SELECT WHERE false
), {_BATCH}, installed AS (
    INSERT INTO apk_installations (device_id, apk_version_id, status, initiated_at, initiated_by, request_id)
    SELECT selected.id, %(build_id)s, 'pending', batch.created_at, %(by)s, batch.request_id || ':' || selected.id
    FROM batch CROSS JOIN selected
    RETURNING id, device_id
), lapsed AS (
    UPDATE apk_installations i SET status = 'failed', completed_at = batch.created_at,
        error_message = 'the device did not answer and was asked again'
    FROM batch CROSS JOIN selected
    WHERE i.device_id = selected.id AND i.apk_version_id = %(build_id)s
      AND i.status IN ('pending', 'downloading', 'installing')
), members AS (
    SELECT device_id AS id, jsonb_build_object('installation_id', id,
        'download_url', %(download_url)s || '?installation_id=' || id) AS payload
    FROM installed
), {_DISPATCHED}
SELECT EXISTS (SELECT FROM batch) AS made, (SELECT count(*) FROM selected) AS selected
"""

_SHOW = """
SELECT b.request_id, b.device_count, b.selector, b.created_by, b.created_at, member.action, member.delivery,
    (SELECT coalesce(json_object_agg(state, n), '{}') FROM (
        SELECT state, count(*) AS n FROM fcm_dispatches WHERE batch_id = b.request_id GROUP BY state) AS s) AS states
FROM command_batches b
LEFT JOIN LATERAL (SELECT action, delivery FROM fcm_dispatches WHERE batch_id = b.request_id LIMIT 1) member ON true
WHERE b.request_id = %(request_id)s
"""
