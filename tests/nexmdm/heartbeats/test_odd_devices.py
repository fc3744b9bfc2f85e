"""Clocks set back, one device token on two phones, one FCM registration token on two devices, and the app inventory."""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nexmdm.devices import registry
from nexmdm.heartbeats import body as reported
from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import HeartbeatBody
from nexmdm.runtime import lenient, settings
from nexmdm.runtime.database import Database

from tests.support import agent
from tests.support.api import call, enroll
from tests.support.races import errors, race

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Phone:
    """A phone with its own clock: `clock` is its offset from the server's, `booted_at` the real time of its start."""

    def __init__(self, alias: str = "lobby") -> None:
        self.device_id, self.token = enroll(alias)
        self.clock = timedelta()
        self.booted_at = datetime.now(UTC) - 10 * HOUR

    def body(self, ago: timedelta = timedelta(), **changes: Any) -> dict[str, Any]:
        """A report that was made `ago` before now."""
        now = datetime.now(UTC) - ago
        body = agent.heartbeat(now + self.clock, **{"fcm_token": f"fcm:{self.device_id}", **changes})
        body["system"] = body["system"] | {"uptime_seconds": (now - self.booted_at).total_seconds()}
        return body

    def report(self, ago: timedelta = timedelta(), **changes: Any) -> dict[str, Any]:
        answer = call("POST", "/v1/heartbeat", self.body(ago, **changes), token=self.token)
        assert answer.status == 200, answer.text
        return answer.json


@pytest.fixture
def phone(url: str) -> Iterator[Phone]:
    return Phone()


def status(db: Database, device: str) -> dict[str, Any]:
    (row,) = db.execute("SELECT * FROM device_last_status WHERE device_id = %(id)s", {"id": device})
    return row


def time_passes(db: Database, device: str, passed: timedelta) -> None:
    """Let time pass, as if the device's last report had been received that much earlier."""
    db.execute(
        """UPDATE device_last_status SET last_ts = last_ts - %(passed)s, last_seen_at = last_seen_at - %(passed)s,
               received_at = received_at - %(passed)s, device_ts = device_ts - %(passed)s,
               uptime_s = uptime_s - extract(epoch FROM %(passed)s)::int8
           WHERE device_id = %(id)s""",
        {"id": device, "passed": passed},
    )


# --- a queue in which a clock is wrong


def drain(phone: Phone, *bodies: dict[str, Any]) -> list[str]:
    answer = call("POST", "/v1/heartbeats", {"heartbeats": list(bodies)}, token=phone.token)
    assert answer.status == 200, answer.text
    return [result["status"] for result in answer.json["results"]]


def from_1970(seconds: int, **changes: Any) -> dict[str, Any]:
    """A report of a phone that has just started and does not know the time."""
    body = agent.heartbeat(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds), **changes)
    body["system"] = body["system"] | {"uptime_seconds": seconds}
    return body


def test_report_from_before_the_clock_was_set_does_not_replace_a_later_one(db, phone):
    old = from_1970(60, battery={"pct": 90}, fcm_token="fcm:old")
    assert drain(phone, old, phone.body(ago=5 * MINUTE, battery={"pct": 10}, fcm_token="fcm:new")) == ["created"] * 2
    assert status(db, phone.device_id)["battery_pct"] == 10
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": "fcm:new"}]


def test_last_report_of_a_queue_counts_even_if_its_clock_is_wrong(db, phone):
    drain(phone, phone.body(ago=5 * MINUTE, battery={"pct": 90}), from_1970(60, battery={"pct": 10}))
    assert status(db, phone.device_id)["battery_pct"] == 10


def test_queue_with_a_wrong_clock_that_is_sent_again_changes_nothing(db, phone):
    queue = [from_1970(60, battery={"pct": 90}), from_1970(660, battery={"pct": 10})]
    drain(phone, *queue)
    before = status(db, phone.device_id)
    assert drain(phone, *queue) == ["duplicate"] * 2
    assert status(db, phone.device_id) == before


@pytest.mark.parametrize("told_by", [0, 1])
def test_what_only_one_report_of_a_queue_says_about_the_device_is_kept(db, phone, told_by):
    queue = [phone.body(ago=n * MINUTE) for n in (20, 10)]
    for body in queue:
        del body["fcm_token"], body["system"]["model"]
        body.pop("app_versions", None)
    queue[told_by]["fcm_token"] = "fcm:told"
    queue[told_by]["system"]["model"] = "told"
    queue[told_by]["app_versions"] = {"com.told": {"version_name": "1"}}
    drain(phone, *queue)
    assert db.execute("SELECT fcm_token, model FROM devices") == [{"fcm_token": "fcm:told", "model": "told"}]
    assert db.execute("SELECT package FROM device_apps WHERE installed") == [{"package": "com.told"}]


# --- a clock that was set back


def test_phone_that_takes_over_is_shown_although_its_clock_is_behind(db, phone):
    phone.report(battery={"pct": 90})
    new = Phone()
    assert new.device_id == phone.device_id
    new.clock = -20 * HOUR
    for pct in (50, 20, 3):
        new.report(battery={"pct": pct})
        assert status(db, new.device_id)["battery_pct"] == pct
        time_passes(db, new.device_id, 10 * MINUTE)


@pytest.mark.parametrize("back", [13 * MINUTE, HOUR, 30 * HOUR, 47 * HOUR])
def test_report_after_the_clock_was_set_back_becomes_the_last_status(db, phone, back):
    phone.report(battery={"pct": 80})
    time_passes(db, phone.device_id, 10 * MINUTE)
    phone.clock = -back
    before = datetime.now(UTC)
    phone.report(battery={"pct": 3}, unity_process_running=False)
    row = status(db, phone.device_id)
    assert (row["battery_pct"], row["unity_running"]) == (3, False)
    assert abs(row["last_ts"] - before) < MINUTE, "the report is stored with the receive time"


def test_every_report_after_the_clock_was_set_back_is_shown(db, phone):
    phone.report(battery={"pct": 80})
    phone.clock = -5 * HOUR
    for pct in (50, 20, 3):
        time_passes(db, phone.device_id, 10 * MINUTE)
        phone.report(battery={"pct": pct})
        assert status(db, phone.device_id)["battery_pct"] == pct


def test_exact_repeat_after_the_clock_was_set_back_writes_nothing(db, phone):
    phone.report()
    time_passes(db, phone.device_id, 10 * MINUTE)
    db.execute("DELETE FROM device_heartbeats")  # the bucket of the first report is now
    phone.clock = -HOUR
    body = phone.body()
    first = call("POST", "/v1/heartbeat", body, token=phone.token).json
    before = status(db, phone.device_id), db.execute("SELECT count(*) AS n FROM device_heartbeats")
    again = call("POST", "/v1/heartbeat", body, token=phone.token).json
    assert (first["status"], again["status"]) == ("created", "duplicate")
    assert (status(db, phone.device_id), db.execute("SELECT count(*) AS n FROM device_heartbeats")) == before


def test_overtaken_report_is_not_taken_for_a_clock_set_back(db, phone):
    phone.report(battery={"pct": 80})
    for ago in (121 * timedelta(seconds=1), 10 * MINUTE, 3 * HOUR):
        phone.report(ago, battery={"pct": 5})
        assert status(db, phone.device_id)["battery_pct"] == 80


def test_queue_from_before_a_reboot_is_not_taken_for_a_clock_set_back(db, phone):
    queued = [phone.body(ago, battery={"pct": 5}) for ago in (40 * MINUTE, 30 * MINUTE, 20 * MINUTE)]
    phone.booted_at = datetime.now(UTC) - MINUTE
    phone.report(battery={"pct": 80})
    for body in queued:
        assert call("POST", "/v1/heartbeat", body, token=phone.token).status == 200
        assert status(db, phone.device_id)["battery_pct"] == 80


def test_queue_of_several_reports_is_not_taken_for_a_clock_set_back(db, phone):
    phone.report(battery={"pct": 80})
    time_passes(db, phone.device_id, 10 * MINUTE)
    phone.clock = -HOUR
    items = [phone.body(MINUTE, battery={"pct": 5}), phone.body(battery={"pct": 4})]
    assert call("POST", "/v1/heartbeats", {"heartbeats": items}, token=phone.token).status == 200
    assert status(db, phone.device_id)["battery_pct"] == 80


def test_report_with_an_inconsistent_uptime_is_not_taken_for_a_clock_set_back(db, phone):
    phone.report(battery={"pct": 80})
    time_passes(db, phone.device_id, 10 * MINUTE)
    phone.clock = -HOUR
    phone.booted_at -= 3 * MINUTE
    phone.report(battery={"pct": 5})
    assert status(db, phone.device_id)["battery_pct"] == 80


# --- one device token on two phones


def test_two_phones_with_one_token_are_detected_at_the_third_report(db, phone):
    starts = [datetime.now(UTC) - 10 * HOUR, datetime.now(UTC) - 3 * HOUR]
    for n, start in enumerate([starts[0], starts[1], starts[0]]):
        assert status_or_none(db, phone)["token_shared_at"] is None
        phone.booted_at = start
        phone.report()
        time_passes(db, phone.device_id, 5 * MINUTE)
        assert n < 2 or status(db, phone.device_id)["token_shared_at"] is not None


def status_or_none(db: Database, phone: Phone) -> dict[str, Any]:
    rows = db.execute("SELECT * FROM device_last_status WHERE device_id = %(id)s", {"id": phone.device_id})
    return rows[0] if rows else {"token_shared_at": None}


def test_two_models_with_one_token_are_detected(db, phone):
    for model in ("SM-T225", "Pixel 7"):
        phone.report(system={"model": model, "uptime_seconds": 5})
        time_passes(db, phone.device_id, MINUTE)
    assert status(db, phone.device_id)["token_shared_at"] is None
    phone.report(system={"model": "SM-T225", "uptime_seconds": 5})
    assert status(db, phone.device_id)["token_shared_at"] is not None


def test_reboots_and_a_corrected_clock_count_as_one_phone(db, phone):
    for booted, clock in ((10 * HOUR, HOUR), (10 * HOUR, 0 * HOUR), (2 * HOUR, 0 * HOUR), (MINUTE, 0 * HOUR)):
        phone.booted_at, phone.clock = datetime.now(UTC) - booted, -clock
        phone.report()
        time_passes(db, phone.device_id, MINUTE)
        assert status(db, phone.device_id)["token_shared_at"] is None


# --- one FCM registration token on two devices


def fcm_tokens(db: Database) -> dict[str, str | None]:
    return {row["id"]: row["fcm_token"] for row in db.execute("SELECT id, fcm_token FROM devices")}


def by_heartbeat(phone: Phone) -> None:
    phone.report(fcm_token="fcm:of the backup")


def by_route(phone: Phone) -> None:
    body = {"device_id": phone.device_id, "fcm_token": "fcm:of the backup"}
    assert call("POST", "/v1/devices/fcm-token", body, token=phone.token).status == 200


@pytest.mark.parametrize("way", [by_heartbeat, by_route])
def test_latest_device_to_report_an_fcm_token_keeps_it(db, url, way):
    first, second = Phone("a"), Phone("b")
    way(first)
    way(second)
    assert fcm_tokens(db) == {first.device_id: None, second.device_id: "fcm:of the backup"}
    way(first)
    assert fcm_tokens(db) == {first.device_id: "fcm:of the backup", second.device_id: None}


def test_16_devices_that_race_for_one_fcm_token_leave_one_owner(url, db):
    phones = [Phone(f"d{n}") for n in range(16)]

    def by_heartbeat(own: Database, phone: Phone) -> None:
        body, dropped = lenient.read(json.dumps(phone.body(fcm_token="fcm:of the backup")).encode(), HeartbeatBody)
        record.for_token(own, phone.token, [reported.report(body, "none", dropped)], settings.load())

    def by_route(own: Database, phone: Phone) -> None:
        registry.set_fcm_token(own, phone.token, None, "fcm:of the backup")

    ways = [by_heartbeat, by_route]
    results = race(url, *(lambda own, n=n, phone=phone: ways[n % 2](own, phone) for n, phone in enumerate(phones)))
    assert errors(results) == []
    assert sorted(token is not None for token in fcm_tokens(db).values()) == [False] * 15 + [True]


def test_previous_release_takes_an_fcm_token_without_an_error(db, url):
    first, second = Phone("a"), Phone("b")
    for phone in (first, second):
        db.execute("UPDATE devices SET fcm_token = 'fcm:same' WHERE id = %(id)s", {"id": phone.device_id})
    assert fcm_tokens(db) == {first.device_id: None, second.device_id: "fcm:same"}


def test_phone_without_an_fcm_token_gets_one_although_its_clock_is_behind(db, phone):
    call("POST", "/v1/devices/fcm-token", {"fcm_token": "fcm:first"}, token=phone.token)
    db.execute("UPDATE devices SET fcm_token = NULL, unregistered_fcm_token = fcm_token")
    phone.clock = -HOUR
    phone.report(fcm_token="fcm:first")
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": None}]
    phone.report(fcm_token="fcm:second")
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": "fcm:second"}]


def test_fcm_token_that_no_index_holds_does_not_lose_the_report(db, phone):
    longest, longer = (secrets.token_hex(2048)[:n] for n in (2600, 2601))
    phone.report(fcm_token=longest)
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": longest}]
    phone.report(fcm_token=longer, battery={"pct": 3})
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": longest}]
    assert status(db, phone.device_id)["battery_pct"] == 3
    call("POST", "/v1/devices/fcm-token", {"fcm_token": longer}, token=phone.token).problem(422, "$.fcm_token")


def test_unregistered_fcm_token_is_ignored_until_the_device_reports_another(db, phone):
    phone.report()
    db.execute("UPDATE devices SET fcm_token = NULL, unregistered_fcm_token = fcm_token")
    phone.report()
    assert fcm_tokens(db) == {phone.device_id: None}
    phone.report(fcm_token="fcm:new")
    assert fcm_tokens(db) == {phone.device_id: "fcm:new"}


# --- the app inventory


def apps(db: Database) -> dict[str, tuple[Any, ...]]:
    """package -> (installed, version_name, version_code, whether it was removed)"""
    rows = db.execute("SELECT * FROM device_apps")
    return {
        row["package"]: (row["installed"], row["version_name"], row["version_code"], row["removed_at"] is not None)
        for row in rows
    }


PLAYER = {"installed": True, "version_name": "1.9.0", "version_code": 190}
TOOL = {"installed": True, "version_code": 7}


def written(db: Database) -> list[Any]:
    """The version of each row: PostgreSQL gives a row that is written again another one."""
    return db.execute("SELECT package, xmin::text, ctid::text FROM device_apps ORDER BY package")


LOCKED = "SELECT package, xmax::text FROM device_apps ORDER BY package"


def test_inventory_follows_the_newest_report(db, phone):
    phone.report(app_versions={"com.player": PLAYER, "com.tool": TOOL, "com.absent": {"installed": False}})
    assert apps(db) == {
        "com.player": (True, "1.9.0", 190, False),
        "com.tool": (True, None, 7, False),
        "com.absent": (False, None, None, False),
    }
    phone.report(app_versions={"com.player": PLAYER | {"version_code": 191}, "com.absent": {"installed": False}})
    assert apps(db)["com.player"] == (True, "1.9.0", 191, False)
    assert apps(db)["com.tool"] == (False, None, 7, True)
    phone.report(app_versions={"com.tool": TOOL, "com.player": {"installed": False}})
    assert apps(db)["com.tool"] == (True, None, 7, False)
    assert apps(db)["com.player"] == (False, "1.9.0", 191, True)


def test_unchanged_inventory_in_any_order_writes_nothing(db, phone):
    phone.report(app_versions={"com.player": PLAYER, "com.tool": TOOL})
    before, locked = written(db), db.execute(LOCKED)
    phone.report(app_versions={"com.tool": TOOL, "com.player": PLAYER})
    assert (written(db), db.execute(LOCKED)) == (before, locked), "a row was written or locked"
    phone.report(app_versions={"com.tool": TOOL, "com.player": PLAYER | {"version_code": 191}})
    assert [row["package"] for row, old in zip(written(db), before, strict=True) if row != old] == ["com.player"]


UNREADABLE = [None, [], "x", 5, [{"com.player": {}}], {f"com.app{n}": {} for n in range(20_000)}]


@pytest.mark.parametrize("apps_", UNREADABLE, ids=lambda value: str(value)[:20])
def test_absent_or_unreadable_inventory_changes_nothing(db, phone, apps_):
    phone.report(app_versions={"com.player": PLAYER})
    before, hashed = written(db), status(db, phone.device_id)["apps_hash"]
    phone.report(app_versions=apps_)
    body = phone.body()
    del body["app_versions"]
    assert call("POST", "/v1/heartbeat", body, token=phone.token).status == 200
    assert (written(db), status(db, phone.device_id)["apps_hash"]) == (before, hashed)


def test_unreadable_entry_leaves_its_app_unchanged(db, phone):
    phone.report(app_versions={"com.player": PLAYER, "com.tool": TOOL})
    phone.report(app_versions={"com.player": "1.9.1", "com.tool": {"installed": True, "version_code": "new"}})
    assert apps(db) == {"com.player": (True, "1.9.0", 190, False), "com.tool": (True, None, None, False)}


def test_empty_inventory_means_nothing_is_installed(db, phone):
    phone.report(app_versions={"com.player": PLAYER})
    phone.report(app_versions={})
    assert apps(db) == {"com.player": (False, "1.9.0", 190, True)}


def test_older_report_does_not_change_the_inventory(db, phone):
    phone.report(app_versions={"com.player": PLAYER})
    phone.report(5 * MINUTE, app_versions={"com.tool": TOOL})
    assert apps(db) == {"com.player": (True, "1.9.0", 190, False)}


# --- pending commands


def test_pending_commands_are_ordered_by_expiry_and_repeat_until_answered(db, phone):
    for n in range(25):
        command(db, phone, f"never-{n:02}", seconds=3600)
    command(db, phone, "urgent", seconds=60)
    command(db, phone, "again", seconds=50, state="sent", delivery="until_answered")
    command(db, phone, "once", seconds=40, state="sent")
    command(db, phone, "over", seconds=-1)
    pending = [message["request_id"] for message in phone.report()["pending_commands"]]
    assert pending == ["again", "urgent", *(f"never-{n:02}" for n in range(18))]


def command(
    db: Database, phone: Phone, name: str, seconds: int, state: str = "accepted", delivery: str = "at_most_once"
) -> None:
    db.execute(
        """INSERT INTO fcm_dispatches (request_id, device_id, action, state, delivery, created_by, expires_at)
           VALUES (%(name)s, %(device)s, 'ping', %(state)s, %(delivery)s, 'operator',
                   statement_timestamp() + make_interval(secs => %(seconds)s))""",
        {"name": name, "device": phone.device_id, "state": state, "delivery": delivery, "seconds": seconds},
    )
