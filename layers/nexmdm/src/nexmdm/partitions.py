"""Partitions of device_heartbeats: retention is a drop, and no heartbeat waits for one to be made."""

from datetime import UTC, datetime, timedelta

from nexmdm.database import Executor
from nexmdm.settings import Settings

WIDTH = timedelta(hours=6)
AHEAD = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def name(start: datetime) -> str:
    return f"device_heartbeats_p{start:%Y%m%d%H}"


def wanted(now: datetime, settings: Settings) -> list[datetime]:
    """The starts of the partitions that cover retention and one bucket back, and a week ahead."""
    oldest = now - timedelta(days=settings.heartbeat_retention_days, seconds=settings.heartbeat_bucket_seconds)
    start = _EPOCH + (oldest - _EPOCH) // WIDTH * WIDTH
    count = -((start - now - AHEAD) // WIDTH)
    return [start + n * WIDTH for n in range(count)]


def ensure_partitions(db: Executor, settings: Settings) -> int:
    """Make the partitions that are missing and return how many were made. Safe to run at any time, by many at once."""
    now = db.execute("SELECT clock_timestamp() AS now", repeatable=True)[0]["now"]
    present = {row["name"] for row in db.execute(_PRESENT, repeatable=True)}
    missing = [start for start in wanted(now, settings) if name(start) not in present]
    for start in missing:
        db.execute(_CREATE.format(name=name(start), lower=start.isoformat(), upper=(start + WIDTH).isoformat()))
    return len(missing)


_PRESENT = """
SELECT child.relname AS name FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'device_heartbeats'::regclass
"""

# IF NOT EXISTS is not enough when two run at once: both may see nothing and one then fails on the catalog's unique key.
_CREATE = """
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('nexmdm.partitions'));
    SET LOCAL lock_timeout = '2s';
    CREATE TABLE IF NOT EXISTS {name} PARTITION OF device_heartbeats FOR VALUES FROM ('{lower}') TO ('{upper}');
END $$
"""
