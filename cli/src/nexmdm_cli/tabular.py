"""CSV files: devices with device_id, alias, labels (one JSON column) and informational columns, and other tables."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from nexmdm_cli import inputs
from nexmdm_cli.api import Body
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.resources import Device, Document

WRITTEN = ("device_id", "alias", "labels")
READ_ONLY = ("online", "last_seen_at", "agent_version", "manufacturer", "model", "android_version", "created_at")
# Characters that begin a formula in a spreadsheet: OWASP's list, and the full-width forms of its characters.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
MAX_BODY_BYTES = 1024 * 1024
MAX_ROWS = 10_000
# The number of a line, and what it asks the API for.
Line: TypeAlias = tuple[int, Body]


def written(devices: Iterable[Device]) -> str:
    """The devices as a CSV document with a header line, which `read` can parse."""
    rows = (
        {**device.document, "labels": json.dumps(device.labels, ensure_ascii=False, sort_keys=True)}
        for device in devices
    )
    return table(rows, (*WRITTEN, *READ_ONLY))


def table(rows: Iterable[Document], columns: Sequence[str]) -> str:
    """Rows as a CSV document with a header line. Every CSV file is written by this function.

    As OWASP recommends, each text is escaped by `_defused` and quoted, so that a line break in it does not begin a new
    row.
    """
    text = io.StringIO()
    text.write(",".join(columns) + "\n")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        values = (row.get(name) for name in columns)
        writer.writerow([_defused(value) if isinstance(value, str) else value for value in values])
    return text.getvalue()


def _defused(value: str) -> str:
    """The text with a leading apostrophe if a spreadsheet would read it as a formula; some texts come from phones.

    A text that begins with apostrophes followed by a formula gets one more, so that `_original` can remove it.
    """
    return f"'{value}" if value.lstrip("'").startswith(FORMULA) else value


def _original(cell: str) -> str:
    """The original text of a cell written by `_defused`."""
    return cell[1:] if cell.startswith("'") and _defused(cell) != cell else cell


def read(document: bytes) -> tuple[list[Line], list[str]]:
    """Parse a file into ([(line, row for the API)], [errors of lines]).

    Raises:
        Failure: it is not a CSV file with the columns of an export.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"The file is not UTF-8 at byte {error.start}.", Code.USAGE, "Save it as UTF-8.") from None
    heading = text.partition("\n")[0]
    # The separator that spreadsheets use where the comma is the decimal separator.
    separator = ";" if ";" in heading and "," not in heading else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns = reader.fieldnames or []
    if not {"device_id", "alias"} & set(columns):
        raise Failure(
            "The first line names neither device_id nor alias.",
            Code.USAGE,
            "`nexmdm devices export --csv` writes such a file.",
        )
    rows: list[Line] = []
    errors: list[str] = []
    try:
        for row in reader:
            line = reader.line_num
            if None in row:
                errors.append(f"line {line}: the line has more cells than the first line has names")
                continue
            try:
                rows.append((line, _row(row)))
            except ValueError as error:
                errors.append(f"line {line}: labels: {error}")
    except csv.Error as error:
        raise Failure(f"line {reader.line_num}: {error}.", Code.USAGE) from None
    return rows, errors


def chunks(rows: list[Line]) -> Iterator[list[Line]]:
    """The rows in parts that fit into one request."""
    part: list[Line] = []
    size = 0
    for row in rows:
        more = len(json.dumps(row[1]).encode()) + 2
        if part and (size + more > MAX_BODY_BYTES - 100 or len(part) == MAX_ROWS):
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    if part:
        yield part


def _row(row: dict[str, str | None]) -> Body:
    found: Body = {name: _original(cell) for name in ("device_id", "alias") if (cell := row.get(name))}
    if row.get("labels"):
        labels = inputs.document(row["labels"] or "")
        if not isinstance(labels, dict):
            raise ValueError('it is not a JSON object such as {"site": "berlin"}')
        found["labels"] = labels
    return found
