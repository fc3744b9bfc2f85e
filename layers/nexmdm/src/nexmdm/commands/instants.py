"""The instants at which a schedule runs: a pure function of its timing, its time zone and an interval.

Daylight saving follows Debian's cron. When minutes or hours begin with `*`, the command runs at each real instant whose
local time matches: never in a skipped hour, twice in a repeated one. Otherwise it runs once per local time: a skipped
local time runs at the first instant after the gap, a repeated one runs the first time.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import islice, takewhile
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from nexmdm.runtime.errors import Invalid

if TYPE_CHECKING:
    from cronsim import CronSim

# Shorter than the time between any two changes of a zone's offset.
_STEP = timedelta(hours=12)
_SECOND = timedelta(seconds=1)
_CRON = re.compile(r"[\w*/,#-]+(?: [\w*/,#-]+){4}", re.ASCII)


def between(timing: str | datetime, timezone: str, after: datetime, until: datetime) -> list[datetime]:
    """The instants (UTC, ascending) after `after`, up to and including `until`.

    Args:
        timing: a cron expression with five fields, or a single instant.
        timezone: an IANA name.
    """
    return list(takewhile(lambda instant: instant <= until, following(timing, timezone, after)))


def following(timing: str | datetime, timezone: str, after: datetime) -> Iterator[datetime]:
    """The instants after `after`, without end for most cron expressions."""
    if isinstance(timing, datetime):
        yield from (instant for instant in (timing.astimezone(UTC),) if instant > after)
        return
    zone = zone_of(timezone)
    minute, hour = timing.split()[:2]
    found = _at_each_instant if minute.startswith("*") or hour.startswith("*") else _once_per_local_time
    last = None
    for instant in found(timing, zone, after.astimezone(UTC)):
        if instant > after and instant != last:
            yield instant
            last = instant


def check(timing: str | datetime, timezone: str, now: datetime) -> datetime:
    """Validate a requested timing and return its first instant.

    Raises:
        Invalid: the zone is unknown, the expression is invalid or never runs, or the instant is in the past.
    """
    zone_of(timezone)
    if isinstance(timing, str):
        _check_cron(timing)
    first = next(following(timing, timezone, now), None)
    if first is None:
        at = isinstance(timing, datetime)
        raise Invalid("$.at", "is in the past") if at else Invalid("$.cron", "never runs: there is no such day")
    return first


def next_runs(timing: str | datetime, timezone: str, after: datetime, count: int) -> list[datetime]:
    return list(islice(following(timing, timezone, after), count))


def instant_of(at: datetime, timezone: str) -> datetime:
    """An instant with an offset unchanged; a local time by the rule for skipped and repeated local times.

    Raises:
        Invalid: it is before the year 1 or after 9999 in UTC.
    """
    zone = zone_of(timezone)
    try:
        return at.astimezone(UTC) if at.tzinfo else _instant(at, zone)
    except OverflowError:
        raise Invalid("$.at", "is before the year 1 or after the year 9999 in UTC") from None


@cache
def zone_of(name: str) -> ZoneInfo:
    """The zone from the pinned tzdata, not from the operating system.

    Raises:
        Invalid: there is no such zone.
    """
    from importlib import resources

    files = resources.files("tzdata")
    if name not in _zone_names():
        raise Invalid("$.timezone", "is not an IANA time zone, such as Europe/Berlin or UTC")
    with files.joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _zone_names() -> frozenset[str]:
    from importlib import resources

    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def _check_cron(text: str) -> None:
    from cronsim import CronSimError

    if not _CRON.fullmatch(text):
        raise Invalid("$.cron", "must have five fields, minute hour day month weekday, separated by single spaces")
    try:
        _simulated(text, datetime(2026, 1, 1))  # noqa: DTZ001  a local time
    except CronSimError as error:
        raise Invalid("$.cron", f"is invalid: {error}") from None


def _simulated(text: str, local: datetime) -> "CronSim":
    """Local times after `local`, as if no clock ever changed."""
    from cronsim import CronSim

    return CronSim(text, local)


def _once_per_local_time(text: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    # Starts a day earlier, because a local time skipped in a gap runs after the gap.
    start = after.astimezone(zone).replace(tzinfo=None) - timedelta(days=1)
    return (_instant(local, zone) for local in _simulated(text, start))


def _at_each_instant(text: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Work through periods of constant offset, within which local times and instants differ only by the offset."""
    begin = after - _SECOND
    local, offset = None, timedelta()
    while True:
        end = _end_of_offset(zone, begin)
        offset = _offset(zone, begin)
        first, last = (begin + offset).replace(tzinfo=None), (end + offset).replace(tzinfo=None)
        for local in _simulated(text, first - _SECOND):
            if local >= last:
                break
            yield local.replace(tzinfo=UTC) - offset
        else:
            # There is no such day within the next fifty years.
            return
        # The next local time is far away: skip the changes of the offset in between.
        skipped = local.replace(tzinfo=UTC) - timedelta(days=2)
        begin = max(end, skipped)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == local:
        return first
    # Skipped. With the offset from before the gap it is after the gap, so the end of the gap is earlier.
    return _end_of_offset(zone, first - _STEP)


def _end_of_offset(zone: ZoneInfo, begin: datetime) -> datetime:
    """The instant after `begin` at which the zone's offset changes; at the latest two years later."""
    end = _next_change(zone, begin.replace(hour=0, minute=0, second=0, microsecond=0))
    return end if end > begin else _next_change(zone, end)


@lru_cache(maxsize=1024)
def _next_change(zone: ZoneInfo, begin: datetime) -> datetime:
    """Search for the change in steps. Results are cached: schedules in a list share days and zones."""
    offset, low = _offset(zone, begin), begin
    for n in range(1, 1461):
        high = begin + n * _STEP
        if _offset(zone, high) != offset:
            break
        low = high
    else:
        return low
    while high - low > _SECOND:
        middle = low + (high - low) / 2
        low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
    return high.replace(microsecond=0)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()
