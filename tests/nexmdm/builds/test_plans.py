"""When the next stage of a rollout is due: a pure function of the plan and the clock."""

from datetime import UTC, datetime, timedelta

import pytest
from nexmdm.builds import plans
from nexmdm.builds.plans import Plan, Stage, Window
from nexmdm.runtime.errors import Invalid

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 27, 12, tzinfo=UTC)  # a Friday; clocks in Berlin go forward on Sunday the 29th
STAGES = [Stage(percent=5, hold_hours=24), Stage(percent=25, hold_hours=24), Stage(percent=100)]
NIGHT = Window(timezone="Europe/Berlin", days=["fri", "sat"], from_="22:00", to="04:00")


def plan(window: Window | None = None, stages: list[Stage] | None = None) -> Plan:
    return Plan(
        id="0",
        stages=stages or STAGES,
        window=window,
        install=True,
        public_url="https://mdm.example",
        made_at=START,
        made_by="me",
    )


def berlin(text: str) -> datetime:
    from zoneinfo import ZoneInfo

    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)


# --- windows


@pytest.mark.parametrize(
    ("local", "end"),
    [
        ("2026-03-27 21:59:59", None),
        ("2026-03-27 22:00:00", "2026-03-28 04:00:00"),
        ("2026-03-28 03:59:59", "2026-03-28 04:00:00"),
        ("2026-03-28 04:00:00", None),
        ("2026-03-28 23:00:00", "2026-03-29 04:00:00"),
        ("2026-03-29 03:30:00", "2026-03-29 04:00:00"),  # 5 hours after the window began, because one hour was skipped
        ("2026-03-29 23:00:00", None),  # a Sunday
        ("2026-10-24 23:00:00", "2026-10-25 04:00:00"),
    ],
)
def test_window_is_in_local_time(local: str, end: str | None):
    assert NIGHT.end(berlin(local)) == (berlin(end) if end else None)


def test_window_is_an_hour_shorter_or_longer_when_clocks_change():
    spring = berlin("2026-03-29 04:00") - berlin("2026-03-28 22:00")
    autumn = berlin("2026-10-25 04:00") - berlin("2026-10-24 22:00")
    assert (spring, autumn) == (5 * HOUR, 7 * HOUR)
    for begin, length in (("2026-03-28 22:00", 5), ("2026-10-24 22:00", 7)):
        open_at = [NIGHT.end(berlin(begin) + n * HOUR / 2) is not None for n in range(2 * length + 1)]
        assert open_at == [True] * 2 * length + [False]


@pytest.mark.parametrize(
    ("stage", "hours", "asked", "completed", "due"),
    [
        (-1, 0, 0, 0, True),
        (0, 23.9, 10, 10, False),
        (0, 24, 10, 0, True),
        (0, 24, 0, 0, True),
        (2, 1000, 10, 10, False),
    ],
)
def test_stage_is_due_after_its_hold(stage: int, hours: float, asked: int, completed: int, due: bool):
    assert plans.is_due(plan(), stage, START, asked, completed, START + hours * HOUR) is due


def test_stage_needs_enough_completed_installations():
    stages = [Stage(percent=5, hold_hours=1, min_completed_percent=80), Stage(percent=100)]
    for asked, completed, due in ((10, 7, False), (10, 8, True), (0, 0, True)):
        assert plans.is_due(plan(stages=stages), 0, START, asked, completed, START + HOUR) is due


def test_stage_begins_only_inside_the_window():
    for local, due in (("2026-03-28 21:00", False), ("2026-03-28 22:00", True), ("2026-03-30 23:00", False)):
        assert plans.is_due(plan(NIGHT), 0, START, 0, 0, berlin(local)) is due
    assert plans.is_due(plan(NIGHT), -1, START, 0, 0, START) is False


def test_install_ends_with_the_window():
    assert plans.ttl_seconds(plan(NIGHT), berlin("2026-03-27 23:00")) == 5 * 3600
    assert plans.ttl_seconds(plan(NIGHT), berlin("2026-03-28 03:59:50")) == 60
    assert plans.ttl_seconds(plan(), START) == 86_400


@pytest.mark.parametrize(
    ("stages", "path"),
    [
        ([Stage(percent=5, hold_hours=1), Stage(percent=5)], "$.stages[1].percent"),
        ([Stage(percent=50, hold_hours=1), Stage(percent=5)], "$.stages[1].percent"),
        ([Stage(percent=5), Stage(percent=100)], "$.stages[0].hold_hours"),
        ([Stage(percent=5, hold_hours=1)], "$.stages[0].hold_hours"),
    ],
)
def test_invalid_plan_is_refused_with_its_field(stages: list[Stage], path: str):
    with pytest.raises(Invalid) as refused:
        plans.check(stages, None)
    assert refused.value.detail.startswith(path)


def test_unknown_time_zone_is_refused():
    for zone in ("Europe/Bärlin", "../etc/passwd", "x" * 64):
        with pytest.raises(Invalid, match="IANA"):
            plans.check(STAGES, Window(timezone=zone, days=["mon"], from_="01:00", to="02:00"))
