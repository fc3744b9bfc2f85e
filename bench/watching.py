"""The duration of the watch with 100,000 devices: each rule's statement, if nothing changes and if everything does."""

import time
from statistics import median

from nexmdm.alerts import evaluation, notifications
from nexmdm.alerts.conditions import DECLARATIONS
from nexmdm.runtime.database import Database

from bench import fixture
from bench.figures import Figure, below
from bench.stage import Stage

SECONDS = 0.1  # for one rule in a usual fleet
ROUNDS = 5
APP = "io.unitynodes.unityapp"


def measure(stage: Stage) -> list[Figure]:
    """Evaluates a usual fleet (one device in 100 meets each condition) repeatedly, as every few minutes.

    The notes have the first evaluation; the whole fleet in five conditions at once, as in an outage; the end of that;
    and the end of the cool-down.
    """
    with stage.copy("watched") as url, fixture.connected(url) as db:
        _fill(db, stage.sizes.devices)
        found = _look(db, url)
        db.execute("ANALYZE device_alerts")
        again = [_look(db, url) for _ in range(ROUNDS)]
        db.execute(_ALL_ILL)
        ill, told = _look(db, url), _tell(db)
        db.execute("ANALYZE device_alerts")  # as autovacuum does within a minute, the watch comes after five
        db.execute(_ALL_WELL)
        well = _look(db, url)
        db.execute("UPDATE device_alerts SET clear_since = clear_since - interval '1 day'")
        over = _look(db, url)
    figures = [
        below(
            f"watch over {stage.sizes.devices:,} devices: {name}",
            median(took[name] for took in again),
            SECONDS,
            "s",
            note=f"first {found[name]:.2f}, all {ill[name]:.2f}, well {well[name]:.2f}, over {over[name]:.2f} s",
        )
        for name in DECLARATIONS
    ]
    figures[-1].note += f"; one notification of all of it {told:.1f} s"
    return figures


def _tell(db: Database) -> float:
    start = time.perf_counter()
    claimed = notifications.claim(db, "bench")
    assert claimed is not None
    notifications.settle(db, claimed.claim_id)
    return time.perf_counter() - start


def _fill(db: Database, devices: int) -> None:
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        for sql in (_BUILDS, _DEVICES, _STATUS, _APPS, _REPORTS):
            db.execute(sql, {"devices": devices, "app": APP})
    # One rule per condition; rules are added for conditions without a default one.
    db.execute("INSERT INTO alert_rules (name, condition) SELECT c, c FROM unnest(%(all)s) AS c ON CONFLICT DO NOTHING",
               {"all": [str(condition) for condition in DECLARATIONS]})  # fmt: skip
    for table in ("devices", "device_last_status", "device_heartbeats", "apk_versions", "device_apps"):
        db.execute(f"VACUUM ANALYZE {table}")


def _look(db: Database, url: str) -> dict[str, float]:
    """Seconds for each condition, with its default rule."""
    config = fixture.settings(url)
    took: dict[str, float] = {}
    for condition in DECLARATIONS:
        start = time.perf_counter()
        evaluation.evaluate_condition(db, config, condition)
        took[condition] = time.perf_counter() - start
    return took


# Version 2 is rolled out to half of the fleet, replacing version 1, which is offered to the other half.
_BUILDS = """
INSERT INTO apk_versions (id, package_name, build_type, version_name, version_code, file_path, file_size, state, sha256,
    source, signer_fingerprint, object_version, is_current, replaces_id, staged_rollout_percent, promoted_at)
SELECT n, 'com.nexmdm', 'release', n || '.0', n, 'x', 1, 'published', repeat('0', 64), 'ci', repeat('0', 64), 'v',
    n = 2, CASE WHEN n = 2 THEN 1 END, CASE WHEN n = 2 THEN 50 ELSE 100 END, now() - interval '2 days'
FROM generate_series(1, 2) AS n
"""

_DEVICES = """
INSERT INTO devices (id, alias, hardware_id)
SELECT 'watched-' || n, 'watched-' || n, 'hardware-' || n - (n %% 100 = 9)::int
FROM generate_series(1, %(devices)s) AS n
"""

_STATUS = """
INSERT INTO device_last_status
    (device_id, last_ts, last_seen_at, battery_pct, unity_running, queue_depth, agent_version, temp_c,
     monitored_foreground_recent_s, received_at, device_ts)
SELECT 'watched-' || n, now() - interval '1 minute',
    now() - CASE WHEN n %% 100 = 1 THEN interval '1 hour' ELSE interval '1 minute' END,
    CASE WHEN n %% 100 = 2 THEN 9 ELSE 80 END, n %% 100 <> 3, CASE WHEN n %% 100 = 4 THEN 50 ELSE 0 END,
    CASE WHEN n %% 100 = 5 THEN '0.9' ELSE '2.0' END, CASE WHEN n %% 100 = 6 THEN 60 ELSE 30 END,
    CASE WHEN n %% 100 IN (3, 7) THEN 5000 ELSE 10 END, now(),
    now() + CASE WHEN n %% 100 = 8 THEN interval '1 hour' ELSE interval '0' END
FROM generate_series(1, %(devices)s) AS n
"""

_APPS = """
INSERT INTO device_apps (device_id, package, version_name, version_code, installed)
SELECT 'watched-' || n, %(app)s, '1.9.0', 190, true FROM generate_series(1, %(devices)s) AS n
"""

# An hour of reports, every ten minutes.
_REPORTS = """
INSERT INTO device_heartbeats (device_id, ts, bucket, queue_depth)
SELECT 'watched-' || n, at, date_bin('10 seconds', at, timestamptz '1970-01-01 00:00:00+00'), 6 - step
FROM generate_series(0, 5) AS step
CROSS JOIN LATERAL (SELECT now() - interval '1 minute' - step * interval '10 minutes' AS at) AS given
CROSS JOIN generate_series(1, %(devices)s) AS n
"""

_ALL_ILL = """
UPDATE device_last_status SET last_seen_at = now() - interval '1 hour', battery_pct = 9, unity_running = false,
    queue_depth = 50, agent_version = '0.9'
WHERE device_id LIKE 'watched-%'
"""

_ALL_WELL = """
UPDATE device_last_status SET last_seen_at = now(), battery_pct = 80, unity_running = true, queue_depth = 0,
    agent_version = '2.0'
WHERE device_id LIKE 'watched-%'
"""
