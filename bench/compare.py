"""Compares two benchmark runs: `make bench COMPARE=ref.json`.

Only ratios and counts are compared. Each ratio is to a floor of the same run, so a slower machine changes neither. A
ratio is worse when it is worse by more than 15 % beyond the larger spread of the two runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.figures import ABSENT, Figure

WORSE = 0.15
Figures = dict[str, list[Figure]]


class Document(msgspec.Struct):
    """The compared parts of the file that `make bench` writes."""

    figures: Figures


class Unreadable(Exception):
    """The reference was not written by `make bench`."""


class Finding(NamedTuple):
    """One row that is worse than in the reference."""

    section: str
    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.section}: {self.what}: {self.how}"


def read(path: Path) -> Figures:
    """The figures of a run.

    Raises:
        Unreadable: there is no such file, or it has another format.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Document).figures
    except (OSError, msgspec.DecodeError) as error:
        raise Unreadable(f"{path} cannot be compared with: {error}") from error


def worse(reference: Figures, now: Figures) -> Iterator[Finding]:
    """The rows of `now` that are worse than in `reference`. Sections that only one run measured are ignored; a row
    that is missing from a section which both measured is a finding, so that no row is lost unnoticed."""
    for section in reference.keys() & now.keys():
        rows = {figure.what: figure for figure in now[section]}
        for before in reference[section]:
            if before.bar == ABSENT:
                continue
            after = rows.get(before.what)
            if after is None or after.bar == ABSENT:
                yield Finding(section, before.what, "was measured in the reference and not in this run")
            elif how := _worse(before, after):
                yield Finding(section, before.what, how)


def _worse(before: Figure, after: Figure) -> str | None:
    if before.against == "counted":
        return f"{before.measured:g}, now {after.measured:g}" if before.met and not after.met else None
    if not before.ratio or not after.ratio:
        return None
    grown = after.ratio / before.ratio if before.lower_is_better else before.ratio / after.ratio
    allowed = (1 + max(before.spread, after.spread)) * (1 + WORSE)
    if grown <= allowed:
        return None
    return f"ratio {before.ratio:.2f}, now {after.ratio:.2f}: worse by {grown - 1:.0%}, {allowed - 1:.0%} are allowed"
