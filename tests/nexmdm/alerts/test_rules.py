"""Alert rules: which one applies to a device, how long a condition must last, quiet hours, mutes, acknowledgements."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from nexmdm.alerts import evaluation, notifications
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from tests.support.api import Answer, call

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()


def api(method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer: Answer = call(method, path, body)
    assert answer.status == status, answer.json
    return answer.json if answer.text else None


def fleet(db: Database, **batteries: int) -> None:
    """Add devices with these ids, aliases and battery levels, labeled site=<first letter of the id>."""
    for name, percent in batteries.items():
        db.execute(
            "INSERT INTO devices (id, alias, labels)"
            " VALUES (%(id)s, %(id)s, jsonb_build_object('site', left(%(id)s, 1)))",
            {"id": name},
        )
        battery(db, name, percent)


def battery(db: Database, name: str, percent: int) -> None:
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, last_seen_at, battery_pct)"
        " VALUES (%(id)s, now(), now(), %(pct)s)"
        " ON CONFLICT (device_id) DO UPDATE SET battery_pct = excluded.battery_pct",
        {"id": name, "pct": percent},
    )


def evaluate(db: Database) -> evaluation.Evaluated:
    return evaluation.evaluate(db, settings.load())["low_battery"]


def alerts(**query: str) -> dict[str, dict[str, Any]]:
    """The alerts, by device."""
    found = call("GET", "/v1/alerts", query={"open": "true", **query})
    return {alert["device_id"]: alert for alert in found.json["items"]}


def notify(db: Database) -> list[notifications.Notification]:
    told = []
    while notification := notifications.claim(db, "nexmdm"):
        notifications.settle(db, notification.claim_id)
        told.append(notification)
    return told


def later(db: Database, minutes: int) -> None:
    """Let `minutes` pass by moving the times of the rows into the past."""
    db.execute(
        "UPDATE device_alerts SET since = since - make_interval(mins => %(m)s),"
        " clear_since = clear_since - make_interval(mins => %(m)s)",
        {"m": minutes},
    )


@pytest.fixture
def only_low_battery(db: Database) -> None:
    db.execute("DELETE FROM alert_rules WHERE name <> 'low_battery'")


pytestmark = pytest.mark.usefixtures("only_low_battery")


# --- which rule applies


def test_default_rules_match_the_original_conditions(db: Database):
    names = [rule["name"] for rule in api("GET", "/v1/alert-rules")["items"]]
    assert names == ["low_battery"]
    rule = api("GET", "/v1/alert-rules/low_battery")
    assert (rule["threshold"], rule["for_seconds"], rule["severity"], rule["enabled"]) == (None, 0, "warning", True)


def test_rule_threshold_overrides_the_setting(db: Database):
    fleet(db, a1=30, a2=10)
    assert evaluate(db).opened == 1
    api("PATCH", "/v1/alert-rules/low_battery", {"threshold": 40})
    assert evaluate(db).opened == 1
    assert set(alerts()) == {"a1", "a2"}


def test_rule_with_a_filter_overrides_the_default_for_its_devices(db: Database):
    fleet(db, a1=10, b1=10)
    api(
        "POST",
        "/v1/alert-rules",
        {"name": "b", "condition": "low_battery", "filter": {"selector": "site=b"}, "threshold": 5, "severity": "info"},
        201,
    )
    evaluate(db)
    assert set(alerts()) == {"a1"}
    battery(db, "b1", 3)
    evaluate(db)
    assert (alerts()["b1"]["rule"], alerts()["b1"]["severity"]) == ("b", "info")


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ({"priority": 10}, {"priority": 5}, "second"),
        ({"filter": {"selector": "site=a"}}, {}, "first"),
        ({"filter": {"selector": "site=a"}}, {"priority": 99}, "second"),
        ({}, {"filter": {"selector": "site=b"}}, "first"),
        ({}, {}, "first"),
        ({"enabled": False}, {}, "second"),
    ],
)
def test_rule_is_chosen_by_priority_then_filter_then_name(db: Database, first: dict, second: dict, wins: str):
    api("DELETE", "/v1/alert-rules/low_battery", status=204)
    for name, rule in {"first": first, "second": second}.items():
        api("POST", "/v1/alert-rules", {"name": name, "condition": "low_battery", **rule}, 201)
    fleet(db, a1=10)
    assert evaluate(db).opened == 1
    assert alerts()["a1"]["rule"] == wins


def test_alert_moves_to_another_rule_without_a_second_notification(db: Database):
    fleet(db, a1=10)
    evaluate(db)
    assert len(notify(db)) == 1
    rule = {"name": "a", "condition": "low_battery", "filter": {"selector": "site=a"}, "severity": "critical"}
    api("POST", "/v1/alert-rules", rule, 201)
    assert evaluate(db) == evaluation.Evaluated()
    assert (alerts()["a1"]["rule"], alerts()["a1"]["severity"]) == ("a", "critical")
    assert notify(db) == []


def test_alerts_of_a_removed_rule_recover(db: Database):
    fleet(db, a1=10)
    evaluate(db)
    notify(db)
    api("DELETE", "/v1/alert-rules/low_battery", status=204)
    evaluate(db)
    later(db, 31)
    assert evaluate(db).recovered == 1
    assert notify(db)[0].text.startswith("Recovered (low battery)")


def test_rule_with_a_missing_group_does_not_stop_other_conditions(db: Database):
    fleet(db, a1=10)
    db.execute(
        "INSERT INTO device_groups (name, filter, created_by, updated_by) VALUES ('tills', '{\"all\": true}', 'x', 'x')"
    )
    api("POST", "/v1/alert-rules", {"name": "hot", "condition": "high_temperature", "filter": {"group": "tills"}}, 201)
    db.execute("DELETE FROM device_groups")
    found = evaluation.evaluate(db, settings.load())
    assert found["high_temperature"].error == "Invalid"
    assert found["low_battery"].opened == 1


# --- for_seconds


def test_alert_is_pending_until_the_condition_has_lasted_long_enough(db: Database):
    api("PATCH", "/v1/alert-rules/low_battery", {"for_seconds": 600})
    fleet(db, a1=10)
    assert evaluate(db).opened == 0
    assert alerts()["a1"]["state"] == "pending"
    assert notify(db) == []
    later(db, 9)
    assert evaluate(db).opened == 0
    later(db, 1)
    assert evaluate(db).opened == 1
    assert alerts()["a1"]["state"] == "open"
    assert len(notify(db)) == 1


def test_pending_alert_disappears_as_soon_as_its_condition_ends(db: Database):
    api("PATCH", "/v1/alert-rules/low_battery", {"for_seconds": 600})
    fleet(db, a1=10)
    evaluate(db)
    battery(db, "a1", 90)
    assert evaluate(db) == evaluation.Evaluated()
    assert db.execute("SELECT count(*) AS n FROM device_alerts") == [{"n": 0}]


# --- quiet hours


def quiet(db: Database, begin: int, end: int) -> dict[str, str]:
    """Quiet hours whose begin and end are given in minutes from now, in Tokyo (UTC+9 all year)."""
    [row] = db.execute("SELECT clock_timestamp() AS now")
    tokyo = row["now"].astimezone(timezone(timedelta(hours=9)))
    times = [(tokyo + timedelta(minutes=minutes)).strftime("%H:%M") for minutes in (begin, end)]
    return {"timezone": "Asia/Tokyo", "from": times[0], "to": times[1]}


@pytest.mark.parametrize(("begin", "end", "held"), [(-60, 60, True), (-120, -60, False), (60, 120, False)])
def test_quiet_hours_apply_in_their_own_time_zone(db: Database, begin: int, end: int, held: bool):
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": quiet(db, begin, end)})
    fleet(db, a1=10)
    evaluate(db)
    assert (notify(db) == []) is held
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": None})
    assert (len(notify(db)) == 1) is held


def test_alert_that_recovers_within_quiet_hours_is_not_notified(db: Database):
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": quiet(db, -60, 60)})
    fleet(db, a1=10)
    evaluate(db)
    battery(db, "a1", 90)
    evaluate(db)
    later(db, 31)
    assert evaluate(db).recovered == 1
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": None})
    assert notify(db) == []


def test_recovery_of_a_notified_alert_waits_until_quiet_hours_end(db: Database):
    fleet(db, a1=10)
    evaluate(db)
    notify(db)
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": quiet(db, -60, 60)})
    battery(db, "a1", 90)
    evaluate(db)
    later(db, 31)
    evaluate(db)
    assert notify(db) == []
    api("PATCH", "/v1/alert-rules/low_battery", {"quiet_hours": None})
    assert notify(db)[0].text.startswith("Recovered")


# --- mutes


def test_muted_alert_opens_and_recovers_without_a_notification(db: Database):
    mute = {"filter": {"selector": "site=a"}, "until": TOMORROW, "reason": "the lobby is painted"}
    created = api("POST", "/v1/mutes", mute, 201)
    fleet(db, a1=10, b1=10)
    assert evaluate(db).opened == 2
    assert {name: alert["muted"] for name, alert in alerts().items()} == {"a1": True, "b1": False}
    assert [notification.text for notification in notify(db)] == ["Low battery: b1 (10 %)"]
    for name in ("a1", "b1"):
        battery(db, name, 90)
    evaluate(db)
    later(db, 31)
    assert evaluate(db).recovered == 2
    assert [notification.text for notification in notify(db)] == ["Recovered (low battery): b1"]
    assert api("GET", "/v1/mutes")["items"][0]["mute_id"] == created["mute_id"]


def test_alert_that_was_notified_before_the_mute_notifies_that_it_recovered(db: Database):
    fleet(db, a1=10)
    evaluate(db)
    notify(db)
    api("POST", "/v1/mutes", {"filter": {"all": True}, "until": TOMORROW, "reason": "x"}, 201)
    battery(db, "a1", 90)
    evaluate(db)
    later(db, 31)
    assert evaluate(db).recovered == 1
    assert [notification.text for notification in notify(db)] == ["Recovered (low battery): a1"]


def test_mute_that_ended_or_names_another_condition_has_no_effect(db: Database):
    api("POST", "/v1/mutes", {"filter": {"all": True}, "condition": "silent", "until": TOMORROW, "reason": "x"}, 201)
    over = api("POST", "/v1/mutes", {"filter": {"all": True}, "until": TOMORROW, "reason": "x"}, 201)
    api("DELETE", f"/v1/mutes/{over['mute_id']}", status=204)
    fleet(db, a1=10)
    evaluate(db)
    assert len(notify(db)) == 1


def test_mute_that_ends_in_the_past_is_refused(db: Database):
    body = {"filter": {"all": True}, "until": "2020-01-01T00:00:00Z", "reason": "x"}
    call("POST", "/v1/mutes", body).problem(422, "$.until")


# --- acknowledge


def test_acknowledged_alert_shows_the_operator_and_the_reason(db: Database):
    fleet(db, a1=10)
    evaluate(db)
    alert_id = alerts()["a1"]["alert_id"]
    answer = api("POST", f"/v1/alerts/{alert_id}/ack", {"note": "charger is ordered"})
    assert (answer["ack_note"], answer["acked_by"]) == ("charger is ordered", alerts()["a1"]["acked_by"])
    (event,) = api("GET", "/v1/events")["items"]
    assert (event["action"], event["object"]) == ("alert.ack", "device:a1")


def test_only_an_open_alert_can_be_acknowledged(db: Database):
    call("POST", "/v1/alerts/4711/ack", {}).problem(404)
    call("POST", "/v1/alerts/none/ack", {}).problem(422, "path.alert_id")


# --- invalid rules


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"name": "x", "condition": "low_battery", "threshold": 0}, "$.threshold"),
        ({"name": "x", "condition": "low_battery", "threshold": 101}, "$.threshold"),
        ({"name": "x", "condition": "silent", "threshold": 5}, "$.threshold"),
        ({"name": "x", "condition": "nothing"}, "$.condition"),
        ({"name": "a b", "condition": "silent"}, "$.name"),
        ({"name": "x", "condition": "silent", "filter": {}}, "$.filter"),
        ({"name": "x", "condition": "silent", "filter": {"group": "none"}}, "$.filter.group"),
        ({"name": "x", "condition": "silent", "filter": {"selector": "site="}}, None),
        ({"name": "x", "condition": "silent", "for_seconds": -1}, "$.for_seconds"),
        ({"name": "x", "condition": "silent", "severity": "urgent"}, "$.severity"),
        (
            {
                "name": "x",
                "condition": "silent",
                "quiet_hours": {"timezone": "Mars/Base", "from": "22:00", "to": "06:00"},
            },
            "$.quiet_hours.timezone",
        ),
        (
            {"name": "x", "condition": "silent", "quiet_hours": {"timezone": "UTC", "from": "24:00", "to": "06:00"}},
            "$.quiet_hours.from",
        ),
        ({"name": "x", "condition": "silent", "unknown": 1}, None),
    ],
)
def test_invalid_rule_is_refused_with_its_field(db: Database, rule: dict, path: str | None):
    if path is None and "selector" in rule.get("filter", {}):
        api("POST", "/v1/alert-rules", rule, 201)  # an empty value is accepted
        return
    answer = call("POST", "/v1/alert-rules", rule)
    assert answer.status == 422
    if path:
        assert answer.json["errors"][0]["path"] == path


def test_taken_rule_name_returns_409(db: Database):
    body = {"name": "low_battery", "condition": "low_battery"}
    call("POST", "/v1/alert-rules", body).problem(409)


def test_each_rule_change_leaves_one_event(db: Database):
    api("POST", "/v1/alert-rules", {"name": "hot", "condition": "high_temperature"}, 201)
    api("PATCH", "/v1/alert-rules/hot", {"threshold": 60})
    api("PATCH", "/v1/alert-rules/hot", {"threshold": 60})
    api("DELETE", "/v1/alert-rules/hot", status=204)
    call("DELETE", "/v1/alert-rules/hot").problem(404)
    events = api("GET", "/v1/events")["items"]
    assert [event["action"] for event in events] == ["alert_rule.delete", "alert_rule.change", "alert_rule.create"]
    assert (events[1]["before"], events[1]["after"]) == ({"threshold": None}, {"threshold": 60.0})


# --- routes


def test_alerts_with_different_routes_are_sent_in_separate_messages(db: Database):
    api("PATCH", "/v1/alert-rules/low_battery", {"routes": ["ops"]})
    api("POST", "/v1/alert-rules", {"name": "hot", "condition": "high_temperature"}, 201)
    fleet(db, a1=10, b1=90)
    db.execute("UPDATE device_last_status SET temp_c = 70 WHERE device_id = 'b1'")
    evaluate(db)
    told = {tuple(notification.routes): notification.text for notification in notify(db)}
    assert told == {("ops",): "Low battery: a1 (10 %)", (): "High temperature [hot]: b1 (70 °C)"}


def test_notification_of_a_rule_counts_its_open_alerts(db: Database):
    fleet(db, a1=10, a2=10)
    evaluate(db)
    notify(db)
    battery(db, "a1", 90)
    evaluate(db)
    later(db, 31)
    evaluate(db)
    (notification,) = notify(db)
    assert [(group.notice, group.devices, group.still_open) for group in notification.groups] == [("recovered", 1, 1)]


def test_group_used_by_a_rule_or_a_mute_cannot_be_deleted(db: Database):
    api("PUT", "/v1/groups/tills", {"filter": {"selector": "site=a"}})
    rule = {"name": "tills", "condition": "low_battery", "filter": {"group": "tills"}}
    api("POST", "/v1/alert-rules", rule, 201)
    mute = api("POST", "/v1/mutes", {"filter": {"group": "tills"}, "until": TOMORROW, "reason": "x"}, 201)
    used = call("DELETE", "/v1/groups/tills").problem(409)["used_by"]
    assert used == [{"kind": "alert_rule", "name": "tills"}, {"kind": "mute", "name": str(mute["mute_id"])}]
    api("DELETE", "/v1/alert-rules/tills", status=204)
    api("DELETE", f"/v1/mutes/{mute['mute_id']}", status=204)
    api("DELETE", "/v1/groups/tills", status=204)
