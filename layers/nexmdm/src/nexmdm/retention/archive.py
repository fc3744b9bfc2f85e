"""The archive of heartbeats: each partition is written to S3 as one file before it is dropped.

The file is named after the partition and its folder after the day, in the layout that Athena and DuckDB expect. The
manifest's name begins with an underscore, so that Athena ignores it. There is no record of what was written: a
partition that still exists is written again under the same name.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from itertools import chain

from nexmdm.heartbeats.partitions import Partition
from nexmdm.retention import files
from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms, statement
from nexmdm.runtime.settings import Settings

PREFIX = "device_heartbeats/"  # the only prefix that the function may write to
BATCH = 10_000  # rows in memory; about 5 MB of lines


def of(db: Executor, settings: Settings) -> Callable[[Partition], int] | None:
    """A function that archives a partition; None if heartbeats are not archived."""
    bucket = settings.heartbeat_export_bucket
    return partial(_archived, db, settings, bucket) if bucket else None


def _archived(db: Executor, settings: Settings, bucket: str, partition: Partition) -> int:
    """Write a partition and return its number of rows. An empty partition gets no file.

    Raises:
        NotWritten: S3 rejected it or could not be reached.
    """
    columns = db.execute(_COLUMNS, {"partition": partition.name}, repeatable=True)
    lines = _lines(db, partition.name, columns)
    first = next(lines, None)
    if first is None:
        return 0
    start, lower = time.perf_counter(), partition.lower.astimezone(UTC)
    folder = f"{PREFIX}day={lower:%Y-%m-%d}/"
    names = (f"{folder}{partition.name}.jsonl.gz", f"{folder}_{partition.name}.manifest.json")
    facts = {
        "table": "device_heartbeats",
        "from": lower,
        "to": partition.upper.astimezone(UTC),
        "schema": columns,
    }
    rows = files.write(settings, bucket, names, chain([first], lines), facts)
    logs.db_operation("archive", "device_heartbeats", {"file": names[0], "rows": rows}, elapsed_ms(start))
    return rows


def _lines(db: Executor, partition: str, columns: list[Row]) -> Iterator[tuple[int, bytes]]:
    """Read rows in batches, each with its own statement, so that none is open while S3 is called."""
    listed = ", ".join(_value(column) for column in columns)
    sql = _LINES.replace("{columns}", listed).replace("{partition}", partition)
    after = None
    while (found := db.execute(sql, {"after": after, "batch": BATCH}, repeatable=True)[0])["last"] is not None:
        after = found["last"]
        yield found["rows"], found["lines"].encode() + b"\n"


def _value(column: Row) -> str:
    """Times in UTC regardless of the session's zone; everything else in PostgreSQL's JSON format."""
    if column["type"] != "timestamp with time zone":
        return f'"{column["name"]}"'
    form = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
    return f"""to_char("{column["name"]}" AT TIME ZONE 'UTC', {form}) AS "{column["name"]}\""""


_COLUMNS = """
SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
WHERE attrelid = to_regclass(%(partition)s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

_LINES = statement(__package__, "heartbeat_lines")
