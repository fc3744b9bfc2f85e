"""Views of the fleet for operators: pages of devices, one device with its heartbeats, and a summary."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from nexmdm.devices import filters
from nexmdm.devices.fields import HISTORY, OF_DEVICE, Described, Reported, columns
from nexmdm.devices.filters import FilteredPageQuery, FilterQuery
from nexmdm.runtime.database import Executor, statement, typed
from nexmdm.runtime.errors import UnknownDevice
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant

LOW_BATTERY_PCT = 15
Count = Annotated[int, Meta(ge=0)]


class DevicesQuery(FilteredPageQuery, kw_only=True):
    """Filters of the device list; `alias` is a prefix."""

    status: Literal["ok", "warn", "error"] | None = None


class Device(Described, forbid_unknown_fields=True, kw_only=True):
    """Values from the last report are null until there is one.

    `token_shared_at` is when two phones were last seen using the device's token, `hardware_id_shared_with` has at most
    10 aliases of other devices with its hardware_id, and `taken_over_at` is when a phone last took over the device.
    `monitored_package` is the device's own setting, `effective_monitored_package` the app that is monitored: the
    device's own, or else its group's, or else UNITY_PACKAGE.
    """

    device_id: str
    alias: str
    created_at: Instant
    taken_over_at: Instant | None
    hardware_id: str | None
    has_fcm_token: bool
    labels: dict[str, str]
    monitored_package: str | None
    effective_monitored_package: str
    online: bool
    last_seen_at: Instant | None
    last_ts: Instant | None
    token_shared_at: Instant | None
    hardware_id_shared_with: list[str]


class Heartbeat(Reported, forbid_unknown_fields=True, kw_only=True):
    """`ts` is the device's own time if plausible, `received_at` the server's."""

    hb_id: int
    bucket: Instant
    ts: Instant
    received_at: Instant


class FleetSummary(Struct, forbid_unknown_fields=True, kw_only=True):
    """Counts over the enrolled devices. `by_status` counts devices that never reported as `never`."""

    devices: Count
    online: Count
    silent: Count
    low_battery: Count
    unity_down: Count
    device_owners: Annotated[int, Meta(ge=0, description="devices whose agent is device owner")]
    by_status: dict[str, int]
    by_agent_version: dict[str, int]
    alerts: Annotated[int, Meta(ge=0, description="open alerts")]


def devices(db: Executor, query: DevicesQuery, interval_seconds: int, app_package: str) -> Page[Device]:
    """A page of enrolled devices, sorted by alias, each with its last status and `online`.

    Args:
        app_package: the app that is monitored on devices for which neither the device nor a group names one.

    Raises:
        Invalid: the selector is invalid, or there is no such group.
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
        "app_package": app_package,
        "limit": query.limit + 1,
    }
    return page(typed(db.execute(sql, parameters, repeatable=True), Device), query.limit, ("alias",))


def show(db: Executor, device_id: str, interval_seconds: int, app_package: str) -> Device:
    """One device with its last status; `app_package` as in `devices`.

    Raises:
        UnknownDevice: there is no such device, or it was deleted.
    """
    parameters = {"device_id": device_id, "interval_seconds": interval_seconds, "app_package": app_package}
    rows = db.execute(_SHOW, parameters, repeatable=True)
    if not rows:
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return typed(rows, Device)[0]


def heartbeats(db: Executor, device_id: str, query: PageQuery) -> Page[Heartbeat]:
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
    return page(typed(rows, Heartbeat), query.limit, ("bucket",))


def summary(db: Executor, query: FilterQuery, interval_seconds: int) -> FleetSummary:
    """Counts over the enrolled devices, or over those that match the filter.

    Total, online, silent, low battery, app down, by status and agent version; and their open alerts.

    Raises:
        Invalid: the selector is invalid, or there is no such group.
    """
    condition = filters.where(filters.resolve(db, filters.of_query(query), "query"), interval_seconds)
    parameters = {
        **condition.parameters,
        "interval_seconds": interval_seconds,
        "low_battery_pct": LOW_BATTERY_PCT,
    }
    rows = db.execute(_SUMMARY.replace("{where}", condition.sql), parameters, repeatable=True)
    return typed(rows, FleetSummary)[0]


DEVICE_COLUMNS = f"""
    d.id AS device_id, d.alias, d.created_at, d.taken_over_at, d.hardware_id, d.fcm_token IS NOT NULL AS has_fcm_token,
    {columns(OF_DEVICE, "d")}, d.labels, d.monitored_package,
    monitored_package_v1(d.id, d.monitored_package, %(app_package)s, %(interval_seconds)s)
        AS effective_monitored_package,
    device_online(l.last_seen_at, %(interval_seconds)s) AS online,
    l.last_seen_at, l.last_ts, l.token_shared_at, {columns(HISTORY, "l")},
    ARRAY(SELECT o.alias FROM devices o WHERE o.hardware_id = d.hardware_id AND o.id <> d.id AND o.deleted_at IS NULL
          ORDER BY o.alias LIMIT 10) AS hardware_id_shared_with"""

_SHOW = f"""
SELECT {DEVICE_COLUMNS}
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.id = %(device_id)s AND d.deleted_at IS NULL
"""

_HEARTBEATS = f"""
SELECT hb_id, bucket, ts, received_at, {columns(HISTORY)}
FROM device_heartbeats
WHERE device_id = %(device_id)s AND (%(before)s IS NULL OR bucket < %(before)s::timestamptz)
ORDER BY bucket DESC LIMIT %(limit)s
"""

_EXISTS = "SELECT id FROM devices WHERE id = %(device_id)s"

_SUMMARY = statement(__package__, "summary")
