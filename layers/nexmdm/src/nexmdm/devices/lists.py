"""The fleet as operators look at it: pages of devices, one device's history, and the whole in one row."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from nexmdm.devices.fields import HISTORY, columns
from nexmdm.devices.registry import DEVICE_COLUMNS
from nexmdm.runtime.database import Executor, Row
from nexmdm.runtime.errors import UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page

LOW_BATTERY_PCT = 15


class DevicesQuery(PageQuery, kw_only=True):
    """Filters of the device list; `alias` is a prefix."""

    online: bool | None = None
    status: Literal["ok", "warn", "error"] | None = None
    alias: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    agent_version: Annotated[str, Meta(max_length=50)] | None = None


def devices(db: Executor, query: DevicesQuery, interval_seconds: int) -> Page:
    """A page of living devices by alias, each with its last status and `online`."""
    (after,) = query.after(str)
    conditions = ["d.deleted_at IS NULL"]
    if after is not None:
        conditions.append("d.alias > %(after)s")
    if query.alias is not None:
        conditions.append("d.alias ^@ %(alias)s")
    conditions += [_FILTERS[name] for name in ("status", "agent_version") if getattr(query, name) is not None]
    if query.online is not None:
        conditions.append(_ONLINE if query.online else _OFFLINE)
    sql = f"""
        SELECT {DEVICE_COLUMNS}
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
        WHERE {" AND ".join(conditions)}
        ORDER BY d.alias LIMIT %(limit)s"""
    parameters = {
        "after": after,
        "alias": query.alias,
        "status": query.status,
        "agent_version": query.agent_version,
        "interval_seconds": interval_seconds,
        "limit": query.limit + 1,
    }
    return page(db.execute(sql, parameters, repeatable=True), query.limit, ("alias",))


def heartbeats(db: Executor, device_id: str, query: PageQuery) -> Page:
    """A page of a device's heartbeats, newest first.

    Raises:
        UnknownDevice: there is no such device.
    """
    (before,) = query.after(datetime)
    rows = db.execute(
        _HEARTBEATS, {"device_id": device_id, "before": before, "limit": query.limit + 1}, repeatable=True
    )
    if not rows and not db.execute(_EXISTS, {"device_id": device_id}, repeatable=True):
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return page(rows, query.limit, ("bucket",))


def summary(db: Executor, interval_seconds: int) -> Row:
    """Counts over the living devices: total, online, silent, low battery, Unity down, by status and agent version; and
    of the alerts that are open."""
    parameters = {"interval_seconds": interval_seconds, "low_battery_pct": LOW_BATTERY_PCT}
    return db.execute(_SUMMARY, parameters, repeatable=True)[0]


_SINCE = "statement_timestamp() - 3 * make_interval(secs => %(interval_seconds)s)"
_ONLINE = f"l.last_seen_at > {_SINCE}"
_OFFLINE = f"(l.last_seen_at IS NULL OR l.last_seen_at <= {_SINCE})"
_FILTERS = {"status": "l.status = %(status)s", "agent_version": "l.agent_version = %(agent_version)s"}

_HEARTBEATS = f"""
SELECT hb_id, bucket, ts, received_at, {columns(HISTORY)}
FROM device_heartbeats
WHERE device_id = %(device_id)s AND (%(before)s IS NULL OR bucket < %(before)s::timestamptz)
ORDER BY bucket DESC LIMIT %(limit)s
"""

_EXISTS = "SELECT id FROM devices WHERE id = %(device_id)s"

_SUMMARY = f"""
WITH fleet AS MATERIALIZED (
    SELECT l.*, {_ONLINE} AS online FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.deleted_at IS NULL
)
SELECT count(*) AS devices,
    count(*) FILTER (WHERE online) AS online,
    count(*) FILTER (WHERE online IS NOT TRUE) AS silent,
    count(*) FILTER (WHERE battery_pct < %(low_battery_pct)s) AS low_battery,
    count(*) FILTER (WHERE unity_running IS FALSE) AS unity_down,
    (SELECT coalesce(json_object_agg(status, n), '{{}}') FROM (
        SELECT coalesce(status, 'never') AS status, count(*) AS n FROM fleet GROUP BY 1) AS s) AS by_status,
    (SELECT coalesce(json_object_agg(agent_version, n), '{{}}') FROM (
        SELECT coalesce(agent_version, 'unknown') AS agent_version, count(*) AS n FROM fleet GROUP BY 1) AS v
    ) AS by_agent_version,
    (SELECT count(*) FROM device_alerts WHERE recovered_at IS NULL) AS alerts
FROM fleet
"""
