"""Partitions of device_heartbeats: retention is a drop, and no heartbeat waits for one to be made.

A partition is made as a table of its own and attached, which lets heartbeats go on (CREATE .. PARTITION OF would stop
them); whatever needs a lock that heartbeats feel waits LOCK_TIMEOUT for it at most, lets them pass and tries again.
Rows that found no partition are in the default one; they move into theirs when it is made.
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

# Six hours: see docs/migrations.md for the measurements. migrations/adoption cuts an old server's rows the same way.
WIDTH = timedelta(hours=6)
AHEAD = timedelta(days=7)
LOCK_TIMEOUT = "500ms"
TRIES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRY_AGAIN = {errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED}


class Kept(Named):
    """Why something past its time was not removed; a cleanup's answer holds the text."""


class Changed(Kept):
    """A partition is not what was archived of it."""


def name(start: datetime) -> str:
    return f"device_heartbeats_p{start:%Y%m%d%H}"


def wanted(now: datetime, settings: Settings) -> list[datetime]:
    """The starts of the partitions that cover retention and one bucket back, and a week ahead."""
    oldest = now - timedelta(days=settings.heartbeat_retention_days, seconds=settings.heartbeat_bucket_seconds)
    start = start_of(oldest)
    count = -((start - now - AHEAD) // WIDTH)
    return [start + n * WIDTH for n in range(count)]


def ensure_partitions(db: Executor, settings: Settings) -> int:
    """Make the partitions that are missing and return how many were made. Safe to run at any time, by many at once.

    Raises:
        Unavailable: the locks were not to be had; what was made stays.
    """
    now = db.execute("SELECT clock_timestamp() AS now", repeatable=True)[0]["now"]
    present = {partition.name for partition in bounds(db)}
    missing = [start for start in wanted(now, settings) if name(start) not in present]
    for start in missing:
        _make(db, start)
    return len(missing)


def make_for_default(db: Executor, before: datetime) -> Iterator[str]:
    """Make partitions for rows that found none and whose partition would be over before then; the names, as made."""
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
    """Holds the heartbeats of `lower` and later, and earlier than `upper`."""

    name: str
    lower: datetime
    upper: datetime


def bounds(db: Executor) -> list[Partition]:
    """Every partition but the default one, oldest first."""
    return typed(db.execute(_BOUNDS, repeatable=True), Partition)


def in_default(db: Executor) -> int:
    """How many heartbeats found no partition. Above 0 means that nothing has made partitions for a week."""
    return int(db.execute("SELECT count(*) AS n FROM device_heartbeats_default", repeatable=True)[0]["n"])


def blocks(db: Executor, partition: str) -> int:
    """How many blocks the partition has now; 0 when it is gone."""
    return int(db.execute(_BLOCKS, {"name": partition}, repeatable=True)[0]["blocks"])


def drop(db: Executor, partition: str, archived: int | None = None) -> int:
    """Add one partition's hours to device_history, drop it, and return how many rows it held.

    Not DETACH CONCURRENTLY, which is refused beside a default partition. A second caller who comes too late, or while
    another is at it, gets 0.

    Args:
        archived: how many rows an archive holds.

    Raises:
        Changed: the partition does not hold as many rows as the archive.
        Unavailable: the locks were not to be had.
    """
    expected = "NULL" if archived is None else str(archived)
    try:
        rows = int(db.execute(f'SELECT count(*) AS n FROM "{partition}"', repeatable=True)[0]["n"])
        db.execute(_DROP.replace("{name}", partition).replace("{expected}", expected))
    except Exception as error:
        if _sqlstate(error) == errorcodes.OBJECT_NOT_IN_PREREQUISITE_STATE:
            raise Changed(
                f"{partition} got rows after it was archived. It stays; the next cleanup archives it again."
            ) from error
        if not is_gone(error) and _sqlstate(error) != errorcodes.OBJECT_IN_USE:
            raise
        return 0
    return rows


def is_gone(error: Exception) -> bool:
    """Whether a statement failed because its partition was dropped meanwhile."""
    return _sqlstate(error) == errorcodes.UNDEFINED_TABLE


def patiently(attempt: Callable[[], object]) -> object:
    """Run what needs a lock, again after a pause when it was not to be had in time."""
    for left in reversed(range(TRIES)):
        try:
            return attempt()
        except Exception as error:
            if _sqlstate(error) not in _TRY_AGAIN or not left:
                raise
        time.sleep(random.uniform(0.05, 0.25) * (TRIES - left))  # noqa: S311 (spreads retries, keeps no secret)
    raise AssertionError("unreachable")


def _sqlstate(error: BaseException) -> str | None:
    """Of the driver's error, be it wrapped by `Database` or by SQLAlchemy."""
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

# The rows move before any lock that heartbeats feel is taken. Then the parent is locked: a heartbeat that had already
# been routed to the default partition would find itself in the wrong one and fail. Then devices, since attaching adds a
# foreign key; this is the order in which a heartbeat takes them. The few rows that came meanwhile move last. The check
# spares the attachment a scan. Two makers take turns; the second finds the partition there.
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
