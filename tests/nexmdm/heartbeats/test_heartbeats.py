"""Promises H1 to H5: one row per bucket, the device's own time, a last status that only advances, and online status."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nexmdm.heartbeats import body as reported
from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import HeartbeatBody, Report
from nexmdm.heartbeats.record import Recorded
from nexmdm.runtime import lenient
from nexmdm.runtime import settings as configuration
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import DeviceDeleted, NotAuthenticated, UnknownDevice

from tests.support import agent
from tests.support.agent import an_hour_ago
from tests.support.api import call, enroll
from tests.support.races import errors, free, meeting, race

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def report(when: datetime | None, **changes: Any) -> Report:
    return read(agent.heartbeat(when, **changes))


def read(body: dict[str, Any], unity_package: str = "io.unitynodes.unityapp") -> Report:
    """Parse a body as the handler does and check that nothing was dropped."""
    found, dropped = lenient.read(msgspec.json.encode(body), HeartbeatBody)
    made = reported.report(found, unity_package, dropped)
    assert dropped == []
    return made


def recorded(db: Database, device: Any, *reports: Report, **changed: Any) -> Recorded:
    config = msgspec.structs.replace(configuration.load(), **changed)
    return record.for_token(db, device.token, list(reports), config)


def rows(db: Database) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM device_heartbeats ORDER BY hb_id")


def status(db: Database) -> dict[str, Any]:
    (row,) = db.execute("SELECT * FROM device_last_status")
    return row


# --- H1: at most one row per device and bucket; the first report is kept


def test_64_racing_callers_make_one_row_per_bucket(url, db, device):
    start = an_hour_ago()
    racing = [report(start + n * SECOND / 10, battery={"pct": n}) for n in range(64)]

    results = race(url, *(lambda own, r=r: recorded(own, device, r) for r in racing))

    assert errors(results) == []
    assert sum(len(result.created) for result in results) == 1
    (row,) = rows(db)
    (winner,) = [n for n, result in enumerate(results) if result.created]
    assert (row["bucket"], row["battery_pct"]) == (start, winner)
    assert status(db)["battery_pct"] == 63  # the newest report, no matter which one made the row


def test_64_racing_repeats_of_one_report_make_one_row(url, db, device):
    same = report(an_hour_ago())
    results = race(url, *[lambda own: recorded(own, device, same)] * 64)
    assert errors(results) == []
    assert sum(len(result.created) for result in results) == 1
    assert len(rows(db)) == 1


def test_queues_drained_in_opposite_order_do_not_deadlock(url, db, device):
    """Two drains of one queue in opposite order would deadlock on each other's rows."""
    queue = [report(an_hour_ago() + 10 * n * SECOND) for n in range(40)]
    ways = [queue, queue[::-1]] * 6
    results = race(url, *(lambda own, way=way: recorded(own, device, *way) for way in ways))
    assert errors(results) == []
    assert sum(len(result.created) for result in results) == len(rows(db)) == 40


def test_unique_key_decides_the_race(url, db, device):
    """Shows that the race can fail: without the key, ON CONFLICT finds no conflict and every caller makes a row."""
    db.execute("ALTER TABLE device_heartbeats DROP CONSTRAINT uq_device_heartbeats_device_id_bucket")
    start = an_hour_ago()
    results = race(url, *(lambda own, n=n: recorded(own, device, report(start + n * SECOND)) for n in range(4)))
    assert all(isinstance(error, psycopg2.errors.InvalidColumnReference) for error in results)
    assert rows(db) == []


def test_first_report_of_a_bucket_is_kept(db, device):
    start = an_hour_ago()
    assert recorded(db, device, report(start + SECOND, battery={"pct": 50})).created == {0}
    assert recorded(db, device, report(start + 2 * SECOND, battery={"pct": 49})).created == set()
    assert recorded(db, device, report(start, battery={"pct": 51})).created == set()
    assert [row["battery_pct"] for row in rows(db)] == [50]


def test_devices_do_not_share_buckets(db, device):
    start = an_hour_ago()
    other = type(device)(*enroll("hall"))
    assert recorded(db, device, report(start)).created == {0}
    assert recorded(db, other, report(start)).created == {0}


def oracle(when: datetime, size: int) -> datetime:
    """The start of the bucket that contains an instant: a whole multiple of its size since 1970 in UTC."""
    since = int((when - EPOCH) / timedelta(microseconds=1))
    return EPOCH + timedelta(microseconds=since - since % (size * 1_000_000))


def test_bucket_starts_match_the_reference(db, device):
    """Covers sizes above a minute and sizes that do not divide it, in a database whose time zone is not UTC."""
    db.execute("SET TimeZone = 'America/St_Johns'")
    anchor = datetime.now(UTC)

    @given(size=st.integers(1, 86_400), ago=st.timedeltas(timedelta(0), timedelta(days=1, hours=23)))
    @example(size=1, ago=timedelta(0))
    @example(size=7, ago=timedelta(hours=3))
    @example(size=61, ago=timedelta(hours=5, microseconds=1))
    @example(size=90, ago=timedelta(days=1))
    @example(size=3601, ago=timedelta(hours=20))
    @example(size=86_399, ago=timedelta(hours=30))
    @example(size=86_400, ago=timedelta(hours=40))
    @settings(max_examples=150)
    def holds(size, ago):
        db.execute("DELETE FROM device_heartbeats")
        db.execute("DELETE FROM device_last_status")
        when = anchor - ago
        first = recorded(db, device, report(when), heartbeat_bucket_seconds=size)
        start = oracle(when, size)
        assert first.created == {0}
        assert first.buckets == [start]
        (row,) = rows(db)
        assert (row["bucket"], row["ts"]) == (start, when)
        # The bucket's last microsecond belongs to it; the next one does not.
        end = start + timedelta(seconds=size)
        if end < anchor + timedelta(minutes=4):
            assert (
                recorded(db, device, report(end - timedelta(microseconds=1)), heartbeat_bucket_seconds=size).created
                == set()
            )
            assert recorded(db, device, report(end), heartbeat_bucket_seconds=size).created == {0}

    holds()


# --- H3: history keeps the device's own time if it is plausible


def received(db: Database, device: Any, when: datetime | None) -> dict[str, Any]:
    recorded(db, device, report(when) if when else report(None, timestamp_utc=None))
    return rows(db)[-1]


@pytest.mark.parametrize(
    "ago", [timedelta(minutes=-4, seconds=-50), timedelta(0), timedelta(hours=1), timedelta(days=1, hours=23)]
)
def test_plausible_time_is_stored_with_the_receive_time(db, device, ago):
    before = db.execute("SELECT clock_timestamp() AS now")[0]["now"]
    row = received(db, device, when := datetime.now(UTC) - ago)
    assert row["ts"] == when
    assert before <= row["received_at"] <= db.execute("SELECT clock_timestamp() AS now")[0]["now"]


@pytest.mark.parametrize(
    "ago",
    [
        timedelta(minutes=-5, seconds=-10),
        timedelta(days=-3000),
        timedelta(days=2, seconds=10),
        timedelta(days=20_000),
        None,
    ],
)
def test_implausible_or_absent_time_is_replaced_by_the_receive_time(db, device, ago):
    row = received(db, device, None if ago is None else datetime.now(UTC) - ago)
    assert row["ts"] == row["received_at"]
    assert row["bucket"] == oracle(row["ts"], 10)


def test_time_is_plausible_within_retention(db, device):
    when = datetime.now(UTC) - timedelta(days=5)
    recorded(db, device, report(when), heartbeat_retention_days=6)
    assert rows(db)[0]["ts"] == when


def test_time_without_an_offset_is_utc_in_any_server_time_zone(db, device):
    db.execute("SET TimeZone = 'Asia/Kolkata'")
    when = an_hour_ago()
    recorded(db, device, report(None, timestamp_utc=when.replace(tzinfo=None).isoformat()))
    assert rows(db)[0]["ts"] == when


@pytest.mark.parametrize("ending", ["Z", ".5Z", ".123456Z", ".123456789Z"])
def test_every_precision_of_an_instant_is_parsed(db, device, ending):
    when = an_hour_ago()
    recorded(db, device, report(None, timestamp_utc=f"{when:%Y-%m-%dT%H:%M:%S}{ending}"))
    assert timedelta(0) <= rows(db)[0]["ts"] - when < SECOND
    assert rows(db)[0]["bucket"] == when


# --- H4: the last status never goes backwards


def test_older_report_is_added_to_history_and_leaves_the_last_status(db, device):
    start = an_hour_ago()
    recorded(db, device, report(start, battery={"pct": 40}))
    before = status(db)
    older = recorded(db, device, report(start - timedelta(minutes=10), battery={"pct": 60}))
    after = status(db)
    assert older.created == {0}
    assert not older.last_status_updated
    assert (after["battery_pct"], after["last_ts"]) == (40, start)
    assert after["last_seen_at"] > before["last_seen_at"]


def test_newer_report_of_the_same_bucket_updates_the_last_status(db, device):
    start = an_hour_ago()
    recorded(db, device, report(start, battery={"pct": 40}))
    newer = recorded(db, device, report(start + SECOND, battery={"pct": 39}))
    assert newer.created == set()
    assert newer.last_status_updated
    assert (status(db)["battery_pct"], status(db)["last_ts"]) == (39, start + SECOND)
    assert rows(db)[0]["battery_pct"] == 40


def test_last_status_is_the_newest_of_many_racing_reports(url, db, device):
    start = an_hour_ago()
    racing = [report(start + 10 * n * SECOND, battery={"pct": n}) for n in range(31, -1, -1)]
    results = race(url, *(lambda own, r=r: recorded(own, device, r) for r in racing))
    assert errors(results) == []
    assert (status(db)["battery_pct"], status(db)["last_ts"]) == (31, start + 310 * SECOND)
    assert len(rows(db)) == 32


@pytest.mark.parametrize(
    "change",
    [{}, {"system": {"model": "another"}}, {"fcm_token": "another"}],
    ids=["first", "new facts", "new FCM token"],
)
def test_report_does_not_block_other_reports_of_the_device(url, db, device, change):
    """Heartbeats reference the device: a lock that conflicts with the key's would make concurrent reports deadlock."""
    if change:
        recorded(db, device, report(an_hour_ago(), fcm_token=None))
    other = Database(url)
    with other.transaction() as tx:
        recorded(tx, device, report(datetime.now(UTC), **{"fcm_token": None, **change}))
        assert db.execute("SELECT id FROM devices FOR KEY SHARE NOWAIT") == [{"id": device.id}]
    other.close()


@pytest.mark.parametrize("known", [True, False], ids=["among reports", "the first reports"])
def test_report_that_loses_a_race_to_a_newer_one_is_seen(url, db, device, known):
    start = an_hour_ago()
    db.execute("UPDATE devices SET confirmed_at = now()")
    if known:
        recorded(db, device, report(start))
    newer, older = Database(url), Database(url)
    with ThreadPoolExecutor() as pool:
        with newer.transaction() as tx:
            recorded(tx, device, report(start + 2 * MINUTE))
            sent = datetime.now(UTC)
            losing = pool.submit(recorded, older, device, report(start + MINUTE))
            while not db.execute("SELECT 1 AS waits FROM pg_locks WHERE NOT granted"):
                assert not losing.done()
        assert losing.result().created == {0}
    assert status(db)["last_ts"] == start + 2 * MINUTE
    assert status(db)["last_seen_at"] >= sent
    newer.close()
    older.close()


def written(db: Database) -> dict[str, Any]:
    """Everything that reveals a write: row versions, row locks (xmax), sequence values, and WAL."""
    found = {
        table: db.execute(f"SELECT ctid::text, xmin::text, xmax::text FROM {table} ORDER BY 1")
        for table in ("devices", "device_last_status", "device_heartbeats")
    }
    found["sequence"] = db.execute("SELECT last_value, is_called FROM device_heartbeats_hb_id_seq")
    found["wal"] = db.execute("SELECT pg_current_wal_insert_lsn()::text AS lsn")
    return found


def assert_writes_nothing(db: Database, call: Callable[[], Any]) -> None:
    """The server sometimes writes WAL of its own, so one attempt without WAL is enough; a real write shows in all."""
    for _ in range(10):
        before = written(db)
        call()
        after = written(db)
        if after == before:
            return
        assert {**after, "wal": None} == {**before, "wal": None}
    pytest.fail("WAL was written each time")


def test_exact_repeat_writes_nothing(db, device):
    same = report(an_hour_ago())
    recorded(db, device, same)

    def repeat():
        for _ in range(50):
            repeated = recorded(db, device, same)
            assert repeated.created == set()
            assert not repeated.last_status_updated

    assert_writes_nothing(db, repeat)


def test_exact_repeat_makes_no_second_row_after_the_bucket_size_changed(db, device):
    same = report(an_hour_ago() + 45 * SECOND)
    first = recorded(db, device, same, heartbeat_bucket_seconds=60)
    repeated = recorded(db, device, same, heartbeat_bucket_seconds=30)
    assert first.buckets != repeated.buckets
    assert repeated.created == set()
    assert len(rows(db)) == 1


def test_repeated_queue_writes_nothing(db, device):
    """The response to the queue was lost: every report is an exact repeat, including the older ones."""
    queue = [report(an_hour_ago() + 60 * n * SECOND) for n in range(20)]
    assert recorded(db, device, *queue).created == set(range(20))

    def repeat():
        assert recorded(db, device, *queue).created == set()

    assert_writes_nothing(db, repeat)


def test_repeated_older_report_writes_nothing(db, device):
    start = an_hour_ago()
    older = report(start)
    recorded(db, device, older)
    recorded(db, device, report(start + timedelta(minutes=10)))

    def repeat():
        for _ in range(10):
            assert recorded(db, device, older).created == set()

    assert_writes_nothing(db, repeat)


def test_assert_writes_nothing_detects_a_write(db, device):
    """Shows that the three tests above can fail."""
    start = an_hour_ago()
    later = iter(range(1, 1000))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        assert_writes_nothing(db, lambda: recorded(db, device, report(start + next(later) * SECOND / 1000)))


# --- H5: a device is online by what the server received, not by the device's clock


def online(device_id: str) -> bool:
    return call("GET", f"/v1/devices/{device_id}").json["online"]


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(days=-900), timedelta(days=900), timedelta(days=1)])
def test_device_that_reported_is_online_whatever_its_clock(db, device, ago):
    assert not online(device.id)
    recorded(db, device, report(datetime.now(UTC) - ago))
    assert online(device.id)


def test_device_is_offline_after_three_intervals(db, device, monkeypatch):
    recorded(db, device, report(datetime.now(UTC)))
    db.execute("UPDATE device_last_status SET last_seen_at = statement_timestamp() - interval '29 minutes 50 seconds'")
    assert online(device.id)
    db.execute("UPDATE device_last_status SET last_seen_at = statement_timestamp() - interval '30 minutes 1 second'")
    assert not online(device.id)
    monkeypatch.setenv("HEARTBEAT_INTERVAL_SECONDS", "1200")
    configuration.load.cache_clear()
    assert online(device.id)


def test_device_whose_clock_stands_still_is_online(db, device):
    same = report(an_hour_ago())
    recorded(db, device, same)
    db.execute("UPDATE device_last_status SET last_seen_at = statement_timestamp() - interval '2 hours'")
    assert not online(device.id)
    recorded(db, device, same)
    assert online(device.id)


def test_last_seen_never_goes_backwards(db, device):
    recorded(db, device, report(datetime.now(UTC)))
    db.execute("UPDATE device_last_status SET last_seen_at = statement_timestamp() + interval '1 hour'")
    before = status(db)["last_seen_at"]
    recorded(db, device, report(datetime.now(UTC)))
    recorded(db, device, report(an_hour_ago()))
    assert status(db)["last_seen_at"] == before


# --- the request body and its columns


def test_every_field_reaches_its_column(db, device):
    recorded(db, device, report(datetime.now(UTC)))
    (row,) = rows(db)
    assert {name: row[name] for name in agent.COLUMNS} == agent.COLUMNS
    assert {name: status(db)[name] for name in agent.COLUMNS} == agent.COLUMNS
    (kept,) = db.execute("SELECT * FROM devices")
    assert {name: kept[name] for name in agent.DEVICE_COLUMNS} == agent.DEVICE_COLUMNS
    assert row["device_id"] == device.id


# The columns that are null without a field from the agent.
COLUMNS_OF = {
    "app_version": {"agent_version"},
    "app_versions": {"unity_pkg_version"},
    "battery": {"battery_pct", "plugged", "temp_c"},
    "system": {"uptime_s"},
    "memory": {"ram_used_mb", "pressure_pct"},
    "network": {"network_type", "ssid", "ip"},
    "unity_process_running": {"unity_running"},
    **{name: {name} for name in ("power_ok", "doze_whitelisted", "net_validated", "queue_depth")},
    "monitored_foreground_recent_s": {"monitored_foreground_recent_s"},
}
UNKNOWN = {
    "battery_pct": {"battery": {"pct": -1, "charging": True}},
    "uptime_s": {"system": {"uptime_seconds": -1.0}},
    "ram_used_mb": {"memory": {"total_ram_mb": -1, "avail_ram_mb": 100}},
    "queue_depth": {"queue_depth": -1},
}


@pytest.mark.parametrize("column", UNKNOWN)
def test_minus_one_means_unknown(db, device, column):
    recorded(db, device, report(datetime.now(UTC), **UNKNOWN[column]))
    assert rows(db)[0][column] is None


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"network": {"transport": "none"}}, "network_type", "none"),
        ({"network": {"transport": "cell", "carrier": "o2"}}, "network_type", "cell"),
        ({"battery": {"pct": 0.0, "temperature_c": -7.5}}, "temp_c", -7.5),
        ({"battery": {"pct": 0.0}}, "battery_pct", 0),
        ({"battery": {"charging": False}}, "plugged", False),
        ({"memory": {"total_ram_mb": 2000.0, "avail_ram_mb": 0.0}}, "ram_used_mb", 2000),
        ({"memory": {"total_ram_mb": 2000.0}}, "ram_used_mb", None),
        ({"system": {"uptime_seconds": 3.2e9}}, "uptime_s", 3_200_000_000),
        ({"app_versions": {}}, "unity_pkg_version", None),
        ({"app_versions": {"io.unitynodes.unityapp": {"installed": False}}}, "unity_pkg_version", None),
        ({"app_versions": {"io.unitynodes.unityapp": None}}, "unity_pkg_version", None),
        ({"unity_process_running": False}, "unity_running", False),
        ({"signal_dbm": -71}, "signal_dbm", -71),
        ({"status": "warn"}, "status", "warn"),
        ({"status": "error"}, "status", "error"),
        ({"battery_pct": 12}, "battery_pct", 12),
        ({"network": {"transport": "wifi", "ip": "fe80::1%wlan0"}}, "ip", "fe80::1%wlan0"),
        ({"anything": {"the": ["agent", "adds"]}}, "status", "ok"),
    ],
)
def test_field_is_converted_to_its_column(db, device, changes, column, value):
    recorded(db, device, report(datetime.now(UTC), **changes))
    assert rows(db)[0][column] == value
    assert status(db)[column] == value


def test_every_field_may_be_absent_or_null(db, device):
    later = iter(range(1000))
    for name in agent.heartbeat():
        absent, null = (agent.heartbeat(an_hour_ago() + 10 * next(later) * SECOND) for _ in range(2))
        del absent[name]
        null[name] = None
        for body in (absent, null):
            recorded(db, device, read(body))
            (newest,) = db.execute("SELECT * FROM device_heartbeats ORDER BY hb_id DESC LIMIT 1")
            differing = {column for column, value in agent.COLUMNS.items() if newest[column] != value}
            assert differing == COLUMNS_OF.get(name, set()), name


@pytest.mark.parametrize("part", ["battery", "system", "memory", "network"])
def test_every_field_of_a_part_may_be_absent_or_null(part):
    for name in agent.heartbeat()[part]:
        whole = agent.heartbeat()[part]
        read(agent.heartbeat(**{part: {k: v for k, v in whole.items() if k != name}}))
        read(agent.heartbeat(**{part: {**whole, name: None}}))


def test_flat_form_is_accepted(db, device):
    flat = {
        "status": "warn",
        "battery_pct": 77,
        "plugged": False,
        "temp_c": 30.5,
        "network_type": "wifi",
        "signal_dbm": -60,
        "uptime_s": 100,
        "ram_used_mb": 900,
        "unity_pkg_version": "1.8",
        "unity_running": True,
        "agent_version": "2.0",
        "ip": "10.0.0.1",
    }
    recorded(db, device, read(flat))
    assert {name: rows(db)[0][name] for name in flat} == flat


def test_unity_package_is_a_setting(db, device):
    body = agent.heartbeat(app_versions={"com.example.player": {"installed": True, "version_name": "7"}})
    recorded(db, device, read(body, "com.example.player"))
    assert rows(db)[0]["unity_pkg_version"] == "7"


# --- other effects of the statement


def fcm_token(db: Database) -> str | None:
    return db.execute("SELECT fcm_token FROM devices")[0]["fcm_token"]


def test_only_a_newer_report_changes_the_fcm_token(db, device):
    start = an_hour_ago()
    recorded(db, device, report(start, fcm_token="of the hour"))
    assert fcm_token(db) == "of the hour"
    recorded(db, device, report(start - timedelta(minutes=10), fcm_token="of the queue"))
    assert fcm_token(db) == "of the hour"
    recorded(db, device, report(start + SECOND, fcm_token="of the same bucket"))
    assert fcm_token(db) == "of the same bucket"
    recorded(db, device, report(start + 2 * SECOND, fcm_token=None))
    assert fcm_token(db) == "of the same bucket"


def test_drained_queue_sets_its_newest_fcm_token(db, device):
    start = an_hour_ago()
    tokens = {0: "first", 30: "third", 20: "second"}
    recorded(db, device, *(report(start + n * SECOND, fcm_token=token) for n, token in tokens.items()))
    assert fcm_token(db) == "third"


def test_newest_of_racing_reports_sets_the_fcm_token_and_the_facts(url, db, device):
    for attempt in range(5):
        # The reports are in several buckets, so that only the device's row makes them take turns.
        start = an_hour_ago() + 60 * attempt * SECOND
        ways = [
            report(start + n * SECOND, fcm_token=f"{attempt}-{n}", system={"android_version": f"{attempt}-{n}"})
            for n in range(32)
        ]
        results = race(url, *(lambda own, way=way: recorded(own, device, way) for way in reversed(ways)))
        assert errors(results) == []
        (kept,) = db.execute("SELECT fcm_token, android_version FROM devices")
        assert kept == {"fcm_token": f"{attempt}-31", "android_version": f"{attempt}-31"}


def test_first_use_of_a_token_locks_the_last_status_before_the_device(url, db, device):
    """Every report takes its locks in this order; otherwise two reports of one phone can wait for each other."""
    start = an_hour_ago()
    recorded(db, device, report(start))
    db.execute("UPDATE devices SET confirmed_at = NULL")
    meeting(
        url,
        lambda tx: record.for_device(tx, device.id, [report(start + SECOND)], configuration.load(), 10),
        lambda own: recorded(own, device, report(start + 2 * SECOND)),
        then=free("devices"),
    )
    assert db.execute("SELECT confirmed_at IS NOT NULL AS confirmed FROM devices") == [{"confirmed": True}]


def test_first_reports_with_a_new_token_take_turns(url, db, device):
    """One that is not the newest locks the device by a foreign key; it must not do so before it has the last status."""
    start = an_hour_ago()
    recorded(db, device, report(start))
    db.execute("UPDATE devices SET confirmed_at = NULL, prior_token_id = 'earlier'")
    meeting(
        url,
        lambda tx: tx.execute("SELECT FROM device_last_status FOR NO KEY UPDATE"),
        lambda own: recorded(own, device, report(start - 60 * SECOND)),
        then=lambda tx: tx.execute("SELECT FROM devices FOR UPDATE NOWAIT"),
    )
    assert db.execute("SELECT prior_token_id FROM devices") == [{"prior_token_id": None}]


def test_device_facts_follow_the_newest_report(db, device):
    start = an_hour_ago()
    recorded(db, device, report(start))
    recorded(db, device, report(start + SECOND, system={"android_version": "14"}))
    recorded(db, device, report(start - SECOND, system={"android_version": "12"}))
    (kept,) = db.execute("SELECT android_version, model FROM devices")
    assert kept == {"android_version": "14", "model": "SM-T225"}


def test_batch_keeps_the_first_report_of_a_bucket_and_shows_the_newest(db, device):
    start = an_hour_ago()
    batch = recorded(
        db,
        device,
        report(start + 3 * SECOND, battery={"pct": 3}),
        report(start + 9 * SECOND, battery={"pct": 9}),
        report(start + 3 * SECOND, battery={"pct": 33}),
        report(start + 12 * SECOND, battery={"pct": 12}),
        report(start + 1 * SECOND, battery={"pct": 1}),
    )
    assert batch.created == {0, 3}
    assert sorted(row["battery_pct"] for row in rows(db)) == [3, 12]
    assert status(db)["battery_pct"] == 12


def test_empty_batch_authenticates_and_writes_nothing(db, device):
    assert recorded(db, device).created == set()
    assert rows(db) == []
    with pytest.raises(NotAuthenticated):
        recorded(db, type(device)("", "another"))


def test_wrong_token_or_deleted_device_stores_nothing(db, device):
    with pytest.raises(NotAuthenticated):
        recorded(db, type(device)(device.id, device.token[:-1]), report(datetime.now(UTC)))
    call("DELETE", f"/v1/devices/{device.id}")
    with pytest.raises(DeviceDeleted):
        recorded(db, device, report(datetime.now(UTC)))
    with pytest.raises(UnknownDevice):
        record.for_device(db, "nobody", [report(datetime.now(UTC))], configuration.load(), 10)
    assert rows(db) == []
    assert db.execute("SELECT * FROM device_last_status") == []


def test_report_outside_all_partitions_is_stored(db, device):
    partitions = db.execute("""SELECT inhrelid::regclass::text AS name FROM pg_inherits
        WHERE inhparent = 'device_heartbeats'::regclass AND inhrelid <> 'device_heartbeats_default'::regclass""")
    db.execute(f"DROP TABLE {', '.join(row['name'] for row in partitions)}")
    assert recorded(db, device, report(datetime.now(UTC))).created == {0}
    assert db.execute("SELECT count(*) AS n FROM device_heartbeats_default") == [{"n": 1}]
