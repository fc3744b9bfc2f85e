"""One row of a table: the measurement, the floor of the same run, their ratio, and the bar for it."""

from statistics import median, quantiles

import msgspec
from rich.console import Console
from rich.table import Table

ABSENT = "not measured"


class Figure(msgspec.Struct, kw_only=True):
    """floor, measured: in `unit`; None if absent. bar: the limit of the ratio as text, such as `<= 1.4`.

    spread: the relative difference of the ratio between parts of the run.
    """

    what: str
    against: str
    floor: float | None = None
    measured: float | None = None
    unit: str = ""
    ratio: float | None = None
    spread: float = 0
    lower_is_better: bool = True
    bar: str
    met: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.bar == "none" else "met" if self.met else "MISSED"


def at_most(
    bar: float, what: str, against: str, floor: float, measured: float, unit: str, note: str = "", spread: float = 0
) -> Figure:
    """The ratio measured : floor must not be above `bar`."""
    return _ruled(
        f"<= {bar}", bool(floor) and measured / floor <= bar, what, against, floor, measured, unit, note, spread
    )


def at_least(
    bar: float, what: str, against: str, floor: float, measured: float, unit: str, note: str = "", spread: float = 0
) -> Figure:
    """The ratio measured : floor must not be below `bar`; both are rates."""
    met = bool(floor) and measured / floor >= bar
    figure = _ruled(f">= {bar}", met, what, against, floor, measured, unit, note, spread)
    return msgspec.structs.replace(figure, lower_is_better=False)


def compared(
    what: str, against: str, floor: float, measured: float, unit: str, note: str = "", spread: float = 0
) -> Figure:
    """A ratio without a bar; for rates (a unit of `/s`) more is better."""
    figure = _ruled("none", True, what, against, floor, measured, unit, note, spread)
    return msgspec.structs.replace(figure, lower_is_better=not unit.endswith("/s"))


def counted(what: str, measured: float, exactly: float, unit: str, note: str = "") -> Figure:
    """A count, which must be exact."""
    met = measured == exactly
    return Figure(what=what, against="counted", measured=measured, unit=unit, bar=f"= {exactly:g}", met=met, note=note)


def below(what: str, measured: float, limit: float, unit: str, note: str = "") -> Figure:
    """An absolute limit."""
    met = measured <= limit
    return Figure(
        what=what, against="", measured=round(measured, 2), unit=unit, bar=f"<= {limit:g} {unit}", met=met, note=note
    )


def absent(what: str, why: str) -> Figure:
    """A row that could not be measured, which counts as missed."""
    return Figure(what=what, against="", bar=ABSENT, met=False, note=why)


def percentile(values: list[float], share: int) -> float:
    """share: 1..99, percent; 0 when there are no values."""
    return quantiles(values * 2 if len(values) == 1 else values or [0, 0], n=100, method="inclusive")[share - 1]


def spread(milliseconds: list[float]) -> dict[str, float]:
    """count, p50, p95, p99, max."""
    figures = {"p50": median(milliseconds or [0]), "max": max(milliseconds or [0])}
    figures |= {f"p{share}": percentile(milliseconds, share) for share in (95, 99)}
    return {"count": len(milliseconds), **{name: round(value, 3) for name, value in figures.items()}}


def print_table(console: Console, title: str, figures: list[Figure]) -> None:
    table = Table("what", "floor", "", "measured", "ratio", "bar", "", title=title, title_justify="left")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        what = f"{figure.what}\n[dim]{figure.note}[/dim]" if figure.note else figure.what
        colour = "green" if figure.met else "red"
        values = (_with_unit(figure.floor, figure.unit), _with_unit(figure.measured, figure.unit))
        verdict = f"[{colour}]{figure.verdict}[/{colour}]"
        table.add_row(what, figure.against, *values, ratio, figure.bar, verdict)
    console.print(table)


def _ruled(
    bar: str,
    met: bool,
    what: str,
    against: str,
    floor: float,
    measured: float,
    unit: str,
    note: str,
    spread: float,
) -> Figure:
    ratio = round(measured / floor, 3) if floor else None
    return Figure(
        what=what,
        against=against,
        floor=_rounded(floor),
        measured=_rounded(measured),
        unit=unit,
        ratio=ratio,
        spread=round(spread, 3),
        bar=bar,
        met=met,
        note=note,
    )


def _rounded(value: float) -> float:
    return round(value, 3) if value < 100 else round(value)


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:{',.0f' if value >= 1000 else ',g'}} {unit}"
