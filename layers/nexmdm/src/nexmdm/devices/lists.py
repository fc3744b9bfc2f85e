"""The fleet as operators look at it: pages of devices, one device's history, and the whole in one row."""

from datetime import datetime
from typing import Literal

from nexmdm.devices import filters
from nexmdm.devices.fields import HISTORY, columns
from nexmdm.devices.filters import FilteredPageQuery, FilterQuery
from nexmdm.devices.registry import DEVICE_COLUMNS
from nexmdm.runtime.database import Executor, Row, statement
from nexmdm.runtime.errors import UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page

LOW_BATTERY_PCT = 15


class DevicesQuery(FilteredPageQuery, kw_only=True):
    """Filters of the device list; `alias` is a prefix."""

    status: Literal["ok", "warn", "error"] | None = None


def devices(db: Executor, query: DevicesQuery, interval_seconds: int) -> Page:
    """A page of living devices by alias, each with its last status and `online`.

    Raises:
        Invalid: the selector cannot be read, or there is no such group.
    """
    (after,) = query.after(str)
    condition = filters.where(filters.resolve(db, filters.of_query(query), "query"), interval_seconds)
    conditions = ["d.deleted_at IS NULL", condition.sql]
    if after is not None:
        conditions.append("d.alias > %(after)s")
    if query.status is not None:
        conditions.append("l.status = %(status)s")
    sql = f"""
        SELECT {DEVICE_COLUMNS}
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
        WHERE {" AND ".join(conditions)}
        ORDER BY d.alias LIMIT %(limit)s"""
    parameters = {
        **condition.parameters,
        "after": after,
        "status": query.status,
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


def summary(db: Executor, query: FilterQuery, interval_seconds: int) -> Row:
    """Counts over the living devices, or over those that fit the filter.

    Total, online, silent, low battery, Unity down, by status and agent version; and their alerts that are open.

    Raises:
        Invalid: the selector cannot be read, or there is no such group.
    """
    condition = filters.where(filters.resolve(db, filters.of_query(query), "query"), interval_seconds)
    parameters = {
        **condition.parameters,
        "interval_seconds": interval_seconds,
        "low_battery_pct": LOW_BATTERY_PCT,
    }
    return db.execute(_SUMMARY.replace("{where}", condition.sql), parameters, repeatable=True)[0]


_HEARTBEATS = f"""
SELECT hb_id, bucket, ts, received_at, {columns(HISTORY)}
FROM device_heartbeats
WHERE device_id = %(device_id)s AND (%(before)s IS NULL OR bucket < %(before)s::timestamptz)
ORDER BY bucket DESC LIMIT %(limit)s
"""

_EXISTS = "SELECT id FROM devices WHERE id = %(device_id)s"

_SUMMARY = statement(__package__, "summary")
