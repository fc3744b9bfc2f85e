"""Alerts about devices: found by the watch, open until the condition stayed away for the cool-down.

    (none) -> pending     the condition is there, and its rule asks that it lasts (`for_seconds`)
    (none) -> open        the condition is there; at most one open alert per device and condition, by unique index
    pending -> open       it lasted for the rule's `for_seconds`
    pending -> (none)     it went away before
    open -> open          it comes and goes: `clear_since` remembers since when it is gone, and nothing is told
    open -> recovered     gone for ALERT_COOLDOWN_SECONDS; no rule watches for it on this device any more; or the device
                          was deleted, of which nothing is told

So a condition that flaps is told once, and two runs at once find it once. What is to be told waits in the row's
`notice`, see `nexmdm.alerts.notifications`.
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
    """Where an alert is."""

    PENDING = "pending"  # the condition is there, for less than its rule's for_seconds; the watch opens or removes it
    OPEN = "open"  # entered by the watch, left by the watch when the condition stayed away
    RECOVERED = "recovered"  # over; cleanup removes it after ALERT_RETENTION_DAYS


class Alert(Struct, kw_only=True):
    """What is wrong, or was, with one device.

    Attributes:
        since: when the condition was found. opened_at: when the alert opened; null while it is pending.
        notified_at: when the last change was told; null if nothing was.
        muted: a mute kept its last change from being told.
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
    """Filters of the list of alerts; `open` true for those that have not recovered. unity_down is app_down."""

    condition: Annotated[str, Meta(extra_json_schema={"enum": list(Condition)})] | None = None
    severity: Severity | None = None
    device_id: str | None = None
    open: bool | None = None


class Acknowledgement(Struct, forbid_unknown_fields=True):
    """What the operator says of the alert."""

    note: Annotated[str, Meta(max_length=1000)] | None = None


class Evaluated(Struct):
    """Of how many devices an alert opened or recovered; `error` is the kind of error that stopped it."""

    opened: int = 0
    recovered: int = 0
    error: str | UnsetType = UNSET


class _Scope(Struct):
    """The devices of one rule, as SQL over `devices d LEFT JOIN device_last_status l`."""

    rule: Rule | None
    applies: filters.Condition


def evaluate(db: Executor, config: Settings) -> dict[str, Evaluated]:
    """Compare the fleet with its alerts, one statement per rule.

    Returns:
        {condition: what changed}; a rule whose statement was refused does not stop the others.

    Raises:
        Unavailable: the database is away.
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
    """One condition. An error of one rule is logged, and stops neither the others nor what they found."""
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
    """For each rule the devices that it applies to: those of its filter that no rule before it has. Last, those that no
    rule has, whose alerts are over."""
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
    """Those of `mine` that none of the others has. A comparison with null is no match, so it takes nothing away."""
    texts = [f"({mine.sql})", *(f"({other.sql}) IS NOT TRUE" for other in others)]
    return filters.Condition(" AND ".join(texts), _merged([mine, *others]))


def _any(db: Executor, config: Settings, given: list[Filter], prefix: str) -> filters.Condition:
    """Devices of any of the filters."""
    each = [
        filters.where(filters.resolve(db, filter_), config.heartbeat_interval_seconds, f"{prefix}_{n}")
        for n, filter_ in enumerate(given)
    ]
    sql = " OR ".join(f"coalesce({one.sql}, false)" for one in each)
    return filters.Condition(sql or "false", _merged(each))


def _merged(each: list[filters.Condition]) -> dict[str, object]:
    return {name: value for one in each for name, value in one.parameters.items()}


def acknowledge(db: Database, actor: Actor, alert_id: int, note: str | None) -> Alert:
    """Mark an open alert as known.

    Raises:
        NotFound: there is no open alert of this id.
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
    """A page of living devices' alerts, newest first."""
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
    """The condition of this name, or of its name before rules."""
    if name is None:
        return None
    try:
        return Condition("app_down" if name == "unity_down" else name)
    except ValueError:
        raise Invalid("query.condition", f"is none of {', '.join(Condition)}") from None


_NO_DEVICE = "SELECT NULL::text AS device_id, NULL::jsonb AS detail WHERE false"
_NO_FILTER = dict.fromkeys(("condition", "severity", "device_id", "open", "before"))

_EVALUATE = statement(__package__, "evaluate")
_LIST = statement(__package__, "list_alerts")
_ACKNOWLEDGE = statement(__package__, "acknowledge")

_CLOSE_DELETED = """
UPDATE device_alerts a SET recovered_at = statement_timestamp(), notice = NULL, claim_id = NULL, lease_until = NULL
FROM devices d WHERE d.id = a.device_id AND d.deleted_at IS NOT NULL AND a.recovered_at IS NULL
RETURNING a.id
"""
