"""How long the watch takes over 100,000 devices: each condition's statement, when nothing changes and when all does."""

import time
from typing import Any

from nexmdm import alerts, notices
from nexmdm.alert_conditions import CONDITIONS
from nexmdm.database import Database

from bench import fixture

DEVICES = 100_000


def measure(url: str) -> list[dict[str, Any]]:
    """Milliseconds per condition: a usual fleet (one device in 100 is in each condition), looked at for the first time
    and again; the whole fleet in it at once, as in an outage; all well again; the cool-down over."""
    with fixture.connected(url) as db:
        _fill(db)
        passes = {"found": _look(db, url), "nothing_new": _look(db, url)}
        db.execute(_ALL_ILL)
        passes["all_at_once"] = _look(db, url)
        tellings = [_tell(db)]
        db.execute("ANALYZE device_alerts")  # as autovacuum does within a minute, the watch comes after five
        db.execute(_ALL_WELL)
        passes["all_well"] = _look(db, url)
        db.execute("UPDATE device_alerts SET clear_since = clear_since - interval '1 day'")
        passes["all_over"] = _look(db, url)
        tellings.append(_tell(db))
    rows = [{"condition": name, **{which: took[name] for which, took in passes.items()}} for name in CONDITIONS]
    notice = {"condition": "one notice of all", "all_at_once": tellings[0], "all_over": tellings[1]}
    return [*rows, {name: notice.get(name, "") for name in rows[0]}]


def _tell(db: Database) -> int:
    start = time.perf_counter()
    notices.settle(db, notices.claim(db, "bench").claim_id)
    return round((time.perf_counter() - start) * 1000)


def slowest_seconds(measured: list[dict[str, Any]]) -> float:
    """Of one condition in a usual fleet."""
    return max(max(each["found"], each["nothing_new"]) for each in measured[:-1]) / 1000


def _fill(db: Database) -> None:
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        for sql in (_BUILDS, _DEVICES, _STATUS, _REPORTS):
            db.execute(sql, {"devices": DEVICES})
    for table in ("devices", "device_last_status", "device_heartbeats", "apk_versions"):
        db.execute(f"ANALYZE {table}")


def _look(db: Database, url: str) -> dict[str, int]:
    config, took = fixture.settings(url), {}
    for condition in CONDITIONS:
        start = time.perf_counter()
        alerts.look_for(db, condition, config)
        took[condition] = round((time.perf_counter() - start) * 1000)
    return took


# Version 2 is rolled out to half of the fleet over version 1, which everybody else is offered.
_BUILDS = """
INSERT INTO apk_versions (id, package_name, build_type, version_name, version_code, file_path, file_size, state, sha256,
    source, signer_fingerprint, object_version, is_current, replaces_id, staged_rollout_percent, promoted_at)
SELECT n, 'com.nexmdm', 'release', n || '.0', n, 'x', 1, 'published', repeat('0', 64), 'ci', repeat('0', 64), 'v',
    n = 2, CASE WHEN n = 2 THEN 1 END, CASE WHEN n = 2 THEN 50 ELSE 100 END, now() - interval '2 days'
FROM generate_series(1, 2) AS n
"""

_DEVICES = """
INSERT INTO devices (id, alias) SELECT 'watched-' || n, 'watched-' || n FROM generate_series(1, %(devices)s) AS n
"""

_STATUS = """
INSERT INTO device_last_status
    (device_id, last_ts, last_seen_at, battery_pct, unity_running, queue_depth, agent_version)
SELECT 'watched-' || n, now() - interval '1 minute',
    now() - CASE WHEN n %% 100 = 1 THEN interval '1 hour' ELSE interval '1 minute' END,
    CASE WHEN n %% 100 = 2 THEN 9 ELSE 80 END, n %% 100 <> 3, CASE WHEN n %% 100 = 4 THEN 50 ELSE 0 END,
    CASE WHEN n %% 100 = 5 THEN '0.9' ELSE '2.0' END
FROM generate_series(1, %(devices)s) AS n
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
