"""Output: tables and fields for people or JSON for scripts on stdout, notes on stderr."""

import contextlib
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nexmdm_cli.resources import Document, R, Resource

WIDE = 110  # terminal width from which wide columns are shown
GAP = 2
NARROWEST = 8
# Categories of characters that control a terminal, or hide or reorder text.
_CONTROLS = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_HARMLESS = "\n\u200c\u200d"  # the two joiners are part of words in many scripts, and of emoji


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table.

    Attributes:
        show: returns the text for a row.
        wide: omitted in a narrow terminal.
        flexible: truncated in a narrow terminal; other columns are not.
    """

    title: str
    show: Callable[[R], str | Text]
    wide: bool = False
    flexible: bool = False


class Output:
    """as_json: write only JSON to stdout."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    def note(self, text: str) -> None:
        """Print a note for people on stderr."""
        self.notes.print(Text(clean(text)), soft_wrap=True)

    def error(self, message: str, hint: str | None) -> None:
        self.notes.print(Text.assemble(("error: ", "bold red"), clean(message)), soft_wrap=True)
        if hint:
            self.note(hint)

    def json(self, value: Any) -> None:
        _write(_escaped(json.dumps(value, ensure_ascii=False, indent=2)))

    def document(self, text: str) -> None:
        """Print a whole document, such as CSV, unchanged unless to a terminal."""
        _write((clean(text) if sys.stdout.isatty() else text).removesuffix("\n"))

    def stream(self, value: Any) -> None:
        """Print one of several values: as a line of JSON, or with rich."""
        if self.as_json:
            _write(_escaped(json.dumps(value, ensure_ascii=False)))
        else:
            self._print(value)
            sys.stdout.flush()

    def line(self, text: str | Text) -> None:
        """Print a line without wrapping it."""
        self.console.print(text, soft_wrap=True)

    def table(self, rows: Iterable[R], columns: list[Column[R]], nothing: str) -> None:
        """nothing: the note for an empty table."""
        rows = list(rows)
        if self.as_json:
            return self.json([row.document for row in rows])
        if not rows:
            return self.note(nothing)
        self._print(self.rendered(rows, columns))

    def rendered(self, rows: Iterable[R], columns: list[Column[R]]) -> Table:
        chosen = [c for c in columns if not c.wide or not self.is_terminal or self.console.width >= WIDE]
        cells = [[_cell(column.show(row)) for column in chosen] for row in rows]
        widths = [max(len(c.title), *(line[n].cell_len for line in cells), 0) for n, c in enumerate(chosen)]
        if self.is_terminal:
            _fit(widths, [n for n, column in enumerate(chosen) if column.flexible], self.console.width)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for column, width in zip(chosen, widths, strict=True):
            table.add_column(column.title, no_wrap=True, overflow="ellipsis", width=width)
        for line in cells:
            table.add_row(*line)
        return table

    def fields(self, row: Resource | Document, pairs: Sequence[tuple[str, str | Text]]) -> None:
        """Print one object: a line for each field that is not empty."""
        if self.as_json:
            return self.json(row.document if isinstance(row, Resource) else row)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            if str(value):
                table.add_row(name, _cell(value))
        self._print(table)

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show progress on stderr; the yielded function changes the text."""
        if self.notes.is_terminal:
            spinner = "line" if self.notes.options.ascii_only else "dots"
            with self.notes.status(Text(clean(text)), spinner=spinner) as status:
                yield lambda now: status.update(Text(clean(now)))
            return
        said: list[str] = []

        def say(now: str) -> None:
            if said[-1:] != [now]:
                said.append(now)
                self.note(now)

        say(text)
        yield say

    def _print(self, table: Any) -> None:
        if self.is_terminal:
            return self.console.print(table)
        # In a pipe nothing is truncated, and lines have no trailing blanks.
        wide = Console(file=sys.stdout, width=10_000, highlight=False, no_color=True)
        with wide.capture() as captured:
            wide.print(table)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _write(document: str) -> None:
    """Write UTF-8 regardless of the terminal's encoding, because scripts read it."""
    line = document + "\n"
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a text stream that a caller has substituted
        sys.stdout.write(line)
        return
    sys.stdout.flush()
    binary.write(line.encode())
    binary.flush()


def _escaped(document: str) -> str:
    """JSON in which control characters, unpaired surrogates and bidirectional controls are escaped."""
    return "".join(json.dumps(c)[1:-1] if _controls(c) else c for c in document)


def clean(text: str) -> str:
    """Remove terminal control characters, because names come from people and devices."""
    return "".join("�" if _controls(c) else c for c in text)


def _controls(character: str) -> bool:
    return character not in _HARMLESS and unicodedata.category(character) in _CONTROLS


def ago(instant: str | None) -> str:
    """The elapsed time, in one unit."""
    if instant is None:
        return "never"
    seconds = max(0, (datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds())
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} d ago"


def when(instant: str | None) -> str:
    """The instant in local time, and how long ago it was."""
    if instant is None:
        return ""
    local = datetime.fromisoformat(instant).astimezone()
    ahead = local > datetime.now(UTC)
    return f"{local:%Y-%m-%d %H:%M:%S}" + ("" if ahead else f" ({ago(instant)})")


def duration(seconds: int | None) -> str:
    """A duration in days and hours, or hours and minutes."""
    if seconds is None:
        return ""
    minutes = seconds // 60
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def shown(value: Any, unit: str = "") -> str:
    """A value for people: booleans as yes and no, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}{unit}"
    return f"{value}{unit}" if not isinstance(value, dict | list) else json.dumps(value, ensure_ascii=False)


def _fit(widths: list[int], flexible: list[int], room: int) -> None:
    """Narrow the widest flexible columns until the table fits or they have reached their minimum."""
    while flexible and sum(widths) + GAP * (len(widths) - 1) > room:
        widest = max(flexible, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            return
        widths[widest] -= 1


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(clean(value))
