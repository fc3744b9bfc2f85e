"""Heartbeats: one database round trip each, at most one row per device and bucket.

One statement authenticates, deduplicates, inserts, updates the last status, takes a changed FCM token, settles a ping
and lists pending commands. A queue that is drained after an outage is the same statement with more reports.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from nexmdm import logs, messages, secret
from nexmdm.database import Executor, Row, elapsed_ms
from nexmdm.devices import token_id
from nexmdm.dispatches import COMPLETED
from nexmdm.errors import DeviceDeleted, NotAuthenticated, UnknownDevice
from nexmdm.heartbeat_body import Report
from nexmdm.settings import Settings

MAX_PENDING = 20  # commands in one answer; the next heartbeat's answer has the next ones


class Recorded(msgspec.Struct):
    """What became of the reports of one call.

    `created` holds the positions (from 0) of the reports that became rows; the others were duplicates. `buckets` are
    the reports' buckets, in order. `pending` are the messages of
    the device's commands that may still be delivered.
    """

    device_id: str
    created: set[int]
    buckets: list[datetime]
    last_status_updated: bool
    pending: list[dict[str, str]]


def record(db: Executor, token: str, reports: list[Report], settings: Settings) -> Recorded:
    """Record the reports of the device that holds `token`. Safe to repeat.

    Raises:
        NotAuthenticated: no device has this token.
        DeviceDeleted: an operator deleted the device.
        Unavailable: the database cannot serve; nothing says that the token is wrong.
    """
    row = _run(db, _BY_TOKEN, {"token_id": token_id(token)}, reports, settings, settings.heartbeat_bucket_seconds)
    if row is None:
        raise NotAuthenticated("The device token is not valid.")
    if row["deleted"]:
        raise DeviceDeleted
    return _recorded(row, settings)


def record_for_device(
    db: Executor, device_id: str, reports: list[Report], settings: Settings, bucket_seconds: int
) -> Recorded:
    """The same for a caller that already knows the device.

    Raises:
        UnknownDevice: there is no such device, or it was deleted.
    """
    row = _run(db, _BY_ID, {"token_id": None, "device_id": device_id}, reports, settings, bucket_seconds)
    if row is None or row["deleted"]:
        raise UnknownDevice(f"There is no device {device_id}.")
    return _recorded(row, settings)


def _run(
    db: Executor, sql: str, who: dict[str, Any], reports: list[Report], settings: Settings, bucket_seconds: int
) -> Row | None:
    oldest, newest = _span(reports, settings, bucket_seconds)
    parameters = {
        **who,
        "oldest": oldest,
        "newest": newest,
        "reports": msgspec.json.encode(reports).decode(),
        "bucket_seconds": bucket_seconds,
        "retention_days": settings.heartbeat_retention_days,
        "interval_seconds": settings.heartbeat_interval_seconds,
    }
    start = time.perf_counter()
    rows = db.execute(sql, parameters, repeatable=True)
    if not rows or rows[0]["deleted"]:
        return rows[0] if rows else None
    _log(rows[0], elapsed_ms(start))
    return rows[0]


def _span(reports: list[Report], settings: Settings, bucket_seconds: int) -> tuple[datetime | None, datetime | None]:
    """Between which times a bucket may hold one of the reports already.

    Constants, so that the planner looks at one partition and not at all. Reports without a plausible time are received
    now, in a bucket that the unique key guards.
    """
    now, bucket = datetime.now(UTC), timedelta(seconds=bucket_seconds)
    reach = timedelta(days=settings.heartbeat_retention_days + 1)
    times = [r.device_ts for r in reports if r.device_ts is not None and abs(r.device_ts - now) < reach]
    return (min(times) - bucket, max(times)) if times else (None, None)


def _recorded(row: Row, settings: Settings) -> Recorded:
    pending = row["pending"] or []
    key = secret.resolve(settings.command_hmac_key) if pending and settings.command_hmac_key else None
    return Recorded(
        device_id=row["device_id"],
        created={n - 1 for n in row["created"]},
        buckets=row["buckets"],
        last_status_updated=row["last_status_updated"],
        pending=[messages.build(dispatch, key) for dispatch in pending],
    )


def _log(row: Row, latency_ms: float) -> None:
    keys: dict[str, Any] = {"device_id": row["device_id"]}
    buckets = [bucket.isoformat() for bucket in row["buckets"]]
    if len(buckets) == 1:
        keys["bucket"] = buckets[0]
    elif buckets:
        keys |= {"bucket": buckets[0], "reports": len(buckets), "created": len(row["created"])}
    logs.db_operation("create" if row["created"] else "dedup_hit", "device_heartbeats", keys, latency_ms)


# What a report says of a device, in the order of the columns in both tables.
_REPORT_TYPES = {
    "status": "text",
    "ip": "text",
    "battery_pct": "int",
    "plugged": "bool",
    "temp_c": "float8",
    "network_type": "text",
    "signal_dbm": "int",
    "uptime_s": "int8",
    "ram_used_mb": "int",
    "unity_pkg_version": "text",
    "unity_running": "bool",
    "agent_version": "text",
    "power_ok": "bool",
    "doze_whitelisted": "bool",
    "net_validated": "bool",
    "queue_depth": "int",
}
# What it says of the device itself, kept on the device's own row.
_DEVICE_TYPES = {
    "model": "text",
    "manufacturer": "text",
    "android_version": "text",
    "sdk_int": "int",
    "build_id": "text",
    "is_device_owner": "bool",
}
_COLUMNS = ", ".join(_REPORT_TYPES)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in _REPORT_TYPES)
_FACTS_KEPT = ", ".join(
    f"{name} = CASE WHEN EXISTS (SELECT FROM advanced) THEN coalesce(newest.{name}, d.{name}) ELSE d.{name} END"
    for name in _DEVICE_TYPES
)
_FACTS_NEW = ", ".join(f"coalesce(newest.{name}, d.{name})" for name in _DEVICE_TYPES)
_FACTS_OLD = ", ".join(f"d.{name}" for name in _DEVICE_TYPES)
_NEWER_FCM = """coalesce(
            newest.fcm_token <> coalesce(d.fcm_token, '') AND coalesce(newest.ts > d.fcm_token_at, true), false)"""
_ITEM_TYPES = {
    "device_ts": "timestamptz",
    "fcm_token": "text",
    "ping_request_id": "text",
    **_REPORT_TYPES,
    **_DEVICE_TYPES,
}
_ITEM = ", ".join(f"{name} {type_}" for name, type_ in _ITEM_TYPES.items())
_NAMES = ", ".join(_ITEM_TYPES)

_STATEMENT = f"""
WITH device AS MATERIALIZED (
    SELECT d.id, d.deleted_at, d.fcm_token, d.fcm_token_at, l.last_ts, l.last_seen_at
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE {{who}}
), report AS MATERIALIZED (
    -- A queue keeps its own time when that is plausible; else the receive time stands in for it.
    SELECT r.*, device.id AS device_id, device.last_ts, at.ts,
        date_bin(make_interval(secs => %(bucket_seconds)s), at.ts, timestamptz '1970-01-01 00:00:00+00') AS bucket
    FROM device
    CROSS JOIN ROWS FROM (json_to_recordset(%(reports)s) AS ({_ITEM})) WITH ORDINALITY AS r({_NAMES}, n)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN r.device_ts >= statement_timestamp() - make_interval(days => %(retention_days)s)
         AND r.device_ts <= statement_timestamp() + interval '5 minutes' THEN r.device_ts
        ELSE statement_timestamp() END AS ts) AS at
    WHERE device.deleted_at IS NULL
), newest AS MATERIALIZED (
    SELECT * FROM report ORDER BY ts DESC, n DESC LIMIT 1
), inserted AS (
    -- Repeats are stopped here: a conflict would still consume a sequence value. In the order of buckets, so that two
    -- queues never wait for each other's rows.
    INSERT INTO device_heartbeats (device_id, bucket, ts, received_at, {_COLUMNS})
    SELECT device_id, bucket, ts, statement_timestamp(), {_COLUMNS}
    FROM report
    WHERE ts IS DISTINCT FROM last_ts AND (
        SELECT h.hb_id FROM device_heartbeats h
        WHERE h.device_id = report.device_id AND h.bucket = report.bucket AND h.bucket BETWEEN %(oldest)s AND %(newest)s
    ) IS NULL
    ORDER BY bucket, n
    ON CONFLICT (device_id, bucket) DO NOTHING
    RETURNING bucket
), advanced AS (
    INSERT INTO device_last_status AS l (device_id, last_ts, last_seen_at, {_COLUMNS})
    SELECT device_id, ts, statement_timestamp(), {_COLUMNS}
    FROM newest WHERE last_ts IS NULL OR ts > last_ts
    ON CONFLICT (device_id) DO UPDATE
    SET last_ts = excluded.last_ts, last_seen_at = greatest(l.last_seen_at, excluded.last_seen_at), {_UPDATES}
    WHERE excluded.last_ts > l.last_ts
    RETURNING device_id
), seen AS (
    -- Nothing newer, yet the server heard from the device. A repeat changes nothing, unless the device has been silent
    -- for an interval: then even a repeat (a clock that stands still) is a sign of life.
    UPDATE device_last_status SET last_seen_at = greatest(last_seen_at, statement_timestamp())
    WHERE device_id = (
        SELECT id FROM device
        WHERE (SELECT ts FROM newest) <= last_ts
          AND (EXISTS (SELECT FROM inserted)
               OR last_seen_at < statement_timestamp() - make_interval(secs => %(interval_seconds)s)))
), confirmed AS (
    -- The first authenticated call makes the token that it used the only one; a newer report may bring a new FCM token
    -- and new facts about the device. Newer than the row itself, which a racing report may have changed since.
    UPDATE devices d SET
        token_id = coalesce(%(token_id)s, d.token_id),
        prior_token_id = CASE WHEN %(token_id)s IS NULL THEN d.prior_token_id END,
        confirmed_at = coalesce(d.confirmed_at, CASE WHEN %(token_id)s IS NOT NULL THEN statement_timestamp() END),
        fcm_token = CASE WHEN {_NEWER_FCM} THEN newest.fcm_token ELSE d.fcm_token END,
        fcm_token_at = CASE WHEN {_NEWER_FCM} THEN newest.ts ELSE d.fcm_token_at END,
        {_FACTS_KEPT}
    FROM device
    LEFT JOIN newest ON true
    WHERE d.id = device.id AND device.deleted_at IS NULL AND {{who}}
      AND ((%(token_id)s IS NOT NULL AND d.confirmed_at IS NULL)
           OR {_NEWER_FCM}
           OR (EXISTS (SELECT FROM advanced) AND ({_FACTS_NEW}) IS DISTINCT FROM ({_FACTS_OLD})))
), answered AS (
    UPDATE fcm_dispatches f SET {COMPLETED}, result = 'OK'
    FROM report
    WHERE f.request_id = report.ping_request_id AND f.device_id = report.device_id
      AND f.action = 'ping' AND f.completed_at IS NULL
)
SELECT id AS device_id,
    deleted_at IS NOT NULL AS deleted,
    ARRAY(SELECT bucket FROM report ORDER BY n) AS buckets,
    ARRAY(SELECT min(n) FROM report JOIN inserted USING (bucket)
          WHERE ts IS DISTINCT FROM last_ts GROUP BY bucket) AS created,
    EXISTS (SELECT FROM advanced) AS last_status_updated,
    (SELECT json_agg(p) FROM (
        SELECT request_id, device_id, action, payload, secrets FROM fcm_dispatches
        WHERE device_id = device.id AND state IN ('accepted', 'retry_wait', 'unknown') AND completed_at IS NULL
          AND expires_at > statement_timestamp() AND created_by IS NOT NULL
          AND request_id <> ALL (ARRAY(SELECT ping_request_id FROM report WHERE ping_request_id IS NOT NULL))
        ORDER BY created_at LIMIT {MAX_PENDING}) AS p) AS pending
FROM device
"""

_BY_TOKEN = _STATEMENT.replace("{who}", "(d.token_id = %(token_id)s OR d.prior_token_id = %(token_id)s)")
_BY_ID = _STATEMENT.replace("{who}", "d.id = %(device_id)s")
