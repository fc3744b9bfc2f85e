"""The history of the fleet: one row per hour for the whole fleet and for each group, written by the watch."""

import time

from msgspec import Struct

from nexmdm.devices import filters
from nexmdm.heartbeats.history import HistoryQuery
from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, elapsed_ms, statement, typed
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import GivenName, Instant


class FleetHistoryQuery(HistoryQuery, kw_only=True):
    """The period, by default the last day; without `group`, of the whole fleet."""

    group: GivenName | None = None


class Point(Struct, kw_only=True):
    """The fleet at one hour, or over one day as the mean of its hours, with the sum of heartbeats.

    Attributes:
        at: when the hour or the day (in UTC) began.
        heartbeats: received in the hour before.
        info, warning, critical: open alerts by severity.
    """

    at: Instant
    devices: float
    online: float
    silent: float
    low_battery: float
    app_down: float
    heartbeats: int
    info: float
    warning: float
    critical: float


class History(Struct):
    """Points in chronological order; an hour without a run of the watch is absent."""

    points: list[Point]


def record_hour(db: Executor, config: Settings) -> int:
    """Write the rows of this hour if they do not exist; return how many were written."""
    if db.execute(_WRITTEN, repeatable=True)[0]["written"]:
        return 0
    start = time.perf_counter()
    groups: list[tuple[str, filters.Condition]] = [("", filters.Condition("true", {}))]
    for row in db.execute("SELECT name, filter FROM device_groups ORDER BY name", repeatable=True):
        try:
            parts = filters.of_stored(db, row["filter"])
        except Invalid as error:
            logs.failure(error)
            continue
        groups.append((row["name"], filters.where(parts, config.heartbeat_interval_seconds)))
    written = 0
    # The whole fleet is last: its row marks the hour as complete, so the next run completes one that was killed.
    for name, condition in reversed(groups):
        values = {**condition.parameters, "group": name, "interval_seconds": config.heartbeat_interval_seconds}
        written += len(db.execute(_RECORD.format(where=condition.sql), values, repeatable=True))
    logs.db_operation("create", "fleet_history", {"rows": written}, elapsed_ms(start))
    return written


def show(db: Executor, query: FleetHistoryQuery) -> History:
    """The history between two times.

    Raises:
        Invalid: `from` is not before `to`, or there would be too many points.
    """
    begin, to = query.bounds()
    values = {"from": begin, "to": to, "step": query.step, "group": query.group or ""}
    return History(typed(db.execute(_SHOW, values, repeatable=True), Point))


_WRITTEN = """
SELECT EXISTS (SELECT FROM fleet_history WHERE hour = date_trunc('hour', statement_timestamp(), 'UTC') AND grp = '')
    AS written
"""

_RECORD = statement(__package__, "record_hour")
_SHOW = statement(__package__, "fleet_history")
