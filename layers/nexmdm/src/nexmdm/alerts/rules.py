"""Alert rules: a condition, the devices that it applies to, how long it must last, and where it is notified.

One enabled rule applies per device and condition: the one with the lowest `priority`; among equals, one with a filter
before one without; then the first by name. A rule without a threshold uses its condition's setting.
"""

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nexmdm.activity import events
from nexmdm.alerts.conditions import DECLARATIONS, Condition
from nexmdm.devices import filters, groups
from nexmdm.devices.filters import Filter
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row
from nexmdm.runtime.errors import Conflict, Invalid, NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import GivenName, Instant

Severity = Literal["info", "warning", "critical"]
TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](?![\s\S])")]
Seconds = Annotated[int, Meta(ge=0, le=604_800)]
MOST_RULES = 50  # the watch evaluates them one after the other, and one message may name them all
Priority = Annotated[int, Meta(ge=0, le=10_000)]
Routes = Annotated[list[GivenName], Meta(max_length=10)]


class QuietHours(Struct, forbid_unknown_fields=True):
    """Notifications are held back from `from` until before `to` in this time zone."""

    timezone: Annotated[str, Meta(min_length=1, max_length=64)]
    from_: TimeOfDay = msgspec.field(name="from")
    to: TimeOfDay


class NewRule(Struct, forbid_unknown_fields=True, kw_only=True):
    """A rule as created by an operator.

    Attributes:
        filter: the devices; null for all.
        threshold: in the unit of the condition: percent, degrees Celsius, seconds, reports, hours.
        for_seconds: how long the condition must have lasted before the alert opens.
        routes: names of routes in NOTIFICATION_ROUTES; empty for only the SNS topic.
        priority: of a device's rules for one condition, the one with the lowest number applies.
    """

    name: GivenName
    condition: Condition
    filter: Filter | None = None
    threshold: float | None = None
    for_seconds: Seconds = 0
    severity: Severity = "warning"
    routes: Routes = []
    priority: Priority = 100
    quiet_hours: QuietHours | None = None
    enabled: bool = True


class RuleChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """Changes to a rule; null removes filter, threshold or quiet hours."""

    filter: Filter | UnsetType | None = UNSET
    threshold: float | UnsetType | None = UNSET
    for_seconds: Seconds | UnsetType = UNSET
    severity: Severity | UnsetType = UNSET
    routes: Routes | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    quiet_hours: QuietHours | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class Rule(NewRule, kw_only=True):
    """A stored rule."""

    created_at: Instant


def create(db: Database, actor: Actor, new: NewRule) -> Rule:
    """Add a rule.

    Raises:
        Conflict: there is a rule with this name.
        Invalid: the condition is unknown, the threshold is out of bounds, or the filter or the time zone is invalid.
    """
    _check(new)
    with db.transaction() as tx:
        if tx.execute("SELECT count(*) AS n FROM alert_rules")[0]["n"] >= MOST_RULES:
            raise Conflict(f"There are {MOST_RULES} alert rules, the maximum. Delete one first.")
        _check_filter(tx, new.filter)
        _check_timezone(new.quiet_hours)
        rows = tx.execute(_INSERT, _parameters(new))
        if not rows:
            raise Conflict(f"There is already an alert rule {new.name!r}. Change it with PATCH, or use another name.")
        rule = _rule(rows[0])
        events.record(tx, actor, "alert_rule.create", f"alert_rule:{rule.name}", after=_plain(rule))
    return rule


def change(db: Database, actor: Actor, name: str, given: RuleChange) -> Rule:
    """Change a rule.

    Raises:
        NotFound: there is no rule with this name.
        Invalid: see `create`.
    """
    with db.transaction() as tx:
        before = _locked(tx, name)
        changed = {key: value for key, value in msgspec.structs.asdict(given).items() if value is not UNSET}
        after = msgspec.structs.replace(before, **changed)
        _check(after)
        if "filter" in changed:
            _check_filter(tx, after.filter)
        _check_timezone(after.quiet_hours)
        if after == before:
            return before
        tx.execute(_UPDATE, _parameters(after))
        differ = [key for key in changed if getattr(before, key) != getattr(after, key)]
        was, is_ = _plain(before), _plain(after)
        events.record(
            tx,
            actor,
            "alert_rule.change",
            f"alert_rule:{name}",
            before={key: was.get(key) for key in differ},
            after={key: is_.get(key) for key in differ},
        )
    return after


def delete(db: Database, actor: Actor, name: str) -> None:
    """Delete a rule. Its open alerts recover at the next watch, unless another rule applies to them.

    Raises:
        NotFound: there is no rule with this name.
    """
    with db.transaction() as tx:
        before = _locked(tx, name)
        tx.execute("DELETE FROM alert_rules WHERE name = %(name)s", {"name": name})
        events.record(tx, actor, "alert_rule.delete", f"alert_rule:{name}", before=_plain(before))


def show(db: Executor, name: str) -> Rule:
    """One rule.

    Raises:
        NotFound: there is no rule with this name.
    """
    rows = db.execute(f"{_SELECT} WHERE name = %(name)s", {"name": name}, repeatable=True)
    if not rows:
        raise _missing(name)
    return _rule(rows[0])


def list_rules(db: Executor, query: PageQuery) -> Page[Rule]:
    """The rules by name."""
    (after,) = query.after(str)
    rows = db.execute(_LIST, {"after": after, "limit": query.limit + 1}, repeatable=True)
    return page([_rule(row) for row in rows], query.limit, ("name",))


def enabled(db: Executor) -> list[Rule]:
    """The enabled rules; for each condition in order of precedence."""
    rows = db.execute(f"{_SELECT} WHERE enabled", repeatable=True)
    return sorted((_rule(row) for row in rows), key=lambda rule: (rule.priority, rule.filter is None, rule.name))


def _check(rule: NewRule) -> None:
    declaration = DECLARATIONS[rule.condition]
    if rule.threshold is None:
        return
    if declaration.unit is None:
        raise Invalid("$.threshold", f"must be absent for {rule.condition}, which has no threshold")
    if not declaration.least <= rule.threshold <= declaration.most:
        limits = f"{declaration.least:g} to {declaration.most:g} {declaration.unit}"
        raise Invalid("$.threshold", f"is {rule.threshold:g}; for {rule.condition} it must be {limits}")


def _check_filter(tx: Executor, filter_: Filter | None) -> None:
    if filter_ is not None:
        groups.hold(tx, filters.stored(filter_))


def quiet(db: Executor) -> set[str]:
    """The names of the rules that are in their quiet hours now, by the database's clock and their time zones."""
    rows = db.execute(_QUIET, repeatable=True)
    return {row["name"] for row in rows if _is_quiet(msgspec.convert(row["quiet_hours"], QuietHours), row["now"])}


def _is_quiet(hours: QuietHours, now: datetime) -> bool:
    """Hours that end before they begin extend over midnight; equal begin and end mean the whole day."""
    local = now.astimezone(ZoneInfo(hours.timezone)).strftime("%H:%M")
    if hours.from_ < hours.to:
        return hours.from_ <= local < hours.to
    return local >= hours.from_ or local < hours.to


def _check_timezone(hours: QuietHours | None) -> None:
    if hours is None:
        return
    try:
        ZoneInfo(hours.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        detail = f"there is no time zone {hours.timezone!r}; use one such as Europe/Berlin"
        raise Invalid("$.quiet_hours.timezone", detail) from None


def _locked(tx: Executor, name: str) -> Rule:
    rows = tx.execute(f"{_SELECT} WHERE name = %(name)s FOR UPDATE", {"name": name})
    if not rows:
        raise _missing(name)
    return _rule(rows[0])


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no alert rule {name!r}.")


def _rule(row: Row) -> Rule:
    kept = row["filter"]
    shown = None if kept is None else filters.shown(kept)
    return msgspec.convert({**row, "filter": shown}, Rule)


def _plain(rule: NewRule) -> events.Change:
    plain: events.Change = msgspec.to_builtins(rule)
    return plain


def _parameters(rule: NewRule) -> dict[str, object]:
    plain = _plain(rule)
    kept = None if rule.filter is None else msgspec.json.encode(filters.stored(rule.filter)).decode()
    quiet = None if rule.quiet_hours is None else msgspec.json.encode(rule.quiet_hours).decode()
    return {**plain, "filter": kept, "quiet_hours": quiet}


_COLUMNS = "name, condition, filter, threshold, for_seconds, severity, routes, priority, quiet_hours, enabled"
_SELECT = f"SELECT {_COLUMNS}, created_at FROM alert_rules"

_LIST = f"{_SELECT} WHERE %(after)s::text IS NULL OR name > %(after)s ORDER BY name LIMIT %(limit)s"

_INSERT = f"""
INSERT INTO alert_rules ({_COLUMNS})
VALUES (%(name)s, %(condition)s, %(filter)s::jsonb, %(threshold)s, %(for_seconds)s, %(severity)s, %(routes)s::text[],
    %(priority)s, %(quiet_hours)s::jsonb, %(enabled)s)
ON CONFLICT (name) DO NOTHING
RETURNING {_COLUMNS}, created_at
"""

_UPDATE = """
UPDATE alert_rules SET filter = %(filter)s::jsonb, threshold = %(threshold)s, for_seconds = %(for_seconds)s,
    severity = %(severity)s, routes = %(routes)s::text[], priority = %(priority)s, quiet_hours = %(quiet_hours)s::jsonb,
    enabled = %(enabled)s
WHERE name = %(name)s
"""

_QUIET = "SELECT name, quiet_hours, clock_timestamp() AS now FROM alert_rules WHERE quiet_hours IS NOT NULL"
