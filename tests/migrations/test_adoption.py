"""Adopting a database of the previous server, with 150,000 heartbeats, with a dry run before it and again
after a kill: no row is lost except those that the constraints forbid."""

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.migrations import old_server
from tests.support.api import ROOT
from tests.support.databases import url_of
from tests.support.migrations import ok, rows, schema_differences
from tests.support.postgres import alembic, downgrade, run_sql, upgrade

pytestmark = pytest.mark.long

STAMPS = {
    "before the results of commands": ("a43a2b52588a", False, False),
    "created later than its stamp": ("a43a2b52588a", True, True),
    "with the results of commands": ("c73b10a6beaa", True, False),
    "with a last status": ("c73b10a6beaa", True, True),
}


def make(url: str, stamp: str, completion: bool, last_status: bool, devices: int = 100, beats: int = 30) -> None:
    run_sql(url, old_server.create(stamp, completion=completion, last_status=last_status))
    run_sql(url, old_server.fill(devices, beats))


def adopt(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "migrations.adoption", *arguments],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module", params=STAMPS.values(), ids=STAMPS.keys())
def adopted(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """One adopted database for all tests that only read it."""
    name = f"adopted_{uuid.uuid4().hex[:8]}"
    run_sql(server, f"CREATE DATABASE {name}")
    make(url_of(server, name), *request.param)
    upgrade(url_of(server, name))
    yield url_of(server, name)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def test_adopted_database_passes_the_schema_check(adopted: str):
    assert schema_differences(adopted) == []
    assert "No new upgrade operations" in ok(alembic(adopted, "check"))
    assert rows(adopted, "SELECT count(*) FROM commands") == [(100,)]


def test_adopted_database_can_be_downgraded_and_upgraded(empty: str):
    make(empty, *STAMPS["with a last status"])
    upgrade(empty)
    downgrade(empty, "base")
    upgrade(empty)
    assert schema_differences(empty) == []
    assert rows(empty, "SELECT count(*) FROM commands") == [(100,)]


def test_devices_keep_their_tokens_and_secrets_are_removed(adopted: str):
    expected = {(f"device-{n}", sha256(f"token-{n}".encode()).hexdigest()) for n in range(100)}
    assert set(rows(adopted, "SELECT id, token_id FROM devices WHERE deleted_at IS NULL")) == expected
    kept = rows(adopted, "SELECT old::text FROM old_server_values")
    assert not [text for (text,) in kept if "$2b$" in text or "a secret" in text]
    assert rows(adopted, "SELECT count(*) FROM enrollment_tokens WHERE token_hash LIKE '$2b$%'") == [(0,)]


def test_device_seen_last_keeps_the_alias(adopted: str):
    assert rows(adopted, "SELECT alias FROM devices WHERE id IN ('device-10', 'device-11') ORDER BY id") == [
        ("kiosk-10",), ("kiosk-10-device-11",),
    ]  # fmt: skip
    old = "SELECT old->>'alias' FROM old_server_values WHERE table_name = 'devices' AND row_key = 'device-11'"
    assert rows(adopted, old) == [("kiosk-10",)]


def test_long_aliases_with_the_same_beginning_become_different_ones(empty: str):
    make(empty, *STAMPS["with a last status"], devices=3, beats=1)
    run_sql(empty, "UPDATE devices SET alias = repeat('x', 200) || id")
    upgrade(empty)
    assert rows(empty, "SELECT alias FROM devices ORDER BY id") == [
        ("x" * 200,), ("x" * 191 + "-device-1",), ("x" * 191 + "-device-2",),
    ]  # fmt: skip
    old = "SELECT old->>'alias' FROM old_server_values WHERE table_name = 'devices' ORDER BY row_key"
    assert rows(empty, old) == [("x" * 200 + f"device-{n}",) for n in range(3)]


def test_first_heartbeat_of_each_ten_seconds_is_kept(adopted: str):
    assert rows(adopted, "SELECT count(*), sum(battery_pct), count(DISTINCT bucket) FROM device_heartbeats") == [
        (1000, 0, 10)
    ]
    assert rows(adopted, "SELECT count(*) FROM device_heartbeats_default") == [(0,)]
    assert rows(adopted, "SELECT count(*) FROM device_heartbeats WHERE received_at <> ts") == [(0,)]


def test_pending_dispatches_become_unknown_and_none_is_lost(adopted: str):
    assert sorted(rows(adopted, "SELECT fcm_status, state, count(*) FROM fcm_dispatches GROUP BY 1, 2")) == [
        ("completed", "sent", 100), ("failed", "failed", 100), ("pending", "unknown", 100), ("success", "sent", 100),
    ]  # fmt: skip


def test_last_status_comes_from_the_available_data(adopted: str):
    assert rows(adopted, "SELECT count(*) FROM device_last_status") == [(100,)]
    from_body = "SELECT battery_pct, plugged, agent_version FROM device_last_status WHERE device_id = 'device-1'"
    assert rows(adopted, from_body) == [(85, True, "2.4")]
    from_heartbeat = "SELECT battery_pct FROM device_last_status WHERE device_id IN ('device-0', 'device-2')"
    assert rows(adopted, from_heartbeat) == [(0,), (0,)]
    seen = """SELECT count(*) FROM device_last_status JOIN old_server_values ON row_key = device_id
              WHERE last_seen_at < (old->>'last_seen')::timestamp AT TIME ZONE 'UTC'"""
    assert rows(adopted, seen) == [(0,)]


def test_fcm_token_that_no_index_holds_is_left_out(empty: str):
    make(empty, *STAMPS["before the results of commands"], devices=2, beats=1)
    tokens = {"device-0": secrets.token_hex(2000), "device-1": "fcm:one"}
    for device, token in tokens.items():
        run_sql(empty, f"UPDATE devices SET fcm_token = '{token}' WHERE id = '{device}'")
    upgrade(empty)
    assert rows(empty, "SELECT id, fcm_token FROM devices ORDER BY id") == [("device-0", None), ("device-1", "fcm:one")]


def test_reports_from_the_future_do_not_hide_current_ones_and_are_kept(empty: str):
    make(empty, *STAMPS["with a last status"], devices=4, beats=3)
    run_sql(
        empty,
        """INSERT INTO device_heartbeats (device_id, ts, status, battery_pct)
           SELECT 'device-' || n, (now() AT TIME ZONE 'UTC') + interval '400 days', 'error', 77
           FROM generate_series(0, 2) AS n""",
        "DELETE FROM device_heartbeats WHERE device_id = 'device-2' AND battery_pct < 77",
        """INSERT INTO device_last_status (device_id, last_ts, battery_pct)
           SELECT 'device-3', (now() AT TIME ZONE 'UTC') + interval '400 days', 77""",
        "UPDATE devices SET last_seen = (now() AT TIME ZONE 'UTC') - interval '3 hours' WHERE id = 'device-2'",
    )
    upgrade(empty)
    # From the newest heartbeat of the past; device-1 has a body, and device-2 has no other report.
    found = rows(empty, "SELECT device_id, battery_pct, status FROM device_last_status ORDER BY 1")
    assert found == [("device-0", 0, "ok"), ("device-1", 85, "ok"), ("device-2", 77, "error"), ("device-3", 0, "ok")]
    ahead = "SELECT device_id FROM device_last_status WHERE greatest(last_ts, last_seen_at) > now()"
    assert rows(empty, ahead) == []
    silent = "SELECT device_id FROM device_last_status WHERE NOT device_online(last_seen_at, 300)"
    assert rows(empty, silent) == [("device-2",)], "when the old server heard from it last"
    kept = "SELECT old->>'device_id' FROM old_server_values WHERE table_name = 'device_heartbeats' ORDER BY 1"
    assert rows(empty, kept) == [("device-0",), ("device-1",), ("device-2",)]
    assert rows(empty, "SELECT count(*) FROM device_heartbeats_default") == [(0,)]
    assert schema_differences(empty) == []


def test_times_are_read_as_utc(empty: str):
    """Times are UTC whatever the time zones of the server and the session."""
    make(empty, *STAMPS["with a last status"])
    instant = "SELECT extract(epoch FROM sent_at AT TIME ZONE 'UTC') FROM fcm_dispatches WHERE request_id = 'r1'"
    before = rows(empty, instant)
    name = rows(empty, "SELECT current_database()")[0][0]
    run_sql(empty, f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    upgrade(empty)
    assert rows(empty, "SELECT extract(epoch FROM sent_at) FROM fcm_dispatches WHERE request_id = 'r1'") == before


def test_dry_run_reports_changes_with_counts_and_changes_nothing(empty: str):
    make(empty, *STAMPS["before the results of commands"])
    report = ok(adopt(empty, "--dry-run"))
    for rows_, what in (
        (10, "an alias that several have"), (2000, "later rows of the same 10 seconds go"), (1000, "the first row of"),
        (100, "never sent again"), (100, "keep their tokens"), (7, "stands in for each removed token"),
    ):  # fmt: skip
        assert any(line.split()[0] == str(rows_) and what in line for line in report.splitlines()), (what, report)
    assert "Nothing was changed." in report
    assert rows(empty, "SELECT version_num, to_regclass('old_server_values') FROM alembic_version") == [
        ("a43a2b52588a", None)
    ]


def test_current_database_is_not_adopted_again(empty: str):
    upgrade(empty, "c73b10a6beaa")
    assert "none: nothing of an old server is here" in ok(adopt(empty, "--dry-run"))
    upgrade(empty, "b5d0c2f4a917")
    assert rows(empty, "SELECT to_regclass('old_server_values')") == [(None,)]


def test_tables_without_a_revision_are_refused_with_instructions(empty: str):
    make(empty, *STAMPS["with a last status"])
    run_sql(empty, "DROP TABLE alembic_version")
    done = adopt(empty, "--dry-run")
    assert done.returncode == 1
    assert "alembic stamp a43a2b52588a" in done.stdout


def test_adoption_can_be_run_again_after_a_kill(empty: str):
    make(empty, *STAMPS["before the results of commands"], devices=1000, beats=150)
    run = subprocess.Popen(
        [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env={**os.environ, "DATABASE_URL": empty}
    )
    # The kill comes while the statement that copies the heartbeats is running.
    while rows(empty, "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%INSERT INTO device_h%new%'"
                      " AND pid <> pg_backend_pid()") == []:  # fmt: skip
        assert run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    ok(adopt(empty))
    assert rows(empty, "SELECT count(*) FROM device_heartbeats") == [(50_000,)]
    assert rows(empty, "SELECT count(*) FROM fcm_dispatches") == [(4000,)]
    assert rows(empty, "SELECT count(*), count(DISTINCT alias), count(token_id) FROM devices") == [(1000, 1000, 1000)]
    assert schema_differences(empty) == []
