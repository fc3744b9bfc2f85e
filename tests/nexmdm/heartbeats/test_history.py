"""A device's history counts each report once: before, during and after its removal by retention."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from nexmdm.heartbeats import partitions
from nexmdm.persistence import cleanup_old_heartbeats
from nexmdm.retention import policies, run
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.support.api import ROOT, Device, call
from tests.support.postgres import downgrade, run_sql, upgrade
from tests.support.races import errors, race

CHARTED = ("battery_pct", "temp_c", "signal_dbm", "ram_used_mb")
DAY = timedelta(days=1)
CLEANUP = """
from nexmdm.retention import run
from nexmdm.runtime import database, settings
run.clean(database.connection(), settings.load(), lambda: 60)"""


def fill(url: str, device: Device, days: int = 5, every: str = "7 minutes") -> None:
    """Add reports with changing values, some of which are null."""
    run_sql(
        url,
        f"""INSERT INTO device_heartbeats (device_id, ts, bucket, battery_pct, temp_c, signal_dbm, ram_used_mb)
            SELECT '{device.id}', t, date_bin('10 seconds', t, 'epoch'), (n * 37) %% 101, 20 + (n * 7) %% 50 / 4.0,
                CASE WHEN n %% 3 > 0 THEN -50 - (n * 11) %% 40 END, CASE WHEN n %% 40 > 20 THEN 500 + n END
            FROM (SELECT t, row_number() OVER ()::int AS n FROM generate_series(
                date_trunc('day', now(), 'UTC') - interval '{days} days', now(), interval '{every}') AS t)""".replace(
            "%%", "%"
        ),
    )


def told(db: Database, length: str = "hour") -> list[dict[str, Any]]:
    """The expected history, computed from the reports themselves without the history's SQL."""
    points: dict[datetime, dict[str, Any]] = {}
    for row in db.execute(f"SELECT ts, {', '.join(CHARTED)} FROM device_heartbeats ORDER BY ts"):
        ts = row["ts"].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        at = ts.replace(hour=0) if length == "day" else ts
        point = points.setdefault(at, {"at": at, "reports": 0, **{name: [] for name in CHARTED}})
        point["reports"] += 1
        for name in CHARTED:
            point[name].append(row[name])
    for point in points.values():
        for name in CHARTED:
            said = [value for value in point[name] if value is not None]
            point[name] = {"min": min(said, default=None), "max": max(said, default=None), "last": point[name][-1]}
    return list(points.values())


def shown(device: Device, step: str = "hour", days: int = 90) -> list[dict[str, Any]]:
    begin = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    answer = call("GET", f"/v1/devices/{device.id}/history", query={"from": begin, "step": step})
    assert answer.status == 200, answer.text
    return [{**point, "at": datetime.fromisoformat(point["at"])} for point in answer.json["points"]]


def clean(url: str) -> run.Cleaned:
    own = Database(make_dsn(url))
    try:
        return run.clean(own, settings.load(), lambda: 60)
    finally:
        own.close()


def covered(db: Database, days: int = 5) -> None:
    """Create partitions for reports older than retention, as if their days had passed since."""
    first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - days * DAY
    for n in range(4 * days):
        lower = first + n * partitions.WIDTH
        name, upper = partitions.name(lower), lower + partitions.WIDTH
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF device_heartbeats"
            f" FOR VALUES FROM ('{lower}') TO ('{upper}')"
        )


@pytest.mark.parametrize("step", ["hour", "day"])
def test_cleanup_does_not_change_the_history(url: str, db: Database, device: Device, step: str):
    covered(db)
    fill(url, device)
    expected = told(db, step)
    assert shown(device, step) == expected
    assert clean(url).policies["heartbeats"].deleted > 0
    assert shown(device, step) == expected
    assert clean(url).complete is True
    assert shown(device, step) == expected


def test_history_includes_rows_of_the_default_partition(url: str, db: Database, device: Device):
    fill(url, device)
    expected = told(db)
    assert partitions.in_default(db) > 0
    clean(url)
    assert shown(device) == expected


def test_documented_cleanup_keeps_the_history(url: str, db: Database, device: Device):
    covered(db)
    fill(url, device)
    expected = told(db)
    engine = create_engine(settings.load().sqlalchemy_url)
    with Session(engine) as session:
        assert cleanup_old_heartbeats(session) > 0
    engine.dispose()
    assert shown(device) == expected


def test_late_reports_are_added_to_their_hour(url: str, db: Database, device: Device):
    covered(db)
    hour = (datetime.now(UTC) - 3 * DAY).replace(minute=0, second=0, microsecond=0)

    def report(minute: int, battery: int) -> None:
        ts = hour + timedelta(minutes=minute)
        db.execute(
            """INSERT INTO device_heartbeats (device_id, ts, bucket, battery_pct)
               VALUES (%(id)s, %(ts)s, %(ts)s, %(pct)s)""",
            {"id": device.id, "ts": ts, "pct": battery},
        )

    said = []
    # The third arrives after the first two, with a time between theirs; the fourth has the latest time of all.
    for minute, battery, last in ((20, 50, 50), (40, 60, 60), (30, 10, 60), (50, 55, 55)):
        report(minute, battery)
        said.append(battery)
        for _ in range(2):
            (point,) = shown(device)
            assert (point["reports"], point["battery_pct"]) == (
                len(said),
                {"min": min(said), "max": max(said), "last": last},
            )
            clean(url)
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats") == [{"n": 0}]


def test_concurrent_cleanups_count_each_report_once(url: str, db: Database, device: Device):
    covered(db)
    fill(url, device)
    expected = told(db)
    results = race(url, *[lambda own: run.clean(own, settings.load(), lambda: 60)] * 3)
    assert errors(results) == []
    assert [result.policies["heartbeats"].error for result in results] == [None] * 3
    assert shown(device) == expected


def client_killed_and_server_continues(process: subprocess.Popen, backend: int, reader: Any, db: Database) -> None:
    """The lock is free before the server notices that its client is gone, so it may still commit."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    reader.rollback()


def client_and_backend_killed(process: subprocess.Popen, backend: int, reader: Any, db: Database) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    db.execute("SELECT pg_terminate_backend(%(pid)s)", {"pid": backend})


def backend_killed(process: subprocess.Popen, backend: int, reader: Any, db: Database) -> None:
    db.execute("SELECT pg_terminate_backend(%(pid)s)", {"pid": backend})
    process.wait()


@pytest.mark.parametrize("killed", [client_killed_and_server_continues, client_and_backend_killed, backend_killed])
def test_cleanup_killed_between_summary_and_drop_counts_each_report_once(
    url: str, db: Database, device: Device, killed: Callable[..., None]
):
    """A reader of the table allows the partition to be summarized but not dropped."""
    covered(db)
    fill(url, device)
    expected = told(db)
    reader = psycopg2.connect(make_dsn(url))
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM device_heartbeats")
    process = subprocess.Popen([sys.executable, "-c", CLEANUP], cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ)
    waiting = """
        SELECT pid FROM pg_stat_activity WHERE query LIKE '%partitions.drop%' AND wait_event = 'PgSleep'
        AND pid IN (SELECT pid FROM pg_locks
                    WHERE relation = 'device_history'::regclass AND mode = 'RowExclusiveLock')"""
    while not (found := db.execute(waiting)):
        assert process.poll() is None
    killed(process, found[0]["pid"], reader, db)
    reader.close()
    while db.execute("SELECT pid FROM pg_stat_activity WHERE pid = %(pid)s", {"pid": found[0]["pid"]}):
        pass
    assert shown(device) == expected
    assert clean(url).complete is True
    assert shown(device) == expected


def test_history_is_kept_for_90_days(url: str, db: Database, device: Device):
    run_sql(
        url,
        f"""INSERT INTO device_history (device_id, hour, reports, last_ts)
            SELECT '{device.id}', date_trunc('hour', now()) - make_interval(days => n), 1, now()
            FROM unnest(ARRAY[88, 89, 91, 92]) AS n""",
    )
    assert policies.due(db, settings.load())["device_history"] == 2
    assert clean(url).policies["device_history"].deleted == 2
    assert len(shown(device)) == 2


def test_time_bounds_are_whole_hours(url: str, db: Database, device: Device):
    fill(url, device, days=1)
    expected = told(db)
    query = {"from": expected[3]["at"].isoformat(), "to": expected[7]["at"].isoformat()}
    points = call("GET", f"/v1/devices/{device.id}/history", query=query).json["points"]
    assert [datetime.fromisoformat(point["at"]) for point in points] == [point["at"] for point in expected[3:7]]


def test_device_without_a_report_has_an_empty_history(device: Device):
    assert call("GET", f"/v1/devices/{device.id}/history").json == {"points": []}


def test_history_of_an_unknown_device_returns_404(db: Database):
    call("GET", "/v1/devices/none/history").problem(404)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "query.from"),
        ({"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "query.from"),
        ({"from": "2026-01-01T00:00:00"}, "query.from"),
        ({"step": "minute"}, "query.step"),
    ],
)
def test_invalid_history_query_returns_422(device: Device, query: dict[str, str], path: str):
    call("GET", f"/v1/devices/{device.id}/history", query=query).problem(422, path)


def test_downgrade_drops_the_history_and_upgrade_creates_it_empty(url: str, db: Database, device: Device):
    covered(db)
    fill(url, device)
    clean(url)
    db.close()
    downgrade(url, "15b11d000006")
    assert db.execute("SELECT to_regclass('device_history') AS found") == [{"found": None}]
    upgrade(url)
    kept = told(db)
    assert shown(device) == kept
