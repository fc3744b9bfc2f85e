"""A device's history: its heartbeats within retention, and before that one row per hour for 90 days.

Cleanup adds reports to device_history in the transaction that removes them (`SUMMARIZE`), so each report is in exactly
one of the two at any time, and a query of both counts it once.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct, defstruct

from nexmdm.devices.fields import CHARTED, Field, sql_type
from nexmdm.runtime.database import Executor, statement
from nexmdm.runtime.errors import Invalid, UnknownDevice
from nexmdm.runtime.validation import Instant

MOST_POINTS = 10_000
_SECOND_DAY = datetime(1, 1, 2, tzinfo=UTC)  # no earlier instant has a day before it


class HistoryQuery(Struct, kw_only=True):
    """`from` and `to` limit the period, by default to the last day; a point is an hour or a day in UTC."""

    from_: Instant | None = msgspec.field(default=None, name="from")
    to: Instant | None = None
    step: Literal["hour", "day"] = "hour"

    def bounds(self) -> tuple[datetime, datetime]:
        """The period.

        Raises:
            Invalid: `from` is not before `to`, or there would be too many points.
        """
        to = self.to or datetime.now(UTC)
        begin = self.from_ or max(to, _SECOND_DAY) - timedelta(days=1)
        if begin >= to:
            raise Invalid("query.from", "must be before `to`")
        length = timedelta(hours=1) if self.step == "hour" else timedelta(days=1)
        if (to - begin) / length > MOST_POINTS:
            raise Invalid("query.from", f"asks for more than {MOST_POINTS} points; choose step=day or a shorter period")
        return begin, to


class WholeRange(Struct, kw_only=True):
    """A field of whole numbers over an hour or a day; null if no report had it. `last` is from the last report."""

    min: int | None
    max: int | None
    last: int | None


class Range(Struct, kw_only=True):
    """A field over an hour or a day; null if no report had it. `last` is from the last report."""

    min: float | None
    max: float | None
    last: float | None


def _range(field: Field) -> type[Struct]:
    return Range if sql_type(field) == "double precision" else WholeRange


if TYPE_CHECKING:

    class DevicePoint(Struct):
        """Made of the declarations."""

        at: datetime
        reports: int

else:
    DevicePoint = defstruct(
        "DevicePoint",
        [
            ("at", Annotated[datetime, Meta(tz=True, description="when the hour or the day (in UTC) began")]),
            ("reports", Annotated[int, Meta(ge=1, description="number of reports from the device")]),
            *((field.name, Annotated[_range(field), Meta(description=field.about)]) for field in CHARTED),
        ],
        module=__name__,
        kw_only=True,
        namespace={"__doc__": "What a device reported over one hour or one day."},
    )


class DeviceHistory(Struct):
    """Points in chronological order; an hour without a report is absent."""

    points: list[DevicePoint]


def show(db: Executor, device_id: str, query: HistoryQuery) -> DeviceHistory:
    """A device's history between two times, within the last 90 days.

    Raises:
        Invalid: the period is invalid.
        UnknownDevice: there is no such device.
    """
    begin, to = query.bounds()
    values = {"device_id": device_id, "from": begin, "to": to, "step": query.step}
    rows = db.execute(_SHOW, values, repeatable=True)
    if not rows and not db.execute(_EXISTS, {"device_id": device_id}, repeatable=True):
        raise UnknownDevice(f"There is no device {device_id!r}.")
    return DeviceHistory(msgspec.convert(rows, list[DevicePoint]))


def _each(template: str) -> str:
    return ", ".join(template.format(field.name) for field in CHARTED)


_COLUMNS = _each("{0}_min, {0}_max, {0}_last")
_EXISTS = "SELECT id FROM devices WHERE id = %(device_id)s"

# Adds the reports of `{rows}` to the history.
SUMMARIZE = (
    statement(__package__, "summarize")
    .replace("{columns}", _COLUMNS)
    .replace("{values}", _each("min({0}), max({0}), (array_agg({0} ORDER BY ts DESC))[1]"))
    .replace(
        "{merged}",
        _each(
            "{0}_min = least(h.{0}_min, EXCLUDED.{0}_min), {0}_max = greatest(h.{0}_max, EXCLUDED.{0}_max),"
            " {0}_last = CASE WHEN EXCLUDED.last_ts >= h.last_ts THEN EXCLUDED.{0}_last ELSE h.{0}_last END"
        ),
    )
)

_SHOW = (
    statement(__package__, "device_history")
    .replace("{columns}", _COLUMNS)
    .replace("{reported}", _each("{0}, {0}, {0}"))
    .replace(
        "{values}",
        _each(
            "json_build_object('min', min({0}_min), 'max', max({0}_max),"
            " 'last', (array_agg({0}_last ORDER BY last_ts DESC))[1]) AS {0}"
        ),
    )
)
