"""Recurring and one-time commands. The sweep starts due runs: each run is one bulk command, started once.

A run's request_id consists of the schedule's id and the run's instant. Its row has both as its key and is written in
the transaction that creates the commands, so two sweeps, a crash or a retry start it only once.
"""

import time
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs
from psycopg2.errors import QueryCanceled

from nexmdm.activity import events
from nexmdm.commands import actions, batches, instants, queue
from nexmdm.commands.actions import Params
from nexmdm.commands.single import MASK, Command, Selected
from nexmdm.commands.states import Answered, Delivery, DispatchState, RunStatus
from nexmdm.devices import filters, groups
from nexmdm.devices.filters import Filter
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import GivenName, Instant

SHOWN_RUNS = 5
# Runs older than this are missed regardless of the grace period, so that a long outage is not enumerated by minute.
_LOOKED_BACK = timedelta(days=1)
_TRY_AGAIN = timedelta(hours=1)
Action = Annotated[str, Meta(extra_json_schema={"enum": list(actions.ACTIONS)})]
Cron = Annotated[str, Meta(max_length=100, description="minute hour day month weekday")]
Zone = Annotated[str, Meta(max_length=64, description="an IANA name, such as Europe/Berlin")]


class NewSchedule(Struct, forbid_unknown_fields=True, kw_only=True):
    """Either `cron` or `at`; an `at` without an offset is local time in `timezone`. Each run evaluates the filter."""

    name: GivenName
    cron: Cron | None = None
    at: datetime | None = None
    timezone: Zone = "UTC"
    filter: Filter
    action: Action
    params: Params = {}
    ttl_seconds: queue.Ttl = queue.DEFAULT_TTL_SECONDS
    delivery: Delivery = Delivery.AT_MOST_ONCE
    enabled: bool = True


class ScheduleChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """Absent members stay unchanged; `cron` replaces `at` and the reverse."""

    cron: Cron | UnsetType = UNSET
    at: datetime | UnsetType = UNSET
    timezone: Zone | UnsetType = UNSET
    filter: Filter | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    params: Params | UnsetType = UNSET
    ttl_seconds: queue.Ttl | UnsetType = UNSET
    delivery: Delivery | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Run(Struct, forbid_unknown_fields=True, kw_only=True):
    """One run. `states` counts its dispatches by state, as long as they are kept."""

    scheduled_for: Instant
    status: RunStatus
    request_id: str | None
    states: dict[DispatchState, int]


class Schedule(Struct, forbid_unknown_fields=True, kw_only=True):
    """A schedule with its next runs (null and empty while it is disabled) and its last one."""

    schedule_id: int
    name: str
    cron: str | None
    at: Instant | None
    timezone: str
    filter: Filter
    action: str
    answered: Answered | None
    params: Params
    ttl_seconds: int
    delivery: Delivery
    enabled: bool
    next_run_at: Instant | None
    next_runs: list[Instant]
    last_run: Run | None
    created_at: Instant
    created_by: str
    updated_at: Instant


class _Definition(Struct, kw_only=True):
    """What a row holds of a schedule besides its name; its next run follows from it."""

    cron: str | None
    at: datetime | None
    timezone: str
    filter: filters.Document
    action: str
    params: Params
    ttl_seconds: int
    delivery: Delivery
    enabled: bool

    def columns(self) -> dict[str, object]:
        """The parameters of the statements that write it."""
        return {
            **structs.asdict(self),
            "filter": msgspec.json.encode(self.filter).decode(),
            "params": msgspec.json.encode(self.params).decode(),
            "delivery": self.delivery.value,
        }

    def when(self) -> tuple[object, ...]:
        """What its next run depends on."""
        return self.cron, self.at, self.timezone, self.enabled

    def said(self) -> events.Change:
        """What the event log says of it."""
        return {
            **structs.asdict(self),
            "filter": filters.shown(self.filter),
            "params": _shown(self.action, self.params),
        }


def create(db: Database, wanted: NewSchedule, actor: Actor, config: Settings) -> Schedule:
    """Add a schedule.

    Raises:
        Conflict: the name is taken, or schedules are switched off.
        Invalid: names the field.
        Forbidden: the action is switched off.
    """
    start = time.perf_counter()
    if not config.schedules_enabled:
        raise Conflict("Schedules are switched off in this deployment (parameter Schedules).")
    with db.transaction() as tx:
        now = tx.execute("SELECT clock_timestamp() AS now")[0]["now"]
        made, following = _checked(tx, wanted, now, config)
        columns = {**made.columns(), "next_run_at": following}
        rows = tx.execute(_CREATE, {**columns, "name": wanted.name, "by": actor.name})
        if not rows:
            raise Conflict(f"A schedule named {wanted.name!r} already exists.")
        events.record(tx, actor, "schedule.create", f"schedule:{wanted.name}", after=made.said())
        schedule = show(tx, wanted.name)
    logs.db_operation("create", "schedules", {"name": wanted.name, "by": actor.name}, elapsed_ms(start))
    return schedule


def change(db: Database, name: str, wanted: ScheduleChange, actor: Actor, config: Settings) -> Schedule:
    """Change a schedule. Its next run changes only with its timing, or when it is enabled or disabled.

    A run that is already due by then is recorded as missed.

    Raises:
        NotFound: there is no such schedule.
        Invalid: names the field.
    """
    given = {key: value for key, value in structs.asdict(wanted).items() if value is not UNSET}
    if "cron" in given and "at" in given:
        raise Invalid("$", "give cron or at, not both")
    with db.transaction() as tx:
        row = _locked(tx, name)
        before = msgspec.convert(row, _Definition)
        members = {**structs.asdict(before), "filter": filters.of_column(before.filter)}
        if "cron" in given or "at" in given:
            members |= {"cron": None, "at": None}
        timing_stays = not given.keys() & {"cron", "at", "timezone"}
        asked = NewSchedule(name=name, **{**members, **given})
        after, following = _checked(tx, asked, row["now"], config, over=timing_stays)
        if after == before:
            return show(tx, name)
        if after.when() == before.when():
            following = row["next_run_at"]
        elif row["next_run_at"] and row["next_run_at"] <= row["now"]:
            _miss(tx, row, row["next_run_at"], actor)
        tx.execute(_CHANGE, {**after.columns(), "next_run_at": following, "name": name})
        events.record(tx, actor, "schedule.change", f"schedule:{name}", before=before.said(), after=after.said())
        return show(tx, name)


def delete(db: Database, name: str, actor: Actor) -> None:
    """Delete a schedule and the records of its runs; their commands are kept. The name may be used again.

    Raises:
        NotFound: there is no such schedule.
    """
    with db.transaction() as tx:
        deleted = msgspec.convert(_locked(tx, name), _Definition)
        tx.execute("DELETE FROM schedules WHERE name = %(name)s", {"name": name})
        events.record(tx, actor, "schedule.delete", f"schedule:{name}", before=deleted.said())


def show(db: Executor, name: str) -> Schedule:
    """One schedule.

    Raises:
        NotFound: there is no such schedule.
    """
    rows = db.execute(_SHOW, {"name": name, "after": None, "limit": 1}, repeatable=True)
    if not rows:
        raise _unknown(name)
    return _schedule(rows[0])


def list_schedules(db: Executor, query: PageQuery) -> Page[Schedule]:
    """The schedules by name."""
    (after,) = query.after(str)
    rows = db.execute(_SHOW, {"name": None, "after": after, "limit": query.limit + 1}, repeatable=True)
    return page([_schedule(row) for row in rows], query.limit, ("name",))


def list_runs(db: Executor, name: str, query: PageQuery) -> Page[Run]:
    """The runs of a schedule, newest first.

    Raises:
        NotFound: there is no such schedule.
    """
    (after,) = query.after(datetime)
    schedule = show(db, name)
    parameters = {"id": schedule.schedule_id, "after": after, "limit": query.limit + 1}
    rows = db.execute(_RUNS, parameters, repeatable=True)
    return page([msgspec.convert(row, Run) for row in rows], query.limit, ("scheduled_for",))


def run_now(db: Database, name: str, key: str | None, actor: Actor, config: Settings) -> tuple[Run, bool]:
    """Run a schedule now, once per key; return the run and whether it is new. The next run is not affected.

    Raises:
        NotFound: there is no such schedule.
        Conflict: it was already run within this second.
    """
    with db.transaction() as tx:
        row = _locked(tx, name)
        known = key and tx.execute(_RUN_OF_KEY, {"id": row["schedule_id"], "key": key})
        if known:
            return msgspec.convert(known[0], Run), False
        made = _start(tx, row, row["now"].replace(microsecond=0), actor, config, key)
        if made is None:
            raise Conflict("The schedule was already run within this second. Try again.", headers={"Retry-After": "1"})
        return made, True


def start_due(db: Database, actor: Actor, config: Settings, remaining_seconds: float) -> int:
    """Start the due runs, each in its own transaction; return how many were started.

    A run that fails because of a defect, or takes longer than the database's statement_timeout, is recorded as missed
    and tried again in an hour, so that it does not block other schedules.
    """
    over, started = time.monotonic() + remaining_seconds, 0
    while time.monotonic() < over:
        due: list[Row] = []
        try:
            with db.transaction() as tx:
                due = tx.execute(_DUE)
                if not due:
                    break
                started += _start_one(tx, due[0], actor, config)
        except Exception as error:
            # A statement of one schedule that exceeds its time says nothing about the others; any other outage does.
            outage = isinstance(error, Unavailable) and not isinstance(error.__cause__, QueryCanceled)
            if not due or outage:
                raise
            logs.failure(error)
            with db.transaction() as tx:
                row = due[0]
                _miss(tx, row, row["next_run_at"], actor)
                tx.execute(_NEXT, {"id": row["schedule_id"], "next_run_at": row["now"] + _TRY_AGAIN})
    return started


def _start_one(tx: Executor, row: Row, actor: Actor, config: Settings) -> int:
    """Start the latest due instant if it is not too late; all others become one missed row."""
    first, now = row["next_run_at"], row["now"]
    timing = row["cron"] or row["at"]
    due = [first, *instants.between(timing, row["timezone"], max(first, now - _LOOKED_BACK), now)]
    latest = due[-1]
    in_time = (now - latest).total_seconds() <= config.misfire_grace_seconds
    if len(due) > 1 or not in_time:
        _miss(tx, row, first, actor)
    made = _start(tx, row, latest, actor, config) if in_time else None
    _move_on(tx, row)
    return int(made is not None)


def _miss(tx: Executor, row: Row, instant: datetime, actor: Actor) -> None:
    """Record a run that was not started, once."""
    run = {"id": row["schedule_id"], "at": instant, "status": RunStatus.MISSED.value, "request_id": None, "key": None}
    if tx.execute(_RUN, run):
        events.record(tx, actor, "schedule.missed", f"schedule:{row['name']}", after={"scheduled_for": instant})
        metrics.count("ScheduleMissed")


def _move_on(tx: Executor, row: Row) -> None:
    """Set the next run to the first instant after now."""
    following = next(instants.following(row["cron"] or row["at"], row["timezone"], row["now"]), None)
    tx.execute(_NEXT, {"id": row["schedule_id"], "next_run_at": following})


def _start(
    tx: Executor, row: Row, instant: datetime, actor: Actor, config: Settings, key: str | None = None
) -> Run | None:
    """Create the commands of one run; None if the run already exists."""
    request_id = f"schedule.{row['schedule_id']}.{int(instant.timestamp())}"
    record = {"id": row["schedule_id"], "at": instant, "status": RunStatus.STARTED.value, "request_id": request_id}
    if not tx.execute(_RUN, {**record, "key": key}):
        return None
    status = RunStatus.STARTED
    sent_as: str | None = request_id
    try:
        _check_enabled(row["action"], config)
        selected = Selected({"filter": filters.conditions(filters.of_column(row["filter"]))})
        delivery = Delivery(row["delivery"])
        command = Command(request_id, selected, row["action"], row["params"], row["ttl_seconds"], actor, delivery)
        batches.accept(tx, command, config.heartbeat_interval_seconds)
    except (Invalid, Forbidden):
        # The filter matches no device, its group was deleted, or the action was switched off.
        status, sent_as = RunStatus.EMPTY, None
        tx.execute(_EMPTY, {"id": row["schedule_id"], "at": instant})
    after = {"scheduled_for": instant, "status": status, "request_id": sent_as}
    events.record(tx, actor, "schedule.run", f"schedule:{row['name']}", after=after)
    logs.db_operation("create", "schedule_runs", {"name": row["name"], "status": str(status)}, 0)
    return Run(scheduled_for=instant, status=status, request_id=sent_as, states={})


def _checked(
    tx: Executor, wanted: NewSchedule, now: datetime, config: Settings, *, over: bool = False
) -> tuple[_Definition, datetime | None]:
    """What is stored of it, and its next run after `now`.

    Args:
        over: the timing is unchanged, so the instant of a one-time schedule may be in the past.

    Raises:
        Invalid: names the field.
        Forbidden: the action is switched off.
    """
    if (wanted.cron is None) == (wanted.at is None):
        raise Invalid("$", "give cron for a recurring command, or at for one that runs once")
    params = actions.parameters(wanted.action, wanted.params)
    for name in sorted(params.keys() & actions.secret_names(wanted.action)):
        raise Invalid(f"$.params.{name}", "is a secret, which a schedule cannot store; send the command yourself")
    actions.check_delivery(wanted.action, wanted.delivery)
    _check_enabled(wanted.action, config)
    timing: str | datetime = wanted.cron or ""
    if wanted.at is not None:
        timing = instants.instant_of(wanted.at, wanted.timezone)
    following = (
        next(instants.following(timing, wanted.timezone, now), None)
        if over
        else instants.check(timing, wanted.timezone, now)
    )
    kept = filters.stored(wanted.filter)
    groups.hold(tx, kept)
    definition = _Definition(
        cron=wanted.cron,
        at=timing if isinstance(timing, datetime) else None,
        timezone=wanted.timezone,
        filter=kept,
        action=wanted.action,
        params=params,
        ttl_seconds=wanted.ttl_seconds,
        delivery=wanted.delivery,
        enabled=wanted.enabled,
    )
    return definition, following if wanted.enabled else None


def _check_enabled(action: str, config: Settings) -> None:
    if action == "remote_exec_shell" and not config.remote_exec_shell_enabled:
        raise Forbidden("remote_exec_shell is switched off. Set REMOTE_EXEC_SHELL_ENABLED to allow it.")


def _locked(tx: Executor, name: str) -> Row:
    rows = tx.execute(_LOCKED, {"name": name})
    if not rows:
        raise _unknown(name)
    return rows[0]


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no schedule {name!r}.")


def _shown(action: str, params: Params) -> Params:
    """Mask shell commands, because viewers can read schedules."""
    known = actions.ACTIONS.get(action)
    hidden = known.parameters.HIDDEN if known else frozenset()
    return {name: MASK if name in hidden else value for name, value in params.items()}


def _schedule(row: Row) -> Schedule:
    now, timing = row.pop("now"), row["cron"] or row["at"]
    action = actions.ACTIONS.get(row["action"])
    runs = instants.next_runs(timing, row["timezone"], now, SHOWN_RUNS) if row["enabled"] else []
    return msgspec.convert(
        {
            **row,
            "filter": filters.shown(row["filter"]),
            "params": _shown(row["action"], row["params"]),
            "answered": action and action.answered,
            "next_runs": runs,
        },
        Schedule,
    )


_SHOW = statement(__package__, "show_schedules")
_RUNS = statement(__package__, "list_runs")
_DUE = statement(__package__, "due_schedule")

_CREATE = """
INSERT INTO schedules (name, cron, at, timezone, filter, action, params, ttl_seconds, delivery, enabled, next_run_at,
    created_by)
VALUES (%(name)s, %(cron)s, %(at)s, %(timezone)s, %(filter)s::jsonb, %(action)s, %(params)s::jsonb, %(ttl_seconds)s,
    %(delivery)s, %(enabled)s, %(next_run_at)s, %(by)s)
ON CONFLICT (name) DO NOTHING RETURNING schedule_id
"""
_CHANGE = """
UPDATE schedules SET cron = %(cron)s, at = %(at)s, timezone = %(timezone)s, filter = %(filter)s::jsonb,
    action = %(action)s, params = %(params)s::jsonb, ttl_seconds = %(ttl_seconds)s, delivery = %(delivery)s,
    enabled = %(enabled)s, next_run_at = %(next_run_at)s, updated_at = clock_timestamp()
WHERE name = %(name)s
"""
_LOCKED = "SELECT *, clock_timestamp() AS now FROM schedules WHERE name = %(name)s FOR UPDATE"
# Zero rows mean that this run already exists.
_RUN = """
INSERT INTO schedule_runs (schedule_id, scheduled_for, status, request_id, key)
VALUES (%(id)s, %(at)s, %(status)s, %(request_id)s, %(key)s)
ON CONFLICT (schedule_id, scheduled_for) DO NOTHING RETURNING schedule_id
"""
_EMPTY = """
UPDATE schedule_runs SET status = 'empty', request_id = NULL WHERE schedule_id = %(id)s AND scheduled_for = %(at)s
"""
_NEXT = "UPDATE schedules SET next_run_at = %(next_run_at)s WHERE schedule_id = %(id)s"
_RUN_OF_KEY = """
SELECT scheduled_for, status, request_id, '{}'::jsonb AS states
FROM schedule_runs WHERE schedule_id = %(id)s AND key = %(key)s
"""
