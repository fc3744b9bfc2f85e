"""Alerts about devices: found by the watch, open until the condition stayed away for the cool-down.

    (none) -> open        the condition is there; at most one open alert per device and condition, by unique index
    open -> open          it comes and goes: `clear_since` remembers since when it is gone, and nobody is told
    open -> recovered     gone for ALERT_COOLDOWN_SECONDS; or the device was deleted, of which nobody is told

So a condition that flaps is told once, and two runs at once find it once. What is to be told waits in the row's
`notice`, see `nexmdm.alerts.notifications`.
"""

import time
from typing import Any, Literal

import psycopg2

from nexmdm.alerts.conditions import CONDITIONS, parameters
from nexmdm.devices import filters
from nexmdm.devices.filters import FilteredPageQuery
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.pagination import Page, page
from nexmdm.runtime.settings import Settings

Condition = Literal["silent", "low_battery", "unity_down", "queue_growing", "agent_outdated"]


class AlertsQuery(FilteredPageQuery, kw_only=True):
    """Filters of the list of alerts, and of their devices; `open` true for those that have not recovered."""

    condition: Condition | None = None
    device_id: str | None = None
    open: bool | None = None


def look(db: Executor, config: Settings) -> dict[str, dict[str, Any]]:
    """Compare the fleet with the open alerts, one statement per condition.

    Returns:
        {condition: {"opened", "recovered"}}, of how many devices; {condition: {"error"}} of one whose statement was
        refused, which does not stop the others.

    Raises:
        Unavailable: the database is away.
    """
    start = time.perf_counter()
    closed = len(db.execute(_CLOSE_DELETED, repeatable=True))
    if closed:
        logs.db_operation("update", "device_alerts", {"closed": closed}, elapsed_ms(start))
    found: dict[str, dict[str, Any]] = {}
    for condition in CONDITIONS:
        try:
            found[condition] = look_for(db, condition, config)
        except psycopg2.Error as error:
            logs.failure(error)
            found[condition] = {"error": type(error).__name__}
    return found


def look_for(db: Executor, condition: str, config: Settings) -> dict[str, int]:
    """The same for one condition."""
    start = time.perf_counter()
    values = {**parameters(config), "condition": condition, "cooldown_seconds": config.alert_cooldown_seconds}
    [found] = db.execute(_LOOK.format(troubled=CONDITIONS[condition]), values, repeatable=True)
    metrics.count("AlertsOpened", found["opened"])
    metrics.count("AlertsRecovered", found["recovered"])
    logs.db_operation("update", "device_alerts", {"condition": condition, **found}, elapsed_ms(start))
    return found


def list_alerts(db: Executor, query: AlertsQuery, interval_seconds: float) -> Page:
    """A page of living devices' alerts, newest first.

    Raises:
        Invalid: the selector cannot be read, or there is no such group.
    """
    (before,) = query.after(int)
    devices = filters.where(filters.resolve(db, filters.of_query(query), "query"), interval_seconds)
    conditions = ["d.deleted_at IS NULL", devices.sql]
    conditions += [_FILTERS[name] for name in ("condition", "device_id") if getattr(query, name) is not None]
    if query.open is not None:
        conditions.append(f"a.recovered_at IS {'' if query.open else 'NOT '}NULL")
    if before is not None:
        conditions.append("a.id < %(before)s")
    values = {
        **devices.parameters,
        "condition": query.condition,
        "device_id": query.device_id,
        "before": before,
        "limit": query.limit + 1,
    }
    rows: list[Row] = db.execute(_LIST.replace("{conditions}", " AND ".join(conditions)), values, repeatable=True)
    return page(rows, query.limit, ("alert_id",))


_FILTERS = {"condition": "a.condition = %(condition)s", "device_id": "a.device_id = %(device_id)s"}

_LIST = """
SELECT a.id AS alert_id, a.device_id, d.alias, a.condition, a.since, a.notified_at, a.recovered_at, a.detail
FROM device_alerts a JOIN devices d ON d.id = a.device_id LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE {conditions} ORDER BY a.id DESC LIMIT %(limit)s
"""

# What is unchanged is not written. The full join can only be a hash or a merge, and what is to be updated is picked out
# before it is joined: whatever the planner believes, an outage of the whole fleet costs no product of its rows. ON
# CONFLICT, and the conditions that the updates repeat, are for another run at the same moment.
_LOOK = """
WITH troubled AS MATERIALIZED ({troubled}), compared AS MATERIALIZED (
    SELECT t.device_id, t.detail, a.id, a.clear_since, t.device_id IS NULL AS clear,
        coalesce(a.clear_since, statement_timestamp())
            <= statement_timestamp() - make_interval(secs => %(cooldown_seconds)s) AS for_good
    FROM troubled t FULL JOIN (
        SELECT id, device_id, clear_since FROM device_alerts
        WHERE condition = %(condition)s AND recovered_at IS NULL
    ) AS a ON a.device_id = t.device_id
), back AS MATERIALIZED (
    SELECT id FROM compared WHERE NOT clear AND clear_since IS NOT NULL
), away AS MATERIALIZED (
    SELECT id FROM compared WHERE clear AND clear_since IS NULL AND NOT for_good
), over AS MATERIALIZED (
    SELECT id FROM compared WHERE clear AND for_good
), opened AS (
    INSERT INTO device_alerts (device_id, condition, since, detail, notice)
    SELECT device_id, %(condition)s, statement_timestamp(), detail, 'opened' FROM compared WHERE id IS NULL
    ON CONFLICT (device_id, condition) WHERE recovered_at IS NULL DO NOTHING
    RETURNING 1
), stayed AS (
    UPDATE device_alerts a SET clear_since = NULL FROM back WHERE a.id = back.id AND a.recovered_at IS NULL
), cleared AS (
    UPDATE device_alerts a SET clear_since = statement_timestamp()
    FROM away WHERE a.id = away.id AND a.recovered_at IS NULL AND a.clear_since IS NULL
), recovered AS (
    -- Whoever is telling that it opened has lost its claim: that it recovered is told instead.
    UPDATE device_alerts a SET clear_since = coalesce(a.clear_since, statement_timestamp()),
        recovered_at = statement_timestamp(), notice = 'recovered', claim_id = NULL, lease_until = NULL
    FROM over WHERE a.id = over.id AND a.recovered_at IS NULL
    RETURNING 1
)
SELECT (SELECT count(*) FROM opened) AS opened, (SELECT count(*) FROM recovered) AS recovered
"""

_CLOSE_DELETED = """
UPDATE device_alerts a SET recovered_at = statement_timestamp(), notice = NULL, claim_id = NULL, lease_until = NULL
FROM devices d WHERE d.id = a.device_id AND d.deleted_at IS NOT NULL AND a.recovered_at IS NULL
RETURNING a.id
"""
