"""Partitions of device_heartbeats: retention drops partitions, and no heartbeat waits for the creation of one.

A partition is created as a separate table and then attached, which does not block heartbeats (CREATE .. PARTITION OF
would). A statement that needs a lock which blocks heartbeats waits at most LOCK_TIMEOUT for it, lets heartbeats proceed
and tries again. Rows without a matching partition are in the default one, and are moved when their partition is
created.
"""

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from msgspec import Struct
from psycopg2 import errorcodes

from nexmdm.heartbeats import history
from nexmdm.runtime.database import Executor, statement, typed
from nexmdm.runtime.errors import Named
from nexmdm.runtime.settings import Settings

# Six hours: see docs/migrations.md for the measurements. migrations/adoption uses the same width for the rows of an old
# server.
WIDTH = timedelta(hours=6)
AHEAD = timedelta(days=7)
LOCK_TIMEOUT = "500ms"
TRIES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRY_AGAIN = {errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED}


class Kept(Named):
    """The reason why something past its retention was not removed; part of the cleanup's result."""


class Changed(Kept):
    """A partition differs from its archive."""


def name(start: datetime) -> str:
    return f"device_heartbeats_p{start:%Y%m%d%H}"


def wanted(now: datetime, settings: Settings) -> list[datetime]:
    """The starts of the partitions from the beginning of retention, less one bucket, to a week ahead."""
    oldest = now - timedelta(days=settings.heartbeat_retention_days, seconds=settings.heartbeat_bucket_seconds)
    start = start_of(oldest)
    count = -((start - now - AHEAD) // WIDTH)
    return [start + n * WIDTH for n in range(count)]


def ensure_partitions(db: Executor, settings: Settings) -> int:
    """Create missing partitions and return how many were created. May run at any time, even concurrently.

    Raises:
        Unavailable: the locks could not be acquired; partitions that were created stay.
    """
    now = db.execute("SELECT clock_timestamp() AS now", repeatable=True)[0]["now"]
    present = {partition.name for partition in bounds(db)}
    missing = [start for start in wanted(now, settings) if name(start) not in present]
    for start in missing:
        _make(db, start)
    return len(missing)


def make_for_default(db: Executor, before: datetime) -> Iterator[str]:
    """Create partitions for rows in the default partition whose partition would end before `before`; yield the
    names."""
    made = None
    while oldest := db.execute("SELECT min(bucket) AS at FROM device_heartbeats_default", repeatable=True)[0]["at"]:
        start = start_of(oldest)
        if start + WIDTH > before or start == made:
            return
        _make(db, start)
        made = start
        yield name(start)


def start_of(bucket: datetime) -> datetime:
    """The start of the partition that a bucket belongs to."""
    return _EPOCH + (bucket - _EPOCH) // WIDTH * WIDTH


def _make(db: Executor, start: datetime) -> None:
    make = _MAKE.format(name=name(start), lower=start.isoformat(), upper=(start + WIDTH).isoformat())
    patiently(partial(db.execute, make))


class Partition(Struct, frozen=True):
    """A partition with the heartbeats from `lower` to before `upper`."""

    name: str
    lower: datetime
    upper: datetime


def bounds(db: Executor) -> list[Partition]:
    """Every partition except the default one, oldest first."""
    return typed(db.execute(_BOUNDS, repeatable=True), Partition)


def in_default(db: Executor) -> int:
    """The number of heartbeats in the default partition. Above 0 means that cleanup has not run for a week."""
    return int(db.execute("SELECT count(*) AS n FROM device_heartbeats_default", repeatable=True)[0]["n"])


def blocks(db: Executor, partition: str) -> int:
    """The number of blocks of a partition; 0 if it no longer exists."""
    return int(db.execute(_BLOCKS, {"name": partition}, repeatable=True)[0]["blocks"])


def drop(db: Executor, partition: str, archived: int | None = None) -> int:
    """Add a partition's hours to device_history, drop it, and return how many rows it had.

    DETACH CONCURRENTLY is not possible with a default partition. A second caller, concurrent or later, gets 0.

    Args:
        archived: the number of rows in the archive.

    Raises:
        Changed: the partition has a different number of rows than the archive.
        Unavailable: the locks could not be acquired.
    """
    expected = "NULL" if archived is None else str(archived)
    try:
        rows = int(db.execute(f'SELECT count(*) AS n FROM "{partition}"', repeatable=True)[0]["n"])
        db.execute(_DROP.replace("{name}", partition).replace("{expected}", expected))
    except Exception as error:
        if _sqlstate(error) == errorcodes.OBJECT_NOT_IN_PREREQUISITE_STATE:
            raise Changed(
                f"{partition} got rows after it was archived. It was kept; the next cleanup archives it again."
            ) from error
        if not is_gone(error) and _sqlstate(error) != errorcodes.OBJECT_IN_USE:
            raise
        return 0
    return rows


def is_gone(error: Exception) -> bool:
    """Whether a statement failed because its partition was dropped in the meantime."""
    return _sqlstate(error) == errorcodes.UNDEFINED_TABLE


def patiently(attempt: Callable[[], object]) -> object:
    """Run a function that needs a lock; if it times out, try again after a pause."""
    for left in reversed(range(TRIES)):
        try:
            return attempt()
        except Exception as error:
            if _sqlstate(error) not in _TRY_AGAIN or not left:
                raise
        time.sleep(random.uniform(0.05, 0.25) * (TRIES - left))  # noqa: S311 (spreads retries, keeps no secret)
    raise AssertionError("unreachable")


def _sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of the driver's error, whether wrapped by `Database` or by SQLAlchemy."""
    driver = getattr(error, "orig", None) or error.__cause__ or error
    return getattr(driver, "pgcode", None)


_BOUNDS = """
SELECT child.relname AS name, (found[1])::timestamptz AS lower, (found[2])::timestamptz AS upper
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
CROSS JOIN LATERAL regexp_match(
    pg_get_expr(child.relpartbound, child.oid), 'FROM \\(''(.+)''\\) TO \\(''(.+)''\\)') AS found
WHERE inhparent = 'device_heartbeats'::regclass AND found IS NOT NULL
ORDER BY lower
"""

_BLOCKS = """
SELECT coalesce(pg_relation_size(to_regclass(%(name)s)), 0) / current_setting('block_size')::int AS blocks
"""

# The rows are moved before any lock that blocks heartbeats is taken. Then the parent is locked: otherwise a heartbeat
# already routed to the default partition would be in the wrong one and fail. Then devices, because attaching adds a
# foreign key; heartbeats lock both in the same order. The few rows that arrived in the meantime are moved last. The
# CHECK constraint avoids a scan when attaching. Concurrent callers wait for each other, and the second finds that the
# partition exists.
_MOVE = """
    WITH moved AS (DELETE FROM device_heartbeats_default
                   WHERE bucket >= '{lower}' AND bucket < '{upper}' RETURNING *)
    INSERT INTO {name} SELECT * FROM moved;"""
_MAKE = f"""
DO $$ BEGIN
    SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
    PERFORM pg_advisory_xact_lock(hashtext('nexmdm.partitions'));
    IF to_regclass('{{name}}') IS NOT NULL THEN RETURN; END IF;
    CREATE TABLE {{name}} (LIKE device_heartbeats INCLUDING ALL,
        CONSTRAINT in_range CHECK (bucket >= '{{lower}}' AND bucket < '{{upper}}'));
    {_MOVE}
    LOCK TABLE ONLY device_heartbeats IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE devices IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE device_heartbeats_default IN ACCESS EXCLUSIVE MODE;
    {_MOVE}
    ALTER TABLE device_heartbeats ATTACH PARTITION {{name}} FOR VALUES FROM ('{{lower}}') TO ('{{upper}}');
    ALTER TABLE {{name}} DROP CONSTRAINT in_range;
END $$
"""

_DROP = (
    statement(__package__, "drop_partition")
    .replace("{summarize}", history.SUMMARIZE.replace("{rows}", '"{name}"'))
    .replace("{lock_timeout}", LOCK_TIMEOUT)
    .replace("{tries}", str(TRIES))
)
