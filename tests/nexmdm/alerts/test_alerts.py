"""Alerts: each condition found and over, one open per device and condition, told once, flapping or raced or not."""

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from msgspec import UNSET
from nexmdm.alerts import evaluation, notifications
from nexmdm.alerts.conditions import DECLARATIONS, Condition
from nexmdm.alerts.evaluation import Evaluated
from nexmdm.builds import downloads
from nexmdm.devices import deletion, registry
from nexmdm.retention import run
from nexmdm.runtime import actor, settings
from nexmdm.runtime.database import Database
from nexmdm.schema.models import ALERT_CONDITIONS

from tests.support import agent
from tests.support.api import Device, call
from tests.support.races import errors, race

NONE = Evaluated()


def report(device: Device, **changes: Any) -> None:
    assert call("POST", "/v1/heartbeat", agent.heartbeat(**changes), token=device.token).status == 200


def look(db: Database) -> dict[str, Evaluated]:
    """What changed, without the conditions of which nothing did."""
    return {name: found for name, found in evaluation.evaluate(db, settings.load()).items() if found != NONE}


def opened(*conditions: str) -> dict[str, Evaluated]:
    return {condition: Evaluated(opened=1) for condition in conditions}


def recovered(*conditions: str) -> dict[str, Evaluated]:
    return {condition: Evaluated(recovered=1) for condition in conditions}


def cool_down(db: Database) -> None:
    """Time passes, by ageing rows."""
    db.execute("UPDATE device_alerts SET clear_since = clear_since - interval '31 minutes'")


def tell(db: Database) -> notifications.Notification | None:
    notice = notifications.claim(db, "nexmdm")
    if notice:
        notifications.settle(db, notice.claim_id)
    return notice


def low_battery(db: Database, count: int) -> None:
    """Devices d1, d2, .. with an empty battery, beside those that there are."""
    db.execute(
        "INSERT INTO devices (id, alias) SELECT 'd' || n, 'kiosk-' || lpad(n::text, 3, '0')"
        " FROM generate_series(1, %(n)s) AS n",
        {"n": count},
    )
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, battery_pct, unity_running)"
        " SELECT id, now(), 9, true FROM devices WHERE id LIKE 'd%'"
    )


def has_app(db: Database, *device_ids: str) -> None:
    """The monitored app is installed there."""
    db.execute(
        "INSERT INTO device_apps (device_id, package, installed)"
        " SELECT id, 'io.unitynodes.unityapp', true FROM unnest(%(ids)s::text[]) AS id",
        {"ids": list(device_ids)},
    )


# --- the conditions


def test_the_conditions_are_those_of_the_schema_and_of_the_list():
    assert tuple(Condition) == ALERT_CONDITIONS
    assert set(DECLARATIONS) == set(Condition), "declare it in nexmdm.alerts.conditions"


def test_nothing_is_wrong_with_a_device_that_reports(db: Database, device: Device):
    report(device)
    assert look(db) == {}
    assert tell(db) is None


def test_silent_for_three_intervals(db: Database, device: Device):
    report(device)
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '29 minutes'")
    assert look(db) == {}
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '31 minutes'")
    assert look(db) == opened("silent")
    heard = datetime.now(UTC) - timedelta(minutes=31)
    assert tell(db).text in {
        f"Silent: lobby (last heard from {at:%Y-%m-%d %H:%M} UTC)" for at in (heard, heard - timedelta(minutes=1))
    }
    assert look(db) == {}


def test_a_device_that_never_reported_is_silent_from_its_enrollment(db: Database, device: Device):
    assert look(db) == {}
    db.execute("UPDATE devices SET created_at = now() - interval '31 minutes'")
    assert look(db) == opened("silent")
    assert tell(db).text == "Silent: lobby (never heard from)"


@pytest.mark.parametrize(("percent", "found"), [(15, {}), (14, opened("low_battery"))])
def test_a_battery_below_15_percent(db: Database, device: Device, percent: int, found: dict):
    report(device, battery={"pct": float(percent), "charging": False})
    assert look(db) == found


def test_app_down(db: Database, device: Device):
    report(device, unity_process_running=None)
    assert look(db) == {}
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert look(db) == opened("app_down")
    assert tell(db).text == "App down: lobby (io.unitynodes.unityapp)"


def test_app_is_never_down_where_it_is_not_installed_or_was_just_in_front(db: Database, device: Device):
    """Android 7 and later hide processes from the agent, so the process alone is no proof."""
    report(device, unity_process_running=False, monitored_foreground_recent_s=30)
    assert look(db) == {}
    missing = {"io.unitynodes.unityapp": {"installed": False}}
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600, app_versions=missing)
    assert look(db) == {}


def rule(db: Database, condition: str, **columns: Any) -> None:
    db.execute(f"INSERT INTO alert_rules (name, condition) VALUES ('{condition}', '{condition}')")


def test_app_in_the_background(db: Database, device: Device):
    rule(db, "app_background")
    report(device, monitored_foreground_recent_s=-1)
    assert look(db) == {}
    report(device, monitored_foreground_recent_s=600, timestamp_utc=agent.utc(datetime.now(UTC)))
    assert look(db) == {}
    report(device, monitored_foreground_recent_s=601, timestamp_utc=agent.utc(datetime.now(UTC)))
    assert look(db) == opened("app_background")


def test_high_temperature(db: Database, device: Device):
    rule(db, "high_temperature")
    db.execute("UPDATE device_last_status SET temp_c = 49.9")
    report(device, battery={"temperature_c": 49.9})
    assert look(db) == {}
    db.execute("UPDATE device_last_status SET temp_c = 50")
    assert look(db) == opened("high_temperature")


def test_two_phones_with_one_identity(db: Database, device: Device):
    rule(db, "duplicate_identity")
    report(device)
    assert look(db) == {}
    db.execute("UPDATE device_last_status SET token_shared_at = now() - interval '2 hours'")
    assert look(db) == opened("duplicate_identity")
    db.execute("UPDATE device_last_status SET token_shared_at = NULL")
    db.execute("UPDATE devices SET hardware_id = 'h'")
    db.execute("INSERT INTO devices (id, alias, hardware_id) VALUES ('twin', 'twin', 'h')")
    assert look(db)["duplicate_identity"].opened == 1
    assert "same hardware as" in tell(db).text


@pytest.mark.parametrize(("off", "found"), [(400, True), (-400, True), (200, False), (-200, False)])
def test_a_clock_that_is_wrong(db: Database, device: Device, off: int, found: bool):
    rule(db, "clock_wrong")
    report(device)
    db.execute(
        "UPDATE device_last_status SET received_at = now(), device_ts = now() + make_interval(secs => %(off)s),"
        " queue_depth = 0",
        {"off": off},
    )
    assert look(db) == (opened("clock_wrong") if found else {})


@pytest.mark.parametrize(
    ("depths", "found"),
    [
        ([2, 8, 20], opened("queue_growing")),
        ([11, 12, 13, 14], opened("queue_growing")),
        ([20, 20, 20], {}),  # deep, and not growing
        ([30, 40, 20], {}),
        ([1, 2, 3], {}),  # growing, and nothing to speak of
        ([2, 20], {}),  # too few to tell
    ],
)
def test_a_queue_that_grows(db: Database, device: Device, depths: list[int], found: dict):
    for n, depth in enumerate(reversed(depths)):
        report(device, timestamp_utc=agent.utc(datetime.now(UTC) - n * timedelta(minutes=10)), queue_depth=depth)
    assert look(db) == found


def test_reports_of_long_ago_say_nothing_about_a_queue(db: Database, device: Device):
    for n, depth in ((0, 20), (5, 2), (6, 1)):
        report(device, timestamp_utc=agent.utc(datetime.now(UTC) - n * timedelta(minutes=10)), queue_depth=depth)
    assert look(db) == {}


def build(db: Database, build_id: int, name: str, percent: int = 100, replaces: int | None = None, **columns: Any):
    """A published release of the agent that was promoted two days ago, current unless another one replaces it."""
    values = {
        "id": build_id, "version_name": name, "version_code": build_id, "staged_rollout_percent": percent,
        "replaces_id": replaces, "promoted_at": datetime.now(UTC) - timedelta(days=2), "file_path": "x", "file_size": 1,
        "package_name": "com.nexmdm", "build_type": "release", "state": "published", "sha256": "0" * 64, "source": "ci",
        "signer_fingerprint": "0" * 64, "object_version": "v", "is_current": True, **columns,
    }  # fmt: skip
    db.execute("UPDATE apk_versions SET is_current = false")
    names = ", ".join(values)
    db.execute(f"INSERT INTO apk_versions ({names}) VALUES ({', '.join(f'%({n})s' for n in values)})", values)


def test_an_agent_behind_its_rollout(db: Database, device: Device):
    report(device, app_version="2.4.1")
    assert look(db) == {}
    build(db, 3, "3.0")
    assert look(db) == opened("agent_outdated")
    assert tell(db).text == "Agent outdated: lobby (2.4.1, offered 3.0)"


@pytest.mark.parametrize(
    "columns",
    [
        {"promoted_at": datetime.now(UTC) - timedelta(hours=23)},
        {"audit": json.dumps([{"event": "rollout", "at": agent.utc(datetime.now(UTC) - timedelta(hours=1))}])},
        {"paused_at": datetime.now(UTC), "paused_reason": "x"},
        {"is_current": False},
        {"percent": 0},
        {"version_name": "2.4.1"},
        {"package_name": "com.other"},
        {"build_type": "debug"},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_nobody_is_behind_what_is_young_paused_not_offered_or_installed(db, device: Device, columns: dict):
    report(device, app_version="2.4.1")
    build(db, 3, "3.0", **columns)
    assert look(db) == {}


def test_a_version_that_is_newer_than_what_is_offered_is_not_behind(db: Database, device: Device):
    build(db, 4, "4.0", is_current=False)
    build(db, 3, "3.0")
    report(device, app_version="4.0")
    assert look(db) == {}


@pytest.mark.parametrize("state", ["declared", "refused", "withdrawn"])
def test_a_build_that_was_never_published_makes_its_name_no_newer(db: Database, device: Device, state: str):
    refusal = "x" if state == "refused" else None
    build(db, 9, "2.4.1", is_current=False, state=state, refusal=refusal, object_version=None)
    build(db, 3, "3.0")
    report(device, app_version="2.4.1")
    assert look(db) == opened("agent_outdated")


def test_who_is_behind_is_whom_the_update_manifest_offers_more(db: Database):
    """The same chain and the same cohorts as in downloads, device by device."""
    build(db, 1, "1.0")
    build(db, 2, "2.0", 60, replaces=1)
    build(db, 3, "3.0", 90, replaces=2, paused_at=datetime.now(UTC), paused_reason="x")
    build(db, 4, "4.0", 30, replaces=3)
    db.execute(
        "INSERT INTO devices (id, alias, token_id) SELECT 'd' || n, 'd' || n, t"
        " FROM unnest(%(ids)s) WITH ORDINALITY AS given(t, n)",
        {"ids": [registry.token_id(f"t{n}") for n in range(1, 61)]},
    )
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, agent_version)"
        " SELECT id, now(), CASE right(id, 1)::int % 3 WHEN 0 THEN '1.0' WHEN 1 THEN '2.0' ELSE '4.0' END FROM devices"
    )
    look(db)
    behind = {
        row["device_id"]: row["detail"]["offered"] for row in db.execute("SELECT device_id, detail FROM device_alerts")
    }
    codes = {row["device_id"]: float(row["agent_version"]) for row in db.execute("SELECT * FROM device_last_status")}
    offered = {f"d{n}": downloads.update_for(db, f"t{n}", "com.nexmdm", 600) for n in range(1, 61)}
    expected = {
        id_: build.version_name for id_, build in offered.items() if build.version_code > codes[id_]
    }  # fmt: skip
    assert behind == expected
    assert len(set(expected.values())) == 2


# --- one alert, one notice


def test_it_is_told_once_and_its_recovery_once(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert look(db) == opened("app_down")
    assert tell(db).subject == "nexmdm alerts: 1 new"
    for _ in range(3):
        assert look(db) == {}
        assert tell(db) is None
    report(device)
    assert look(db) == {}
    cool_down(db)
    assert look(db) == recovered("app_down")
    notice = tell(db)
    assert (notice.subject, notice.text) == ("nexmdm alerts: 1 recovered", "Recovered (app down): lobby")
    assert look(db) == {}
    assert tell(db) is None


def test_what_flaps_is_one_alert_and_one_notice(db: Database, device: Device):
    for down in (True, False) * 5:
        report(
            device,
            unity_process_running=not down,
            monitored_foreground_recent_s=3600 * down,
            timestamp_utc=agent.utc(datetime.now(UTC)),
        )
        look(db)
    assert db.execute("SELECT count(*) AS n FROM device_alerts") == [{"n": 1}]
    assert tell(db).subject == "nexmdm alerts: 1 new"
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    look(db)
    cool_down(db)
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert look(db) == {}
    assert tell(db) is None


def test_after_its_recovery_it_opens_anew(db: Database, device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALERT_COOLDOWN_SECONDS", "0")
    settings.load.cache_clear()
    for down in (True, False, True):
        report(device, unity_process_running=not down, monitored_foreground_recent_s=3600 * down)
        assert look(db) == (opened if down else recovered)("app_down")
        assert tell(db) is not None
    assert db.execute("SELECT count(*) AS n FROM device_alerts") == [{"n": 2}]


def test_a_device_that_falls_silent_keeps_its_other_alerts(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    look(db)
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '1 hour'")
    assert look(db) == opened("silent")


def test_one_that_recovers_before_it_was_told_is_told_as_recovered(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    look(db)
    claim = notifications.claim(db, "nexmdm")
    report(device)
    look(db)
    cool_down(db)
    look(db)
    assert notifications.settle(db, claim.claim_id) == 0
    assert tell(db).text == "Recovered (app down): lobby"
    assert tell(db) is None


def test_many_at_once_are_one_message_that_counts_and_names_the_first(db: Database):
    low_battery(db, 300)
    db.execute("UPDATE device_last_status SET unity_running = false WHERE device_id IN ('d7', 'd8')")
    has_app(db, "d7", "d8")
    assert look(db)["low_battery"] == Evaluated(opened=300)
    notice = tell(db)
    assert notice.subject == "nexmdm alerts: 302 new"
    assert notice.text.splitlines() == [
        "Low battery: 300 devices: kiosk-001 (9 %), kiosk-002 (9 %), kiosk-003 (9 %), kiosk-004 (9 %), kiosk-005 (9 %)"
        " and 295 more",
        "App down: 2 devices: kiosk-007 (io.unitynodes.unityapp), kiosk-008 (io.unitynodes.unityapp)",
    ]
    assert notice.conditions == ["app_down", "low_battery"]
    assert tell(db) is None


def test_runs_at_once_find_and_tell_it_once(url: str, db: Database):
    low_battery(db, 200)
    run = [lambda own: (evaluation.evaluate(own, settings.load()), tell(own))] * 4
    results = race(url, *run)
    assert errors(results) == []
    assert {found["low_battery"].error for found, _ in results} == {UNSET}
    assert sum(found["low_battery"].opened for found, _ in results) == 200
    told = [notice.subject for _, notice in results if notice]
    left = tell(db)
    assert sum(int(subject.split()[2]) for subject in told + ([left.subject] if left else [])) == 200
    db.execute("UPDATE device_last_status SET battery_pct = 80")
    look(db)
    cool_down(db)
    results = race(url, *run)
    assert errors(results) == []
    assert sum(found["low_battery"].recovered for found, _ in results) == 200


def test_a_second_open_alert_is_refused_by_the_schema(db: Database, device: Device):
    insert = "INSERT INTO device_alerts (device_id, condition) VALUES (%(id)s, 'silent')"
    db.execute(insert, {"id": device.id})
    with pytest.raises(psycopg2.errors.UniqueViolation):
        db.execute(insert, {"id": device.id})


def test_what_does_not_change_is_not_written(db: Database):
    low_battery(db, 20)
    look(db)
    tell(db)
    before = db.execute("SELECT xmin::text, ctid::text, * FROM device_alerts ORDER BY id")
    look(db)
    assert db.execute("SELECT xmin::text, ctid::text, * FROM device_alerts ORDER BY id") == before


# --- a claim


def test_a_claim_that_was_left_is_told_again_after_its_lease_and_says_so(db: Database):
    low_battery(db, 1)
    look(db)
    assert notifications.claim(db, "nexmdm")
    assert notifications.claim(db, "nexmdm") is None
    db.execute("UPDATE device_alerts SET lease_until = now() - interval '1 second'")
    assert tell(db).text.splitlines() == [
        "Low battery: kiosk-001 (9 %)",
        "This may repeat an earlier notification, whose delivery was not confirmed.",
    ]
    assert tell(db) is None


def test_what_another_is_just_claiming_is_neither_taken_nor_waited_for(url: str, db: Database):
    low_battery(db, 1)
    look(db)
    db.execute("SET lock_timeout = '5s'")
    with contextlib.closing(Database(url)) as other, other.transaction() as tx:
        assert notifications.claim(tx, "nexmdm")
        assert notifications.claim(db, "nexmdm") is None


def test_a_released_claim_is_taken_at_once_and_is_no_repeat(db: Database):
    low_battery(db, 1)
    look(db)
    notifications.release(db, notifications.claim(db, "nexmdm").claim_id)
    assert tell(db).text == "Low battery: kiosk-001 (9 %)"


def test_a_late_holder_settles_nothing(db: Database):
    low_battery(db, 1)
    look(db)
    late = notifications.claim(db, "nexmdm")
    db.execute("UPDATE device_alerts SET lease_until = now() - interval '1 second'")
    second = notifications.claim(db, "nexmdm")
    assert notifications.settle(db, late.claim_id) == 0
    assert notifications.settle(db, second.claim_id) == 1


# --- deleted devices, retention, the list


def test_a_deleted_devices_alerts_close_and_nobody_is_told(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    look(db)
    tell(db)
    deletion.delete(db, device.id, actor.operator("me"))
    assert look(db) == {}
    assert db.execute("SELECT count(*) AS n FROM device_alerts WHERE recovered_at IS NULL") == [{"n": 0}]
    assert tell(db) is None
    assert call("GET", "/v1/alerts").json["items"] == []


def test_cleanup_removes_what_recovered_long_ago_and_was_told(db: Database, device: Device):
    for condition, columns in {
        "silent": "now() - interval '31 days', NULL",
        "low_battery": "now() - interval '29 days', NULL",
        "app_down": "now() - interval '31 days', 'recovered'",
        "queue_growing": "NULL, NULL",
    }.items():
        db.execute(
            "INSERT INTO device_alerts (device_id, condition, since, recovered_at, notice)"
            f" SELECT id, '{condition}', now() - interval '40 days', {columns} FROM devices"
        )
    assert run.dry_run(db, settings.load()).policies["device_alerts"].due == 1
    assert run.clean(db, settings.load(), lambda: 60).policies["device_alerts"].deleted == 1
    left = {row["condition"] for row in db.execute("SELECT condition FROM device_alerts")}
    assert left == {"low_battery", "app_down", "queue_growing"}


def test_the_list_in_pages_and_by_filter(db: Database):
    low_battery(db, 5)
    db.execute("UPDATE device_last_status SET unity_running = false WHERE device_id = 'd3'")
    has_app(db, "d3")
    look(db)
    tell(db)
    items, cursor = [], None
    while cursor is not None or not items:
        page = call("GET", "/v1/alerts", query={"limit": 2} | ({"cursor": cursor} if cursor else {})).json
        items, cursor = items + page["items"], page["next_cursor"]
    assert len({item["alert_id"] for item in items}) == 6
    assert items[0].keys() == {
        "alert_id", "device_id", "alias", "condition", "rule", "severity", "state", "since", "opened_at", "notified_at",
        "recovered_at", "muted", "acked_at", "acked_by", "ack_note", "detail",
    }  # fmt: skip
    assert all(item["notified_at"] and item["recovered_at"] is None for item in items)

    def found(**query: Any) -> list[tuple[str, str]]:
        answer = call("GET", "/v1/alerts", query=query).json["items"]
        return sorted((item["device_id"], item["condition"]) for item in answer)

    assert found(condition="app_down") == [("d3", "app_down")]
    assert found(device_id="d3", open="true") == [("d3", "app_down"), ("d3", "low_battery")]
    assert found(open="false") == []
    assert found(device_id="nobody") == []
    assert call("GET", "/v1/fleet/summary").json["alerts"] == 6


@pytest.mark.parametrize(
    ("query", "field"), [({"condition": "sad"}, "query.condition"), ({"open": "x"}, "query.open"),
                         ({"cursor": "eyJ4IjoxfQ"}, "query.cursor"), ({"cursor": "WyJ4Il0"}, "query.cursor")]
)  # fmt: skip
def test_a_wrong_filter_is_named(url: str, query: dict, field: str):
    call("GET", "/v1/alerts", query=query).problem(422, field)


def test_a_cursor_beyond_all_numbers_is_a_page_too(url: str, device: Device):
    cursor = base64.urlsafe_b64encode(json.dumps([10**30]).encode()).decode()
    assert call("GET", "/v1/alerts", query={"cursor": cursor}).json == {"items": [], "next_cursor": None}
