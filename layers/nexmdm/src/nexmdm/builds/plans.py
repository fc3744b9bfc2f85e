"""Rollouts in stages that advance automatically: each has a percentage and a hold, within a window of local time.

A plan is stored on its build. It is created before its first stage (`plan_stage` -1). Each step is one transaction of
the sweep, with percentage, stage, event and, with `install`, the commands; after a crash a step is complete or not made
at all.
"""

import time
import uuid
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct, structs

from nexmdm.activity import events
from nexmdm.builds import rollouts
from nexmdm.builds.build import Identity, StoredBuild
from nexmdm.builds.rollouts import INSTALL_TTL_SECONDS, Audience, Install
from nexmdm.runtime import logs, metrics
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import Conflict, Invalid
from nexmdm.runtime.settings import Settings
from nexmdm.runtime.validation import Instant

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ClockTime = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
LEAST_TTL_SECONDS = 60


class Stage(Struct, forbid_unknown_fields=True, kw_only=True):
    """One stage of a plan.

    Attributes:
        hold_hours: the minimum time before the next stage; absent in the last stage.
        min_completed_percent: the share of requested installations that must be completed before the next stage.
    """

    percent: Annotated[int, Meta(ge=1, le=100)]
    hold_hours: Annotated[float, Meta(gt=0, le=2160)] | None = None
    min_completed_percent: Annotated[int, Meta(ge=0, le=100)] = 0


class Window(Struct, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """When a stage may begin, in local time. If `to` is not after `from`, the window ends on the next day."""

    timezone: Annotated[str, Meta(min_length=1, max_length=64)]
    days: Annotated[list[Day], Meta(min_length=1, max_length=7)]
    from_: ClockTime
    to: ClockTime

    def end(self, now: datetime) -> datetime | None:
        """The end of the window that is open at an instant; None if none is open."""
        zone = ZoneInfo(self.timezone)
        today = now.astimezone(zone).date()
        for day in (today, today - timedelta(days=1)):
            if DAYS[day.weekday()] not in self.days:
                continue
            begin, end = _instant(day, self.from_, zone), _instant(day, self.to, zone)
            if self.to <= self.from_:
                end = _instant(day + timedelta(days=1), self.to, zone)
            if begin <= now < end:
                return end
        return None


class Plan(Struct, kw_only=True):
    """The content of a build's `plan`; the request_ids of its installs are derived from `id`."""

    id: str
    stages: list[Stage]
    window: Window | None
    install: bool
    public_url: str
    made_at: Instant
    made_by: str


class _Due(Identity, kw_only=True):
    """A row of due_plans.sql."""

    plan: Plan
    plan_stage: int
    plan_stage_at: datetime
    staged_rollout_percent: int
    now: datetime
    asked: int
    completed: int


class PlanStatus(Struct, kw_only=True):
    """A plan as shown with its build.

    Attributes:
        stage: the current stage, counted from 1; 0 before the first.
        stage_at: when it began.
        end: what ended the plan; null while it is active.
    """

    stages: list[Stage]
    window: Window | None
    install: bool
    made_at: Instant
    made_by: str
    stage: int
    stage_at: Instant
    ended_at: Instant | None
    end: str | None


def check(stages: list[Stage], window: Window | None) -> None:
    """Check constraints that a schema cannot express.

    Raises:
        Invalid: the percentages do not rise, a hold is missing or superfluous, or the time zone is unknown.
    """
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        if number and stage.percent <= stages[number - 1].percent:
            raise Invalid(
                f"$.stages[{number}].percent", f"must be above {stages[number - 1].percent}, that of the previous stage"
            )
        if last and stage.hold_hours is not None:
            raise Invalid(f"$.stages[{number}].hold_hours", "must be absent in the last stage, which has no next stage")
        if not last and stage.hold_hours is None:
            raise Invalid(f"$.stages[{number}].hold_hours", "is missing: give the minimum time before the next stage")
    if window is not None:
        try:
            ZoneInfo(window.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Invalid("$.window.timezone", "is not an IANA time zone, such as Europe/Berlin") from None


def begin(
    db: Database,
    build: Identity,
    stages: list[Stage],
    window: Window | None,
    audience: Audience,
    actor: Actor,
    config: Settings,
    *,
    install: bool,
    url: str,
) -> None:
    """Create a plan, replacing an existing one, and begin its first stage if its window is open.

    Args:
        audience: its filter, if any, becomes the rollout's; its percentage is ignored.
        url: of this API, for the URLs that devices receive.

    Raises:
        Conflict: the build is not current, or its rollout is paused.
        Invalid, TargetsChanged: see `check` and `rollouts.roll_out`.
    """
    start = time.perf_counter()
    check(stages, window)
    with db.transaction() as tx:
        rows = tx.execute(_LOCK, {"build_id": build.build_id})
        if not rows or not rows[0]["is_current"]:
            raise Conflict(f"Build {build.build_id} is not current. Promote it first.")
        if rows[0]["paused_at"] is not None:
            raise Conflict("The rollout is paused. Resume it first.")
        plan = Plan(
            id=uuid.uuid4().hex[:8],
            stages=stages,
            window=window,
            install=install,
            public_url=url,
            made_at=rows[0]["now"],
            made_by=actor.name,
        )
        if audience.filter is not None or audience.expect_target_hash is not None:
            rollouts.refilter(tx, build, structs.replace(audience, percent=rows[0]["percent"]), actor)
        tx.execute(_BEGIN, {"build_id": build.build_id, "plan": msgspec.json.encode(plan).decode()})
        after = {"stages": msgspec.to_builtins(stages), "window": msgspec.to_builtins(window), "install": install}
        events.record(tx, actor, "build.plan", f"build:{build.build_id}", after=after)
        [row] = tx.execute(statement(__package__, "due_plans"), {"build_id": build.build_id})
        _step(tx, row, actor, config)
    keys = {"build_id": build.build_id, "rollout": "plan", "by": actor.name}
    logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))


def advance(db: Database, config: Settings, actor: Actor) -> int:
    """Advance every due plan by one stage; return how many advanced. Concurrent sweeps wait for each other."""
    start = time.perf_counter()
    steps = 0
    for build_id in [row["build_id"] for row in db.execute(_GOING_ON, repeatable=True)]:
        with db.transaction() as tx:
            # No row: another sweep has locked it, or it has ended in the meantime.
            for row in tx.execute(statement(__package__, "due_plans"), {"build_id": build_id}):
                if _step(tx, row, actor, config):
                    steps += 1
                    keys = {"build_id": build_id, "rollout": "stage", "by": actor.name}
                    logs.db_operation("update", "apk_versions", keys, elapsed_ms(start))
    metrics.count("RolloutStages", steps)
    return steps


def shown(build: StoredBuild) -> PlanStatus | None:
    """The plan of a build, or None."""
    if build.plan is None or build.plan_stage is None or build.plan_stage_at is None:
        return None
    plan = msgspec.convert(build.plan, Plan)
    return PlanStatus(
        stages=plan.stages,
        window=plan.window,
        install=plan.install,
        made_at=plan.made_at,
        made_by=plan.made_by,
        stage=build.plan_stage + 1,
        stage_at=build.plan_stage_at,
        ended_at=build.plan_ended_at,
        end=build.plan_end,
    )


def is_due(plan: Plan, stage: int, stage_at: datetime, asked: int, completed: int, now: datetime) -> bool:
    """Whether the next stage begins now: the hold is over, enough are completed, and the window is open."""
    if plan.window is not None and plan.window.end(now) is None:
        return False
    if stage < 0:
        return True
    running = plan.stages[stage]
    if running.hold_hours is None or now < stage_at + timedelta(hours=running.hold_hours):
        return False
    return 100 * completed >= running.min_completed_percent * asked


def ttl_seconds(plan: Plan, now: datetime) -> int:
    """How long an install of this stage may be sent: until the window ends, at most a day."""
    end = plan.window.end(now) if plan.window else None
    if end is None:
        return INSTALL_TTL_SECONDS
    return max(LEAST_TTL_SECONDS, min(INSTALL_TTL_SECONDS, int((end - now).total_seconds())))


def _step(tx: Executor, row: Row, actor: Actor, config: Settings) -> bool:
    """Begin the next stage of a locked build if it is due. The last stage completes the plan."""
    build = msgspec.convert(row, _Due)
    plan = build.plan
    if not is_due(plan, build.plan_stage, build.plan_stage_at, build.asked, build.completed, build.now):
        return False
    number = build.plan_stage + 1
    percent, last = plan.stages[number].percent, number == len(plan.stages) - 1
    parameters = {
        "build_id": build.build_id,
        "stage": number,
        "percent": percent,
        "end": "completed" if last else None,
        "by": actor.name,
    }
    tx.execute(statement(__package__, "begin_stage"), parameters)
    before, after = {"staged_rollout_percent": build.staged_rollout_percent}, {"staged_rollout_percent": percent}
    told: events.Change = {**after, "stage": number + 1, "of": len(plan.stages)}
    events.record(tx, actor, "build.stage", f"build:{build.build_id}", before=before, after=told)
    if plan.install:
        how = Install(
            request_id=f"stage-{build.build_id}-{plan.id}-{number + 1}",
            base_url=plan.public_url,
            agent_package=config.agent_package,
            ttl_seconds=ttl_seconds(plan, build.now),
        )
        rollouts.ask(tx, build, percent, actor, how, config.heartbeat_interval_seconds)
    return True


def _instant(day: date, at: str, zone: ZoneInfo) -> datetime:
    """A local time as an instant. A skipped local time is moved forward by the length of the gap."""
    return datetime.combine(day, clock.fromisoformat(at), zone).astimezone(UTC)


_LOCK = """
SELECT is_current, paused_at, staged_rollout_percent AS percent, clock_timestamp() AS now FROM apk_versions
WHERE id = %(build_id)s FOR UPDATE
"""

_BEGIN = """
UPDATE apk_versions SET plan = %(plan)s::jsonb, plan_stage = -1, plan_stage_at = clock_timestamp(),
    plan_ended_at = NULL, plan_end = NULL
WHERE id = %(build_id)s
"""

_GOING_ON = """
SELECT id AS build_id FROM apk_versions
WHERE plan IS NOT NULL AND plan_ended_at IS NULL AND is_current AND paused_at IS NULL ORDER BY id
"""
