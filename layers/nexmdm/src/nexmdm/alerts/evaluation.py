"""Alerts about devices: opened by the watch, and open until the condition has been absent for the cool-down.

    (none) -> pending     the condition is met, and its rule requires that it lasts (`for_seconds`)
    (none) -> open        the condition is met; a unique index allows one open alert per device and condition
    pending -> open       the condition has lasted for the rule's `for_seconds`
    pending -> (none)     the condition ended before that
    open -> open          the condition flaps: `clear_since` is when it ended, and no notification is sent
    open -> recovered     absent for ALERT_COOLDOWN_SECONDS; no rule applies to the device any more; or the device
                          was deleted

If the opening was notified, so is the recovery. A flapping condition therefore sends one notification, and two
concurrent runs open one alert. A pending notification is stored in the row's `notice`; see
`nexmdm.alerts.notifications`.
"""

import time
from collections import Counter
from enum import StrEnum
from typing import Annotated

import psycopg2
from msgspec import UNSET, Meta, Struct, UnsetType

from nexmdm.activity import events
from nexmdm.alerts import conditions, mutes, rules
from nexmdm.alerts.conditions import DECLARATIONS, Condition, Detail
from nexmdm.alerts.rules import Rule, Severity
from nexmdm.devices import filters
from nexmdm.devices.filters import Filter
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, elapsed_ms, statement, typed
from nexmdm.runtime.errors import Invalid, NotFound
from nexmdm.runtime.pagination import Page, page
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import Instant


class AlertState(StrEnum):
    """The state of an alert."""

    PENDING = "pending"  # the condition is met for less than for_seconds; the watch opens or removes the alert
    OPEN = "open"  # entered by the watch, left by the watch when the condition has been absent long enough
    RECOVERED = "recovered"  # final; cleanup removes it after ALERT_RETENTION_DAYS


class Alert(Struct, kw_only=True):
    """A present or past problem of one device.

    Attributes:
        since: when the condition was first met. opened_at: when the alert opened; null while it is pending.
        notified_at: when the last change was notified; null if none was.
        muted: a mute suppressed the notification of its last change.
    """

    alert_id: int
    device_id: str
    alias: str
    condition: Condition
    rule: str | None
    severity: Severity
    state: AlertState
    since: Instant
    opened_at: Instant | None
    notified_at: Instant | None
    recovered_at: Instant | None
    muted: bool
    acked_at: Instant | None
    acked_by: str | None
    ack_note: str | None
    detail: Detail


class AlertsQuery(filters.FilteredPageQuery, kw_only=True):
    """Filters of the list of alerts; `open` is true for alerts that have not recovered. `unity_down` is accepted for
    `app_down`."""

    condition: Annotated[str, Meta(extra_json_schema={"enum": list(Condition)})] | None = None
    severity: Severity | None = None
    device_id: str | None = None
    open: bool | None = None


class Acknowledgement(Struct, forbid_unknown_fields=True):
    """The operator's acknowledgement of an alert."""

    note: Annotated[str, Meta(max_length=1000)] | None = None


class Evaluated(Struct):
    """How many alerts opened and recovered; `error` is the kind of error that stopped the evaluation."""

    opened: int = 0
    recovered: int = 0
    error: str | UnsetType = UNSET


class _Scope(Struct):
    """The devices of one rule, as an SQL condition on `devices d LEFT JOIN device_last_status l`."""

    rule: Rule | None
    applies: filters.Condition


def evaluate(db: Executor, config: Settings) -> dict[str, Evaluated]:
    """Evaluate all rules against the fleet, with one statement per rule.

    Returns:
        {condition: changes}; a rule whose statement fails does not stop the others.

    Raises:
        Unavailable: the database is not available.
    """
    start = time.perf_counter()
    closed = len(db.execute(_CLOSE_DELETED, repeatable=True))
    if closed:
        logs.db_operation("update", "device_alerts", {"closed": closed}, elapsed_ms(start))
    return {condition: evaluate_condition(db, config, condition) for condition in DECLARATIONS}


def evaluate_condition(db: Executor, config: Settings, condition: Condition) -> Evaluated:
    """The same for the rules of one condition."""
    own = [rule for rule in rules.enabled(db) if rule.condition == condition]
    return _evaluate(db, config, condition, own, mutes.active(db), rules.quiet(db))


def _evaluate(
    db: Executor,
    config: Settings,
    condition: Condition,
    own: list[Rule],
    muted: list[mutes.Mute],
    quiet: set[str],
) -> Evaluated:
    """Evaluate one condition. An error of one rule is logged and does not affect the others."""
    total = Counter[str]()
    error: str | UnsetType = UNSET
    try:
        silenced = _any(db, config, [mute.filter for mute in muted if mute.condition in (None, condition)], "mute")
        scopes = _scopes(db, config, own)
    except (psycopg2.Error, Invalid) as failure:
        logs.failure(failure)
        return Evaluated(error=type(failure).__name__)
    for scope in scopes:
        try:
            total.update(_evaluate_rule(db, config, condition, scope, silenced, quiet))
        except psycopg2.Error as failure:
            logs.failure(failure)
            error = type(failure).__name__
    return Evaluated(total["opened"], total["recovered"], error)


def _evaluate_rule(
    db: Executor,
    config: Settings,
    condition: Condition,
    scope: _Scope,
    silenced: filters.Condition,
    quiet: set[str],
) -> dict[str, int]:
    start = time.perf_counter()
    rule = scope.rule
    query = conditions.sql(condition) if rule else _NO_DEVICE
    threshold = rule.threshold if rule and rule.threshold is not None else DECLARATIONS[condition].default(config)
    values = {
        **conditions.parameters(config),
        **scope.applies.parameters,
        **silenced.parameters,
        "condition": condition.value,
        "threshold": threshold,
        "rule": rule.name if rule else None,
        "severity": rule.severity if rule else "warning",
        "for_seconds": rule.for_seconds if rule else 0,
        "quiet": bool(rule and rule.name in quiet),
        "cooldown_seconds": config.alert_cooldown_seconds,
    }
    sql = _EVALUATE.format(condition=query, applies=scope.applies.sql, muted=silenced.sql)
    [found] = db.execute(sql, values, repeatable=True)
    metrics.count("AlertsOpened", found["opened"])
    metrics.count("AlertsRecovered", found["recovered"])
    keys = {"condition": condition.value, "rule": values["rule"], **found}
    logs.db_operation("update", "device_alerts", keys, elapsed_ms(start))
    return found


def _scopes(db: Executor, config: Settings, own: list[Rule]) -> list[_Scope]:
    """The devices of each rule: those of its filter that no earlier rule applies to. Last, the devices that no rule
    applies to, whose alerts recover."""
    scopes: list[_Scope] = []
    taken: list[filters.Condition] = []
    for n, rule in enumerate(own):
        parts = filters.resolve(db, rule.filter) if rule.filter else []
        mine = filters.where(parts, config.heartbeat_interval_seconds, f"rule_{n}")
        scopes.append(_Scope(rule, _but(mine, taken)))
        if rule.filter is None:
            return scopes
        taken.append(mine)
    scopes.append(_Scope(None, _but(filters.Condition("true", {}), taken)))
    return scopes


def _but(mine: filters.Condition, others: list[filters.Condition]) -> filters.Condition:
    """The devices of `mine` that match none of the others. A comparison with null does not match, so it excludes
    none."""
    texts = [f"({mine.sql})", *(f"({other.sql}) IS NOT TRUE" for other in others)]
    return filters.Condition(" AND ".join(texts), _merged([mine, *others]))


def _any(db: Executor, config: Settings, given: list[Filter], prefix: str) -> filters.Condition:
    """The devices of any of the filters."""
    each = [
        filters.where(filters.resolve(db, filter_), config.heartbeat_interval_seconds, f"{prefix}_{n}")
        for n, filter_ in enumerate(given)
    ]
    sql = " OR ".join(f"coalesce({one.sql}, false)" for one in each)
    return filters.Condition(sql or "false", _merged(each))


def _merged(each: list[filters.Condition]) -> dict[str, object]:
    return {name: value for one in each for name, value in one.parameters.items()}


def acknowledge(db: Database, actor: Actor, alert_id: int, note: str | None) -> Alert:
    """Acknowledge an open alert.

    Raises:
        NotFound: there is no open alert with this id.
    """
    with db.transaction() as tx:
        rows = tx.execute(_ACKNOWLEDGE, {"alert_id": alert_id, "by": actor.name, "note": note})
        if not rows:
            raise NotFound(f"There is no open alert {alert_id}.")
        after = {"alert_id": alert_id, "condition": rows[0]["condition"], "note": note}
        events.record(tx, actor, "alert.ack", f"device:{rows[0]['device_id']}", after=after)
        sql = _LIST.format(where="a.id = %(alert_id)s")
        return _alerts(tx, sql, {**_NO_FILTER, "alert_id": alert_id, "limit": 1})[0]


def list_alerts(db: Executor, query: AlertsQuery, config: Settings) -> Page[Alert]:
    """A page of the alerts of enrolled devices, newest first."""
    (before,) = query.after(int)
    parts = filters.resolve(db, filters.of_query(query), "query")
    where = filters.where(parts, config.heartbeat_interval_seconds)
    values = {
        **where.parameters,
        "condition": _condition(query.condition),
        "severity": query.severity,
        "device_id": query.device_id,
        "open": query.open,
        "before": before,
        "limit": query.limit + 1,
    }
    return page(_alerts(db, _LIST.format(where=where.sql), values), query.limit, ("alert_id",))


def _alerts(db: Executor, sql: str, values: dict[str, object]) -> list[Alert]:
    return typed(db.execute(sql, values, repeatable=True), Alert)


def _condition(name: str | None) -> Condition | None:
    """The condition with this name, or with its name from before alert rules existed."""
    if name is None:
        return None
    try:
        return Condition("app_down" if name == "unity_down" else name)
    except ValueError:
        raise Invalid("query.condition", f"must be one of {', '.join(Condition)}") from None


_NO_DEVICE = "SELECT NULL::text AS device_id, NULL::jsonb AS detail WHERE false"
_NO_FILTER = dict.fromkeys(("condition", "severity", "device_id", "open", "before"))

_EVALUATE = statement(__package__, "evaluate")
_LIST = statement(__package__, "list_alerts")
_ACKNOWLEDGE = statement(__package__, "acknowledge")

_CLOSE_DELETED = """
UPDATE device_alerts a SET recovered_at = statement_timestamp(), claim_id = NULL, lease_until = NULL,
    notice = CASE WHEN a.notified_at IS NOT NULL OR a.claim_id IS NOT NULL THEN 'recovered' END
FROM devices d WHERE d.id = a.device_id AND d.deleted_at IS NOT NULL AND a.recovered_at IS NULL
RETURNING a.id
"""
