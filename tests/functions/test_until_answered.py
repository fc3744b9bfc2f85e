"""Commands that are repeated until the device answers: when they are sent again, and when they stop."""

import pytest
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import call
from tests.support.commands import ADDRESS, enrolled, send, state, sweep

WIFI = {"ssid": "kiosks", "password": "correct horse"}


@pytest.fixture
def phone(fake_fcm: FakeFcm) -> tuple[str, str]:
    device_id, token = enrolled("lobby", ADDRESS)
    call("POST", "/v1/heartbeat", {}, token=token)
    return device_id, token


def report_after_fcm_expiry(db: Database, seconds_ago: int = 61) -> None:
    """Let FCM's time to live for the message end before the device's latest report, by changing the rows' times."""
    db.execute("UPDATE fcm_dispatches SET fcm_expires_at = now() - interval '1 hour'")
    db.execute("UPDATE device_last_status SET last_seen_at = now() - make_interval(secs => %(s)s)", {"s": seconds_ago})
    db.execute("UPDATE device_heartbeats SET received_at = now() - make_interval(secs => %(s)s)", {"s": seconds_ago})


def posts(fake_fcm: FakeFcm) -> int:
    return len(fake_fcm.posts("r-1"))


@pytest.mark.parametrize(("behaviour", "before"), [("200", "sent"), ("503", "unknown")])
def test_command_is_sent_again_under_the_same_request_id(
    fake_fcm: FakeFcm, phone, db: Database, behaviour: str, before: str
):
    fake_fcm.behave(ADDRESS, behaviour, "200")
    shown = send(phone[0], delivery="until_answered", ttl_seconds=86_400).json
    assert (shown["state"], shown["delivery"], shown["answered"]) == (before, "until_answered", "at_once")

    report_after_fcm_expiry(db)
    sweep()

    first, second = fake_fcm.posts("r-1")
    assert first.data["ts"] != second.data["ts"]
    assert first.data["hmac"] != second.data["hmac"]
    again = call("GET", "/v1/commands/r-1").json
    assert (again["state"], again["attempts"]) == ("sent", 2)
    (entry,) = again["audit"]
    assert (entry["event"], entry["from"], entry["by"]) == ("repeat", before, None)


def test_repeat_waits_for_the_end_of_fcm_delivery_and_for_a_report(fake_fcm: FakeFcm, phone, db: Database):
    send(phone[0], delivery="until_answered", ttl_seconds=86_400)
    sweep()
    assert posts(fake_fcm) == 1, "sent again while FCM may still deliver it"
    db.execute("UPDATE fcm_dispatches SET fcm_expires_at = now() - interval '1 hour'")
    db.execute("UPDATE device_last_status SET last_seen_at = now() - interval '2 hours'")
    db.execute("UPDATE device_heartbeats SET received_at = now() - interval '2 hours'")
    sweep()
    assert posts(fake_fcm) == 1, "sent again while the device is away"
    report_after_fcm_expiry(db, seconds_ago=50)
    sweep()
    assert posts(fake_fcm) == 1, "sent again before queued results could arrive"
    report_after_fcm_expiry(db)
    sweep()
    assert posts(fake_fcm) == 2


def test_repeat_follows_60_s_after_the_first_report(fake_fcm, phone, db: Database):
    send(phone[0], delivery="until_answered", ttl_seconds=86_400)
    report_after_fcm_expiry(db)
    db.execute("UPDATE device_last_status SET last_seen_at = now()")
    sweep()
    assert posts(fake_fcm) == 2


def test_answer_ends_the_repeats(fake_fcm: FakeFcm, phone, db: Database):
    send(phone[0], action="launch_app", params={"package_name": "com.example.kiosk"}, delivery="until_answered")
    answer = {"correlation_id": "r-1", "type": "LAUNCH_APP_ACK", "status": "OK"}
    assert call("POST", f"/v1/devices/{phone[0]}/ack", answer, token=phone[1]).status == 200
    report_after_fcm_expiry(db)
    sweep()
    assert posts(fake_fcm) == 1


def test_at_most_once_command_is_never_sent_again_automatically(fake_fcm: FakeFcm, phone, db: Database):
    send(phone[0], ttl_seconds=86_400)
    report_after_fcm_expiry(db)
    sweep()
    assert posts(fake_fcm) == 1


def test_secrets_are_kept_until_the_answer(fake_fcm: FakeFcm, phone, db: Database):
    send(phone[0], action="wifi_connect", params=WIFI, delivery="until_answered", ttl_seconds=86_400)
    assert db.execute("SELECT state, secrets FROM fcm_dispatches") == [
        {"state": "sent", "secrets": {"password": "correct horse"}}
    ]
    report_after_fcm_expiry(db)
    sweep()
    assert [post.data["password"] for post in fake_fcm.posts("r-1")] == ["correct horse"] * 2
    answer = {"request_id": "r-1", "type": "WIFI_CONNECT_ACK", "status": "OK"}
    call("POST", f"/v1/devices/{phone[0]}/ack", answer, token=phone[1])
    assert db.execute("SELECT secrets FROM fcm_dispatches") == [{"secrets": {}}]


@pytest.mark.parametrize("behaviour", ["200", "503"])
def test_secrets_are_wiped_at_expiry_and_the_state_is_kept(fake_fcm: FakeFcm, phone, db: Database, behaviour: str):
    fake_fcm.behave(ADDRESS, behaviour)
    before = send(phone[0], action="wifi_connect", params=WIFI, delivery="until_answered").json["state"]
    db.execute("UPDATE fcm_dispatches SET expires_at = now() - interval '1 second'")
    report_after_fcm_expiry(db)
    sweep()
    assert db.execute("SELECT state, secrets FROM fcm_dispatches") == [{"state": before, "secrets": {}}]
    assert posts(fake_fcm) == 1


@pytest.mark.parametrize(
    ("action", "params", "reason"),
    [
        ("reboot", {}, "never answered"),
        ("ring", {}, "never answered"),
        ("remote_control", {"command": "home"}, "never answered"),
        ("remote_exec_fcm", {"type": "ping"}, "sent only once"),
    ],
)
def test_unrepeatable_action_is_refused(fake_fcm, phone, db, action, params, reason):
    refused = send(phone[0], action=action, params=params, delivery="until_answered").problem(422, "$.delivery")
    assert reason in refused["detail"]
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 0}]


def test_delivery_is_part_of_the_payload_when_it_is_not_the_default(fake_fcm: FakeFcm, phone):
    send(phone[0], delivery="at_most_once")
    assert send(phone[0]).status == 200
    send(phone[0], delivery="until_answered").problem(422)


def test_bulk_command_repeats_for_every_member(fake_fcm: FakeFcm, phone, db: Database):
    body = {"action": "ping", "request_id": "b-1", "device_ids": [phone[0]], "delivery": "until_answered"}
    assert call("POST", "/v1/commands", body).json["delivery"] == "until_answered"
    report_after_fcm_expiry(db)
    sweep()
    assert len(fake_fcm.posts(f"b-1:{phone[0]}")) == 2
    assert call("POST", "/v1/commands", body).status == 200
    call("POST", "/v1/commands", {**body, "delivery": "at_most_once"}).problem(422)


def test_operator_can_end_the_repeats(fake_fcm: FakeFcm, phone, db: Database):
    send(phone[0], delivery="until_answered")
    assert call("POST", "/v1/commands/r-1/cancel").json["state"] == "cancelled"
    report_after_fcm_expiry(db)
    sweep()
    assert posts(fake_fcm) == 1
    assert state(db) == "cancelled"
