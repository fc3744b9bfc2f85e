"""The instants of a schedule, compared with a reference that walks through a year in quarters of an hour."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from nexmdm.commands import instants
from nexmdm.runtime.errors import Invalid

# Both hemispheres, a half-hour change, a change at midnight, 45-minute offsets, and a zone without changes.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Beirut", "Asia/Kathmandu",
    "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Chatham",
]  # fmt: skip
STEP = timedelta(minutes=15)
# (expression, minutes, hours, days of the month, weekdays with Monday as 0; None means any)
CRONS = [
    ("30 2 * * *", {30}, {2}, None, None),
    ("0 0 * * *", {0}, {0}, None, None),
    ("15,45 1-3 * * *", {15, 45}, {1, 2, 3}, None, None),
    ("0 3 * * 0", {0}, {3}, None, {6}),
    ("30 2 29 * *", {30}, {2}, {29}, None),
    ("*/30 * * * *", {0, 30}, None, None, None),
    ("45 * * * *", {45}, None, None, None),
    ("*/30 2 * * *", {0, 30}, {2}, None, None),
    ("0 */6 * * *", {0}, {0, 6, 12, 18}, None, None),
]
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


class Walk(NamedTuple):
    """minutes: (instant, local time) of every step. all: what the clock shows at each step, as (instant, minute, hour,
    day, weekday). once: the same, but with a repeated time once and a skipped time at the next instant.
    """

    zone: str
    minutes: list[tuple[datetime, datetime]]
    all: list[tuple[datetime, int, int, int, int]]
    once: list[tuple[datetime, int, int, int, int]]


def shown(instant: datetime, local: datetime) -> tuple[datetime, int, int, int, int]:
    return instant, local.minute, local.hour, local.day, local.weekday()


@pytest.fixture(scope="module", params=ZONES)
def year(request) -> Walk:
    """Walk from a day before the year to a day after it.

    The zones are pinned: the machine's own may follow the rules of another year.
    """
    zone, minutes, instant = instants.zone_of(request.param), [], START - timedelta(days=1)
    while instant <= END + timedelta(days=1):
        minutes.append((instant, instant.astimezone(zone).replace(tzinfo=None)))
        instant += STEP
    once, latest = [], minutes[0][1]
    for instant, local in minutes[1:]:
        # Every local time since the latest one seen. A repeated time was seen before; a gap contains several.
        passed = latest + STEP
        while passed <= local:
            once.append(shown(instant, passed))
            passed += STEP
        latest = max(latest, local)
    return Walk(request.param, minutes, [shown(*both) for both in minutes[1:]], once)


@pytest.mark.parametrize("cron", CRONS, ids=lambda cron: cron[0])
def test_instants_of_a_year_agree_with_the_reference(year, cron):
    expression, minutes, hours, days, weekdays = cron
    wildcard = any(field.startswith("*") for field in expression.split()[:2])
    expected = {
        instant
        for instant, minute, hour, day, weekday in (year.all if wildcard else year.once)
        if (minutes is None or minute in minutes)
        and (hours is None or hour in hours)
        and (days is None or day in days)
        and (weekdays is None or weekday in weekdays)
    }
    found = instants.between(expression, year.zone, START, END)
    assert found == sorted(instant for instant in expected if START < instant <= END)


def test_year_contains_the_clock_changes_of_each_zone(year):
    """The year must contain both changes of every zone with daylight saving time, or it would prove nothing."""
    jumps = [second[1] - first[1] for first, second in itertools.pairwise(year.minutes)]
    forward, back = (any(jump > STEP for jump in jumps), any(jump < timedelta(0) for jump in jumps))
    fixed = year.zone in ("UTC", "Asia/Kathmandu")
    assert (forward, back) == ((False, False) if fixed else (True, True))


def test_one_time_schedule_has_one_instant():
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert instants.between(at, "UTC", START, END) == [at]
    assert instants.between(at, "UTC", at, END) == []


def test_skipped_or_repeated_local_time_has_one_instant():
    skipped, repeated = datetime(2026, 3, 29, 2, 30), datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001
    assert instants.instant_of(skipped, "Europe/Berlin") == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert instants.instant_of(repeated, "Europe/Berlin") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timing", "zone", "field"),
    [
        ("* * * *", "UTC", "$.cron"),
        ("60 * * * *", "UTC", "$.cron"),
        ("0 0 30 2 *", "UTC", "$.cron"),
        ("@daily", "UTC", "$.cron"),
        ("0 0 * * *\n", "UTC", "$.cron"),
        ("0 3 * * *", "Europe/Nowhere", "$.timezone"),
        ("0 3 * * *", "../../etc/passwd", "$.timezone"),
        (datetime(2025, 1, 1, tzinfo=UTC), "UTC", "$.at"),
    ],
)
def test_timing_that_never_comes_or_is_unreadable_is_refused(timing, zone: str, field: str):
    with pytest.raises(Invalid) as refused:
        instants.check(timing, zone, START)
    assert refused.value.detail.startswith(field)
