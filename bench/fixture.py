"""A database at head with devices and heartbeats past their retention.

Devices and heartbeats are made by INSERT .. SELECT generate_series, without triggers and foreign keys, because creating
them is not measured. Everything that is measured uses the product's own verbs.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nexmdm.devices.registry import token_id
from nexmdm.heartbeats.partitions import ensure_partitions
from nexmdm.runtime.database import Database
from nexmdm.runtime.settings import Settings

from local.postgres.embedded import ROOT

RETENTION_DAYS = 2
STEPS = 2_000  # heartbeats of one expired device, over as long as retention is
LIVE_DEVICES = 5_000


@contextmanager
def connected(url: str) -> Iterator[Database]:
    db = Database(url)
    try:
        yield db
    finally:
        db.close()


def migrate(url: str) -> float:
    """Migrate an empty database to head; return the seconds."""
    start = time.monotonic()
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)  # noqa: S603
    return time.monotonic() - start


def token(n: int) -> str:
    return f"live-{n}"


def fill_devices_up_to(url: str, wanted: int) -> None:
    """Create devices up to this number. The tokens of those beyond LIVE_DEVICES are not known."""
    with connected(url) as db:
        db.execute("DELETE FROM devices WHERE substr(id, 6)::int > %(n)s", {"n": wanted})
        with db.transaction():
            # The trigger for FCM tokens takes a lock for each row.
            db.execute("SET LOCAL session_replication_role = replica")
            db.execute(
                "INSERT INTO devices (id, alias, token_id, fcm_token, confirmed_at)"
                " SELECT 'more-' || n, 'more-' || n, encode(sha256(n::text::bytea), 'hex'), 'fcm-' || n, now()"
                " FROM generate_series((SELECT count(*) + 1 FROM devices), %(n)s) AS n",
                {"n": wanted},
            )
        db.execute("ANALYZE devices")


def fill_devices(url: str) -> None:
    ids = [token_id(token(n)) for n in range(LIVE_DEVICES)]
    with connected(url) as db:
        db.execute(
            "INSERT INTO devices (id, alias, token_id, confirmed_at)"
            " SELECT 'live-' || n, 'live-' || n, t, now() FROM unnest(%(ids)s) WITH ORDINALITY AS given(t, n)",
            {"ids": ids},
        )


def fill_expired(url: str, rows: int) -> None:
    """`rows` heartbeats that are 2 to 4 days old, in their regular partitions."""
    devices = max(1, rows // STEPS)
    config = Settings(database_url=url, heartbeat_retention_days=2 * RETENTION_DAYS)
    with connected(url) as db:
        ensure_partitions(db, config)
        db.execute("INSERT INTO devices (id, alias) SELECT 'old-' || n, 'old-' || n FROM generate_series(1, %(n)s) n",
                   {"n": devices})  # fmt: skip
        with db.transaction():
            db.execute("SET LOCAL session_replication_role = replica")
            db.execute(_EXPIRED, {"devices": devices, "steps": STEPS, "days": RETENTION_DAYS})
        db.execute("ANALYZE device_heartbeats")
        db.execute("CHECKPOINT")


def fill_recent(url: str, devices: int, rows: int, days: int) -> None:
    """The last status of every device, and `rows` heartbeats of the last `days`, distributed evenly."""
    with connected(url) as db:
        with db.transaction():
            db.execute("SET LOCAL session_replication_role = replica")
            db.execute(_RECENT, {"devices": devices, "rows": rows, "seconds": days * 86_400})
            db.execute(_STATUSES)
        db.execute("VACUUM ANALYZE")
        db.execute("CHECKPOINT")


def settings(url: str, days: int = RETENTION_DAYS) -> Settings:
    return Settings(database_url=url, heartbeat_retention_days=days)


_EXPIRED = """
INSERT INTO device_heartbeats (device_id, ts, bucket, status, battery_pct, network_type, uptime_s)
SELECT 'old-' || n, ts, date_bin('10 seconds', ts, timestamptz '1970-01-01 00:00:00+00'), 'ok', 80, 'wifi', 86400
FROM generate_series(1, %(steps)s) AS step
CROSS JOIN LATERAL (
    SELECT now() - make_interval(days => %(days)s, mins => 1)
        - step * make_interval(days => %(days)s) / %(steps)s + interval '1 minute' AS ts
) AS at
CROSS JOIN generate_series(1, %(devices)s) AS n
"""

_RECENT = """
INSERT INTO device_heartbeats (device_id, ts, bucket, status, battery_pct, network_type, uptime_s)
SELECT d.id, ts, date_bin('10 seconds', ts, timestamptz '1970-01-01 00:00:00+00'), 'ok', 80, 'wifi', 86400
FROM (SELECT id, row_number() OVER () AS n FROM devices LIMIT %(devices)s) AS d
CROSS JOIN generate_series(0, greatest(%(rows)s / %(devices)s - 1, 0)) AS step
CROSS JOIN LATERAL (
    SELECT now() - make_interval(secs => (step + d.n::float8 / %(devices)s) * %(seconds)s
        / greatest(%(rows)s / %(devices)s, 1)) AS ts
) AS at
ORDER BY ts
"""

_STATUSES = """
INSERT INTO device_last_status (device_id, last_ts, status, battery_pct, network_type, uptime_s)
SELECT id, now() - interval '2 days', 'ok', 80, 'wifi', 86400 FROM devices
"""
