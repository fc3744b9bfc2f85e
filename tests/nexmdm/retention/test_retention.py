"""R1: rows older than their policy are removed, except those that may still be sent, settled or delivered."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from nexmdm.heartbeats import partitions
from nexmdm.retention import policies, run
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from tests.support.api import ROOT, Device
from tests.support.postgres import run_sql
from tests.support.races import errors, race

DAY = timedelta(days=1)


def now(db: Database) -> datetime:
    return db.execute("SELECT clock_timestamp() AS at")[0]["at"]


def fill_heartbeats(url: str, device: Device, days: int, every: str = "10 minutes") -> None:
    run_sql(
        url,
        f"""INSERT INTO device_heartbeats (device_id, ts, bucket)
            SELECT '{device.id}', t, date_bin('10 seconds', t, 'epoch')
            FROM generate_series(now() - interval '{days} days', now(), interval '{every}') AS t""",
    )


def dispatch(db: Database, device: Device, request_id: str, *, age_days: float, **columns: object) -> None:
    sent_at = now(db) - age_days * DAY
    values = {
        "request_id": request_id, "device_id": device.id, "action": "ping", "sent_at": sent_at, "created_at": sent_at,
        "expires_at": sent_at + timedelta(minutes=10), "fcm_expires_at": sent_at + timedelta(minutes=4), **columns,
    }  # fmt: skip
    names = ", ".join(values)
    db.execute(f"INSERT INTO fcm_dispatches ({names}) VALUES ({', '.join(f'%({n})s' for n in values)})", values)


def clean(url: str) -> run.Cleaned:
    own = Database(make_dsn(url))
    try:
        return run.clean(own, settings.load(), lambda: 60)
    finally:
        own.close()


def test_heartbeats_are_removed_after_exactly_two_days(url: str, db: Database, device: Device):
    fill_heartbeats(url, device, days=4)
    due = db.execute("SELECT count(*) AS n FROM device_heartbeats WHERE ts < now() - interval '2 days'")[0]["n"]
    kept = db.execute("SELECT count(*) AS n FROM device_heartbeats WHERE ts > now() - interval '2 days'")[0]["n"]

    result = clean(url)

    assert result.complete is True
    assert result.policies["heartbeats"].deleted == due
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats")[0]["n"] == kept
    oldest = db.execute("SELECT min(ts) AS ts FROM device_heartbeats")[0]["ts"]
    assert oldest >= now(db) - 2 * DAY - timedelta(minutes=1)


def test_row_is_kept_although_its_bucket_began_before_the_limit(url: str, db: Database, device: Device):
    """With one-day buckets, the row is within its two days but its bucket began earlier."""
    ts = now(db) - 2 * DAY + timedelta(hours=1)
    db.execute(
        "INSERT INTO device_heartbeats (device_id, ts, bucket) VALUES (%(id)s, %(ts)s, %(bucket)s)",
        {"id": device.id, "ts": ts, "bucket": ts - timedelta(hours=23)},
    )
    assert clean(url).policies["heartbeats"].deleted == 0
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats") == [{"n": 1}]


def test_partition_is_kept_while_its_last_bucket_reaches_into_retention(
    url: str, db: Database, device: Device, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEARTBEAT_BUCKET_SECONDS", "86400")
    settings.load.cache_clear()
    partitions.ensure_partitions(db, settings.load())
    ts = now(db) - 2 * DAY + timedelta(hours=1)
    db.execute(
        "INSERT INTO device_heartbeats (device_id, ts, bucket) VALUES (%(id)s, %(ts)s, %(bucket)s)",
        {"id": device.id, "ts": ts, "bucket": ts - timedelta(hours=23)},
    )
    assert partitions.in_default(db) == 0
    assert clean(url).policies["heartbeats"].deleted == 0


@pytest.mark.parametrize("state", ["accepted", "retry_wait", "sending"])
def test_dispatch_that_may_still_be_sent_is_kept(url: str, db: Database, device: Device, state: str):
    extra = {
        "sending": {"lease_until": now(db), "fence": 1},
        "retry_wait": {"next_at": now(db)},
    }.get(state, {})
    dispatch(db, device, "open", age_days=30, state=state, **extra)
    clean(url)
    assert db.execute("SELECT state FROM fcm_dispatches") == [{"state": state}]


@pytest.mark.parametrize("state", ["sent", "failed", "expired", "cancelled", "unknown"])
def test_settled_dispatch_is_removed_after_two_days_and_not_before(url: str, db: Database, device: Device, state: str):
    dispatch(db, device, "old", age_days=2.1, state=state)
    dispatch(db, device, "young", age_days=1.9, state=state)
    assert clean(url).policies["fcm_dispatches"].deleted == 1
    assert db.execute("SELECT request_id FROM fcm_dispatches") == [{"request_id": "young"}]


@pytest.mark.parametrize("state", ["sent", "unknown"])
def test_dispatch_that_fcm_may_still_deliver_is_kept(url: str, db: Database, device: Device, state: str):
    dispatch(db, device, "adopted", age_days=20, state=state, fcm_expires_at=now(db) + 8 * DAY)
    clean(url)
    assert db.execute("SELECT request_id FROM fcm_dispatches") == [{"request_id": "adopted"}]
    db.execute("UPDATE fcm_dispatches SET fcm_expires_at = now() - interval '1 second'")
    clean(url)
    assert db.execute("SELECT request_id FROM fcm_dispatches") == []


def test_batch_is_removed_with_its_last_dispatch(url: str, db: Database, device: Device):
    for name, days in (("gone", 3), ("half", 3), ("young", 1)):
        db.execute(
            """INSERT INTO command_batches (request_id, payload_hash, selector, device_count, created_by, created_at)
               VALUES (%(name)s, 'h', '{}', 1, 'me', now() - make_interval(days => %(days)s))""",
            {"name": name, "days": days},
        )
        dispatch(
            db, device, f"{name}:{device.id}", age_days=days, batch_id=name,
            state="accepted" if name == "half" else "sent",
        )  # fmt: skip
    clean(url)
    names = [row["request_id"] for row in db.execute("SELECT request_id FROM command_batches ORDER BY 1")]
    assert names == ["half", "young"]


def token(db: Database, name: str, **columns: object) -> None:
    values = {"token_id": name, "alias": name, "token_hash": name, "expires_at": now(db) + DAY, **columns}
    names = ", ".join(values)
    db.execute(f"INSERT INTO enrollment_tokens ({names}) VALUES ({', '.join(f'%({n})s' for n in values)})", values)


def test_old_tokens_and_downloads_are_removed(url: str, db: Database):
    old = now(db) - 31 * DAY
    token(db, "valid", issued_at=old)
    token(db, "over", expires_at=old)
    token(db, "used", status="exhausted", last_used_at=old)
    token(db, "used lately", status="exhausted", last_used_at=now(db) - 29 * DAY)
    token(db, "named", expires_at=old)
    db.execute(
        """INSERT INTO apk_versions (id, version_name, version_code, file_path, file_size, state)
           VALUES (1, '1', 1, 'x', 1, 'adopted')"""
    )
    for ts, name in ((now(db) - 8 * DAY, "over"), (now(db) - 6 * DAY, "named")):
        db.execute(
            """INSERT INTO apk_download_events (build_id, source, token_id, ts)
               VALUES (1, 'enrollment', %(name)s, %(ts)s)""",
            {"ts": ts, "name": name},
        )

    result = clean(url)

    assert result.policies["apk_downloads"].deleted == 1
    kept = {row["token_id"] for row in db.execute("SELECT token_id FROM enrollment_tokens")}
    assert kept == {"valid", "used lately", "named"}


def many_dispatches(url: str, device: Device, rows: int) -> None:
    run_sql(
        url,
        f"""INSERT INTO fcm_dispatches (request_id, device_id, action, sent_at, expires_at, state)
            SELECT 'r' || n, '{device.id}', 'ping', now() - interval '3 days', now() - interval '2 days', 'sent'
            FROM generate_series(1, {rows}) AS n""",
    )


def test_concurrent_cleanups_share_the_work(url: str, db: Database, device: Device):
    fill_heartbeats(url, device, days=4)
    many_dispatches(url, device, 20_000)
    due = policies.due(db, settings.load())
    results = race(url, *[lambda own: run.clean(own, settings.load(), lambda: 60)] * 3)
    assert errors(results) == []
    for policy in ("fcm_dispatches", "heartbeats"):
        assert sum(result.policies[policy].deleted for result in results) == due[policy]
    assert policies.due(db, settings.load()) == dict.fromkeys(due, 0)


def test_cleanup_stops_in_time_and_continues_in_the_next_run(url: str, db: Database, device: Device):
    many_dispatches(url, device, 3 * policies.BATCH)
    calls = iter([60, 60] * 4 + [60, 60, 60] + [0] * 100)
    first = run.clean(db, settings.load(), lambda: next(calls))
    assert first.complete is False
    left = db.execute("SELECT count(*) AS n FROM fcm_dispatches")[0]["n"]
    second = clean(url)
    assert second.complete is True
    deleted = first.policies["fcm_dispatches"].deleted + second.policies["fcm_dispatches"].deleted
    assert (left + first.policies["fcm_dispatches"].deleted, deleted) == (15_000, 15_000)


def test_failing_policy_does_not_stop_the_others(url: str, db: Database, device: Device):
    many_dispatches(url, device, 10)
    run_sql(url, "ALTER TABLE apk_download_events RENAME TO hidden")
    result = clean(url)
    assert result.complete is False
    assert result.policies["apk_downloads"].error == "UndefinedTable"
    dispatches = result.policies["fcm_dispatches"]
    assert (dispatches.deleted, dispatches.done, dispatches.error) == (10, True, None)
    assert result.policies["heartbeats"].done is True


def test_cleanup_killed_in_a_batch_loses_nothing_and_continues(url: str, db: Database, device: Device):
    """A trigger holds the second batch, and the process is killed inside it."""
    many_dispatches(url, device, 3 * policies.BATCH)
    run_sql(
        url,
        """CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$""",
        "CREATE TRIGGER hold AFTER DELETE ON fcm_dispatches FOR EACH STATEMENT EXECUTE FUNCTION hold()",
    )
    holder = psycopg2.connect(make_dsn(url))
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(4711)")
    code = """
from nexmdm.retention import run
from nexmdm.runtime import database, settings
run.clean(database.connection(), settings.load(), lambda: 60)"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ)
    waiting = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while db.execute(waiting)[0]["n"] == 0:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    holder.close()
    run_sql(url, "DROP TRIGGER hold ON fcm_dispatches")
    left = db.execute("SELECT count(*) AS n FROM fcm_dispatches")[0]["n"]
    assert left in (10_000, 15_000)  # the server either finished the batch or did not; nothing in between
    assert clean(url).policies["fcm_dispatches"].deleted == left


def test_dry_run_counts_and_removes_nothing(url: str, db: Database, device: Device):
    many_dispatches(url, device, 10)
    assert run.dry_run(db, settings.load()).policies["fcm_dispatches"].due == 10
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 10}]


def test_heartbeats_without_a_partition_are_counted_and_moved(url: str, db: Database, device: Device):
    run_sql(url, *(f"DROP TABLE {partition.name}" for partition in partitions.bounds(db)))
    fill_heartbeats(url, device, days=3)
    result = clean(url)
    assert result.partitions.heartbeats_without_one == 433
    assert partitions.in_default(db) == 0
    assert result.complete is True


OUT_OF_BOUNDS = {
    "HEARTBEAT_RETENTION_DAYS": "0",
    "DISPATCH_RETENTION_DAYS": "-1",
    "DOWNLOAD_RETENTION_DAYS": "99999",
    "TOKEN_RETENTION_DAYS": "x",
    "ALERT_RETENTION_DAYS": "0",
}


@pytest.mark.parametrize(("name", "value"), OUT_OF_BOUNDS.items())
def test_retention_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/db")
    monkeypatch.setenv(name, value)
    settings.load.cache_clear()
    with pytest.raises(settings.SettingsError, match=name):
        settings.load()


def test_cleanup_uses_the_clock_of_the_database(db: Database):
    assert abs(policies.cutoff(db, 2) - (datetime.now(UTC) - 2 * DAY)) < timedelta(minutes=1)
