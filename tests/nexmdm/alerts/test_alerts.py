"""Alerts: every condition opens and recovers; one open alert per device and condition; each is notified once."""

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


def evaluate(db: Database) -> dict[str, Evaluated]:
    """Evaluate the rules and return the conditions for which something changed."""
    return {name: found for name, found in evaluation.evaluate(db, settings.load()).items() if found != NONE}


def opened(*conditions: str) -> dict[str, Evaluated]:
    return {condition: Evaluated(opened=1) for condition in conditions}


def recovered(*conditions: str) -> dict[str, Evaluated]:
    return {condition: Evaluated(recovered=1) for condition in conditions}


def cool_down(db: Database) -> None:
    """End the cool-down by moving `clear_since` into the past."""
    db.execute("UPDATE device_alerts SET clear_since = clear_since - interval '31 minutes'")


def notify(db: Database) -> notifications.Notification | None:
    notice = notifications.claim(db, "nexmdm")
    if notice:
        notifications.settle(db, notice.claim_id)
    return notice


def low_battery(db: Database, count: int) -> None:
    """Add devices d1, d2, ... with an empty battery to the existing devices."""
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
    """Record that the monitored app is installed on these devices."""
    db.execute(
        "INSERT INTO device_apps (device_id, package, installed)"
        " SELECT id, 'io.unitynodes.unityapp', true FROM unnest(%(ids)s::text[]) AS id",
        {"ids": list(device_ids)},
    )


# --- the conditions


def test_conditions_match_the_schema_and_the_declarations():
    assert tuple(Condition) == ALERT_CONDITIONS
    assert set(DECLARATIONS) == set(Condition), "declare every condition in nexmdm.alerts.conditions"


def test_reporting_device_has_no_alert(db: Database, device: Device):
    report(device)
    assert evaluate(db) == {}
    assert notify(db) is None


def test_device_is_silent_after_three_intervals(db: Database, device: Device):
    report(device)
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '29 minutes'")
    assert evaluate(db) == {}
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '31 minutes'")
    assert evaluate(db) == opened("silent")
    heard = datetime.now(UTC) - timedelta(minutes=31)
    assert notify(db).text in {
        f"Silent: lobby (last heard from {at:%Y-%m-%d %H:%M} UTC)" for at in (heard, heard - timedelta(minutes=1))
    }
    assert evaluate(db) == {}


def test_silence_of_a_device_that_never_reported_counts_from_enrollment(db: Database, device: Device):
    assert evaluate(db) == {}
    db.execute("UPDATE devices SET created_at = now() - interval '31 minutes'")
    assert evaluate(db) == opened("silent")
    assert notify(db).text == "Silent: lobby (never heard from)"


@pytest.mark.parametrize(("percent", "found"), [(15, {}), (14, opened("low_battery"))])
def test_low_battery_opens_below_15_percent(db: Database, device: Device, percent: int, found: dict):
    report(device, battery={"pct": float(percent), "charging": False})
    assert evaluate(db) == found


def test_app_down_opens_when_the_app_is_not_running(db: Database, device: Device):
    report(device, unity_process_running=None)
    assert evaluate(db) == {}
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert evaluate(db) == opened("app_down")
    assert notify(db).text == "App down: lobby (io.unitynodes.unityapp)"


def test_app_down_needs_an_installed_app_that_was_not_recently_in_front(db: Database, device: Device):
    """Android 7 and later hide processes from the agent, so an absent process alone proves nothing."""
    report(device, unity_process_running=False, monitored_foreground_recent_s=30)
    assert evaluate(db) == {}
    missing = {"io.unitynodes.unityapp": {"installed": False}}
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600, app_versions=missing)
    assert evaluate(db) == {}


def rule(db: Database, condition: str, **columns: Any) -> None:
    db.execute(f"INSERT INTO alert_rules (name, condition) VALUES ('{condition}', '{condition}')")


def test_app_in_the_background_opens_an_alert(db: Database, device: Device):
    rule(db, "app_background")
    report(device, monitored_foreground_recent_s=-1)
    assert evaluate(db) == {}
    report(device, monitored_foreground_recent_s=600, timestamp_utc=agent.utc(datetime.now(UTC)))
    assert evaluate(db) == {}
    report(device, monitored_foreground_recent_s=601, timestamp_utc=agent.utc(datetime.now(UTC)))
    assert evaluate(db) == opened("app_background")


def test_high_temperature_opens_an_alert(db: Database, device: Device):
    rule(db, "high_temperature")
    db.execute("UPDATE device_last_status SET temp_c = 49.9")
    report(device, battery={"temperature_c": 49.9})
    assert evaluate(db) == {}
    db.execute("UPDATE device_last_status SET temp_c = 50")
    assert evaluate(db) == opened("high_temperature")


def test_two_phones_with_one_identity_open_an_alert(db: Database, device: Device):
    rule(db, "duplicate_identity")
    report(device)
    assert evaluate(db) == {}
    db.execute("UPDATE device_last_status SET token_shared_at = now() - interval '2 hours'")
    assert evaluate(db) == opened("duplicate_identity")
    db.execute("UPDATE device_last_status SET token_shared_at = NULL")
    db.execute("UPDATE devices SET hardware_id = 'h'")
    db.execute("INSERT INTO devices (id, alias, hardware_id) VALUES ('twin', 'twin', 'h')")
    assert evaluate(db)["duplicate_identity"].opened == 1
    assert "same hardware as" in notify(db).text


@pytest.mark.parametrize(("off", "found"), [(400, True), (-400, True), (200, False), (-200, False)])
def test_wrong_clock_opens_beyond_the_limit(db: Database, device: Device, off: int, found: bool):
    rule(db, "clock_wrong")
    report(device)
    db.execute(
        "UPDATE device_last_status SET received_at = now(), device_ts = now() + make_interval(secs => %(off)s),"
        " queue_depth = 0",
        {"off": off},
    )
    assert evaluate(db) == (opened("clock_wrong") if found else {})


@pytest.mark.parametrize(
    ("depths", "found"),
    [
        ([2, 8, 20], opened("queue_growing")),
        ([11, 12, 13, 14], opened("queue_growing")),
        ([20, 20, 20], {}),  # deep, but not growing
        ([30, 40, 20], {}),
        ([1, 2, 3], {}),  # growing, but negligible
        ([2, 20], {}),  # too few reports to decide
    ],
)
def test_queue_alert_needs_a_deep_and_growing_queue(db: Database, device: Device, depths: list[int], found: dict):
    for n, depth in enumerate(reversed(depths)):
        report(device, timestamp_utc=agent.utc(datetime.now(UTC) - n * timedelta(minutes=10)), queue_depth=depth)
    assert evaluate(db) == found


def test_old_reports_do_not_count_towards_a_growing_queue(db: Database, device: Device):
    for n, depth in ((0, 20), (5, 2), (6, 1)):
        report(device, timestamp_utc=agent.utc(datetime.now(UTC) - n * timedelta(minutes=10)), queue_depth=depth)
    assert evaluate(db) == {}


def build(db: Database, build_id: int, name: str, percent: int = 100, replaces: int | None = None, **columns: Any):
    """A published release of the agent, promoted two days ago, and current unless another one replaces it."""
    values = {
        "id": build_id, "version_name": name, "version_code": build_id, "staged_rollout_percent": percent,
        "replaces_id": replaces, "promoted_at": datetime.now(UTC) - timedelta(days=2), "file_path": "x", "file_size": 1,
        "package_name": "com.nexmdm", "build_type": "release", "state": "published", "sha256": "0" * 64, "source": "ci",
        "signer_fingerprint": "0" * 64, "object_version": "v", "is_current": True, **columns,
    }  # fmt: skip
    db.execute("UPDATE apk_versions SET is_current = false")
    names = ", ".join(values)
    db.execute(f"INSERT INTO apk_versions ({names}) VALUES ({', '.join(f'%({n})s' for n in values)})", values)


def test_agent_behind_its_rollout_opens_an_alert(db: Database, device: Device):
    report(device, app_version="2.4.1")
    assert evaluate(db) == {}
    build(db, 3, "3.0")
    assert evaluate(db) == opened("agent_outdated")
    assert notify(db).text == "Agent outdated: lobby (2.4.1, offered 3.0)"


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
def test_build_that_is_young_paused_not_offered_or_installed_opens_no_alert(db, device: Device, columns: dict):
    report(device, app_version="2.4.1")
    build(db, 3, "3.0", **columns)
    assert evaluate(db) == {}


def test_version_newer_than_the_offered_build_is_not_behind(db: Database, device: Device):
    build(db, 4, "4.0", is_current=False)
    build(db, 3, "3.0")
    report(device, app_version="4.0")
    assert evaluate(db) == {}


@pytest.mark.parametrize("state", ["declared", "refused", "withdrawn"])
def test_unpublished_build_does_not_order_its_version_name(db: Database, device: Device, state: str):
    refusal = "x" if state == "refused" else None
    build(db, 9, "2.4.1", is_current=False, state=state, refusal=refusal, object_version=None)
    build(db, 3, "3.0")
    report(device, app_version="2.4.1")
    assert evaluate(db) == opened("agent_outdated")


def test_devices_behind_are_those_that_the_update_manifest_offers_a_newer_build(db: Database):
    """Alerts use the same chain of builds and the same cohorts as downloads, for every device."""
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
    evaluate(db)
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


# --- one alert, one notification


def test_alert_and_its_recovery_are_notified_once_each(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert evaluate(db) == opened("app_down")
    assert notify(db).subject == "nexmdm alerts: 1 new"
    for _ in range(3):
        assert evaluate(db) == {}
        assert notify(db) is None
    report(device)
    assert evaluate(db) == {}
    cool_down(db)
    assert evaluate(db) == recovered("app_down")
    notice = notify(db)
    assert (notice.subject, notice.text) == ("nexmdm alerts: 1 recovered", "Recovered (app down): lobby")
    assert evaluate(db) == {}
    assert notify(db) is None


def test_flapping_condition_is_one_alert_and_one_notification(db: Database, device: Device):
    for down in (True, False) * 5:
        report(
            device,
            unity_process_running=not down,
            monitored_foreground_recent_s=3600 * down,
            timestamp_utc=agent.utc(datetime.now(UTC)),
        )
        evaluate(db)
    assert db.execute("SELECT count(*) AS n FROM device_alerts") == [{"n": 1}]
    assert notify(db).subject == "nexmdm alerts: 1 new"
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    evaluate(db)
    cool_down(db)
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    assert evaluate(db) == {}
    assert notify(db) is None


def test_recovered_alert_opens_again(db: Database, device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALERT_COOLDOWN_SECONDS", "0")
    settings.load.cache_clear()
    for down in (True, False, True):
        report(device, unity_process_running=not down, monitored_foreground_recent_s=3600 * down)
        assert evaluate(db) == (opened if down else recovered)("app_down")
        assert notify(db) is not None
    assert db.execute("SELECT count(*) AS n FROM device_alerts") == [{"n": 2}]


def test_silent_device_keeps_its_other_alerts(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    evaluate(db)
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '1 hour'")
    assert evaluate(db) == opened("silent")


def test_alert_that_recovers_before_its_notification_is_sent_as_recovered(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    evaluate(db)
    claim = notifications.claim(db, "nexmdm")
    report(device)
    evaluate(db)
    cool_down(db)
    evaluate(db)
    assert notifications.settle(db, claim.claim_id) == 0
    assert notify(db).text == "Recovered (app down): lobby"
    assert notify(db) is None


def test_many_alerts_are_one_message_with_counts_and_first_names(db: Database):
    low_battery(db, 300)
    db.execute("UPDATE device_last_status SET unity_running = false WHERE device_id IN ('d7', 'd8')")
    has_app(db, "d7", "d8")
    assert evaluate(db)["low_battery"] == Evaluated(opened=300)
    notice = notify(db)
    assert notice.subject == "nexmdm alerts: 302 new"
    assert notice.text.splitlines() == [
        "Low battery: 300 devices: kiosk-001 (9 %), kiosk-002 (9 %), kiosk-003 (9 %), kiosk-004 (9 %), kiosk-005 (9 %)"
        " and 295 more",
        "App down: 2 devices: kiosk-007 (io.unitynodes.unityapp), kiosk-008 (io.unitynodes.unityapp)",
    ]
    assert notice.conditions == ["app_down", "low_battery"]
    assert notify(db) is None


def test_concurrent_evaluations_open_and_notify_each_alert_once(url: str, db: Database):
    low_battery(db, 200)
    run = [lambda own: (evaluation.evaluate(own, settings.load()), notify(own))] * 4
    results = race(url, *run)
    assert errors(results) == []
    assert {found["low_battery"].error for found, _ in results} == {UNSET}
    assert sum(found["low_battery"].opened for found, _ in results) == 200
    told = [notice.subject for _, notice in results if notice]
    left = notify(db)
    assert sum(int(subject.split()[2]) for subject in told + ([left.subject] if left else [])) == 200
    db.execute("UPDATE device_last_status SET battery_pct = 80")
    evaluate(db)
    cool_down(db)
    results = race(url, *run)
    assert errors(results) == []
    assert sum(found["low_battery"].recovered for found, _ in results) == 200


def test_schema_refuses_a_second_open_alert(db: Database, device: Device):
    insert = "INSERT INTO device_alerts (device_id, condition) VALUES (%(id)s, 'silent')"
    db.execute(insert, {"id": device.id})
    with pytest.raises(psycopg2.errors.UniqueViolation):
        db.execute(insert, {"id": device.id})


def test_evaluation_without_a_change_writes_nothing(db: Database):
    low_battery(db, 20)
    evaluate(db)
    notify(db)
    before = db.execute("SELECT xmin::text, ctid::text, * FROM device_alerts ORDER BY id")
    evaluate(db)
    assert db.execute("SELECT xmin::text, ctid::text, * FROM device_alerts ORDER BY id") == before


# --- a claim


def test_abandoned_claim_is_sent_again_after_its_lease_with_a_note(db: Database):
    low_battery(db, 1)
    evaluate(db)
    assert notifications.claim(db, "nexmdm")
    assert notifications.claim(db, "nexmdm") is None
    db.execute("UPDATE device_alerts SET lease_until = now() - interval '1 second'")
    assert notify(db).text.splitlines() == [
        "Low battery: kiosk-001 (9 %)",
        "This may repeat an earlier notification, whose delivery was not confirmed.",
    ]
    assert notify(db) is None


def test_claim_skips_rows_that_another_transaction_is_claiming(url: str, db: Database):
    low_battery(db, 1)
    evaluate(db)
    db.execute("SET lock_timeout = '5s'")
    with contextlib.closing(Database(url)) as other, other.transaction() as tx:
        assert notifications.claim(tx, "nexmdm")
        assert notifications.claim(db, "nexmdm") is None


def test_released_claim_is_taken_at_once_without_a_repeat_note(db: Database):
    low_battery(db, 1)
    evaluate(db)
    notifications.release(db, notifications.claim(db, "nexmdm").claim_id)
    assert notify(db).text == "Low battery: kiosk-001 (9 %)"


def test_expired_claim_settles_nothing(db: Database):
    low_battery(db, 1)
    evaluate(db)
    late = notifications.claim(db, "nexmdm")
    db.execute("UPDATE device_alerts SET lease_until = now() - interval '1 second'")
    second = notifications.claim(db, "nexmdm")
    assert notifications.settle(db, late.claim_id) == 0
    assert notifications.settle(db, second.claim_id) == 1


# --- deleted devices, retention, the list


def test_deleting_a_device_ends_its_alerts(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    evaluate(db)
    notify(db)
    deletion.delete(db, device.id, actor.operator("me"))
    assert evaluate(db) == {}
    assert db.execute("SELECT count(*) AS n FROM device_alerts WHERE recovered_at IS NULL") == [{"n": 0}]
    assert notify(db).text == "Recovered (app down): lobby (deleted)"
    assert notify(db) is None
    assert call("GET", "/v1/alerts").json["items"] == []


def test_alert_of_a_deleted_device_that_was_not_notified_ends_silently(db: Database, device: Device):
    report(device, unity_process_running=False, monitored_foreground_recent_s=3600)
    evaluate(db)
    deletion.delete(db, device.id, actor.operator("me"))
    assert evaluate(db) == {}
    assert notify(db) is None


def test_cleanup_removes_old_recovered_alerts_that_were_notified(db: Database, device: Device):
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


def test_alert_list_has_pages_and_filters(db: Database):
    low_battery(db, 5)
    db.execute("UPDATE device_last_status SET unity_running = false WHERE device_id = 'd3'")
    has_app(db, "d3")
    evaluate(db)
    notify(db)
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
def test_alert_list_names_an_invalid_filter(url: str, query: dict, field: str):
    call("GET", "/v1/alerts", query=query).problem(422, field)


def test_alert_list_accepts_a_cursor_beyond_all_ids(url: str, device: Device):
    cursor = base64.urlsafe_b64encode(json.dumps([10**30]).encode()).decode()
    assert call("GET", "/v1/alerts", query={"cursor": cursor}).json == {"items": [], "next_cursor": None}
