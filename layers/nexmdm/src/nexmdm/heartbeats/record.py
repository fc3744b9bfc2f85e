"""Recording heartbeats: one database round trip each, at most one row per device and bucket.

One statement authenticates, deduplicates, inserts, updates the last status, stores a changed FCM token, settles a ping
and lists pending commands. A queue that is drained after an outage uses the same statement with more reports.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

import msgspec

from nexmdm.commands import message
from nexmdm.devices.fields import OF_DEVICE, RECORD_HEARTBEATS
from nexmdm.devices.registry import token_id
from nexmdm.heartbeats.body import Report, Values
from nexmdm.runtime import logs, secrets
from nexmdm.runtime.database import Executor, Parameters, Row, elapsed_ms
from nexmdm.runtime.errors import DeviceDeleted, NotAuthenticated, UnknownDevice
from nexmdm.runtime.settings import Settings


class Recorded(msgspec.Struct):
    """The results of the reports of one call.

    `created` has the positions (from 0) of the reports that became rows; the others were duplicates. `buckets` are the
    reports' buckets, in order. `pending` has the messages of the device's commands that may still be delivered: at
    most 20, those that expire soonest. The others follow as these are answered or end.
    """

    device_id: str
    created: set[int]
    buckets: list[datetime]
    last_status_updated: bool
    pending: list[dict[str, str]]


class HeartbeatRecorded(msgspec.Struct, kw_only=True):
    """The response to a heartbeat. `pending_commands` are messages in the form that FCM delivers."""

    ok: bool = True
    status: Literal["created", "duplicate"]
    next_heartbeat_seconds: int
    pending_commands: list[dict[str, str]]


class HeartbeatResult(msgspec.Struct, omit_defaults=True):
    """The result of one report of a queue, with `error` if it was rejected."""

    status: Literal["created", "duplicate", "rejected"]
    error: str | None = None


class BatchRecorded(msgspec.Struct):
    """The response to a queue of heartbeats, in the queue's order."""

    results: list[HeartbeatResult]
    next_heartbeat_seconds: int
    pending_commands: list[dict[str, str]]


def for_token(db: Executor, token: str, reports: list[Report], settings: Settings) -> Recorded:
    """Record the reports of the device with this `token`. Safe to repeat.

    Raises:
        NotAuthenticated: no device has this token, or its device was deleted more than 24 hours ago.
        DeviceDeleted: an operator deleted the device within the last 24 hours.
        Unavailable: the database is not available; the token may be valid.
    """
    who = {"token_id": token_id(token), "device_id": None}
    row = _run(db, who, reports, settings, settings.heartbeat_bucket_seconds)
    if row is None:
        raise NotAuthenticated("The device token is not valid.")
    if row["deleted"]:
        raise DeviceDeleted
    return _recorded(row, settings)


def for_device(
    db: Executor, device_id: str, reports: list[Report], settings: Settings, bucket_seconds: int
) -> Recorded:
    """The same for a caller that has already authenticated the device.

    Raises:
        UnknownDevice: there is no such device, or it was deleted.
    """
    row = _run(db, {"token_id": None, "device_id": device_id}, reports, settings, bucket_seconds)
    if row is None or row["deleted"]:
        raise UnknownDevice(f"There is no device {device_id}.")
    return _recorded(row, settings)


def _run(db: Executor, who: Parameters, reports: list[Report], settings: Settings, bucket_seconds: int) -> Row | None:
    oldest, newest = _span(reports, settings, bucket_seconds)
    parameters = {
        **who,
        "oldest": oldest,
        "newest": newest,
        "reports": msgspec.json.encode(_values(reports)).decode(),
        "bucket_seconds": bucket_seconds,
        "retention_days": settings.heartbeat_retention_days,
        "interval_seconds": settings.heartbeat_interval_seconds,
    }
    start = time.perf_counter()
    rows = db.execute(_RECORD, parameters, repeatable=True)
    if not rows or rows[0]["deleted"]:
        return rows[0] if rows else None
    _log(rows[0], elapsed_ms(start), settings.heartbeat_log_sample)
    return rows[0]


def _values(reports: list[Report]) -> list[Values]:
    """The reports' values. The last one of a queue also gets what it lacks and only earlier ones say about the device:
    its FCM token, its inventory and facts such as the model."""
    values = [report.values for report in reports]
    if len(values) > 1:
        values[-1] = dict(values[-1])
        for earlier in reversed(values[:-1]):
            for name in _OF_NEWEST & earlier.keys() - values[-1].keys():
                values[-1][name] = earlier[name]
    return values


def _span(reports: list[Report], settings: Settings, bucket_seconds: int) -> tuple[datetime | None, datetime | None]:
    """The period of the buckets that may already contain one of the reports.

    It limits the partitions that are read. Reports without a plausible time get the current time, in a bucket that the
    unique key protects.
    """
    now, bucket, reach = datetime.now(UTC), *_spans(bucket_seconds, settings.heartbeat_retention_days)
    times = [ts for report in reports if (ts := report.device_ts) is not None and abs(ts - now) < reach]
    return (min(times) - bucket, max(times)) if times else (None, None)


@lru_cache
def _spans(bucket_seconds: int, retention_days: int) -> tuple[timedelta, timedelta]:
    return timedelta(seconds=bucket_seconds), timedelta(days=retention_days + 1)


def _recorded(row: Row, settings: Settings) -> Recorded:
    pending = row["pending"] or []
    key = secrets.hmac_key(settings) if pending else None
    return Recorded(
        device_id=row["device_id"],
        created={n - 1 for n in row["created"]},
        buckets=row["buckets"],
        last_status_updated=row["last_status_updated"],
        pending=[message.build(content, key) for content in msgspec.convert(pending, list[message.Content])],
    )


def _log(row: Row, latency_ms: float, sample: int) -> None:
    keys: dict[str, object] = {"device_id": row["device_id"]}
    buckets = row["buckets"]
    if buckets:
        keys["bucket"] = buckets[0].isoformat()
    if len(buckets) > 1:
        keys |= {"reports": len(buckets), "created": len(row["created"])}
    logs.heartbeat("create" if row["created"] else "dedup_hit", keys, latency_ms, sample)


# What only the newest report updates.
_OF_NEWEST = {"fcm_token", "apps", "apps_hash", *(field.name for field in OF_DEVICE)}

# The statement is a database function, in migrations/sql. Each session plans it only once, without session state that a
# pooler would lose.
_RECORD = f"""
SELECT * FROM {RECORD_HEARTBEATS}(%(token_id)s, %(device_id)s, %(reports)s, %(oldest)s, %(newest)s,
    %(bucket_seconds)s, %(retention_days)s, %(interval_seconds)s)
"""
