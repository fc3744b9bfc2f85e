"""Each change of a command leaves one event; a call that changes nothing leaves none."""

import json
from hashlib import sha256

from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from local.fcm import Behaviour, FakeFcm
from tests.support.api import call
from tests.support.commands import ADDRESS, enrolled, send, sweep


def events(db: Database) -> list[dict]:
    rows = db.execute(
        "SELECT actor, action, object, before, after FROM operator_events"
        " WHERE action LIKE 'command.%%' ORDER BY event_id"
    )
    db.execute("DELETE FROM operator_events")
    return rows


def test_sending_leaves_one_event_without_secrets(fake_fcm: FakeFcm, device: str, db: Database):
    for _ in range(2):
        send(device, action="wifi_connect", params={"ssid": "kiosks", "password": "correct horse"})
    (event,) = events(db)
    assert (event["action"], event["object"]) == ("command.send", "command:r-1")
    assert event["actor"].startswith("arn:aws:iam::")
    assert event["after"]["params"] == {"ssid": "kiosks", "password": "***"}
    assert event["after"]["device_id"] == device
    assert "correct horse" not in json.dumps(event)


def test_event_contains_no_shell_command(fake_fcm: FakeFcm, device: str, db: Database, monkeypatch):
    monkeypatch.setenv("REMOTE_EXEC_SHELL_ENABLED", "true")
    settings.load.cache_clear()
    send(device, action="remote_exec_shell", params={"command": "cat /sdcard/pin"})
    (event,) = events(db)
    assert event["after"]["params"] == {"command": "***"}


def test_bulk_command_leaves_one_event_with_its_count(fake_fcm: FakeFcm, db: Database):
    ids = [enrolled(f"kiosk-{n}", f"fcm:{n}")[0] for n in range(3)]
    body = {"action": "ping", "request_id": "b-1", "device_ids": ids}
    call("POST", "/v1/commands", body), call("POST", "/v1/commands", body)
    (event,) = events(db)
    assert (event["action"], event["object"], event["after"]["device_count"]) == ("command.send_many", "command:b-1", 3)
    assert event["after"]["target_hash"] == sha256("\n".join(sorted(ids)).encode()).hexdigest()
    assert not set(ids) & set(str(event["after"]))


def test_refused_command_leaves_no_event(fake_fcm: FakeFcm, device: str, db: Database):
    send(device, action="fly").problem(422)
    send("00000000-0000-0000-0000-000000000000").problem(404)
    call("POST", "/v1/commands", {"action": "ping", "request_id": "b", "device_ids": ["ghost"]}).problem(422)
    assert events(db) == []


def test_events_of_cancel_and_resend_name_the_change(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, Behaviour("429", retry_after=60), "503", "200")
    send(device, "r-1"), send(device, "r-2")
    events(db)
    for _ in range(2):
        call("POST", "/v1/commands/r-1/cancel")
    for _ in range(2):
        call("POST", "/v1/commands/r-2/resend", {"reason": "no answer"}, headers={"Idempotency-Key": "again"})
    cancelled, resent = events(db)
    assert (cancelled["action"], cancelled["before"], cancelled["after"]) == (
        "command.cancel",
        {"retry_wait": 1},
        {"cancelled": 1},
    )
    assert (resent["action"], resent["object"], resent["before"]) == (
        "command.resend",
        "command:r-2",
        {"state": "unknown"},
    )
    assert resent["after"]["reason"] == "no answer"


def test_expiry_leaves_one_system_event(fake_fcm: FakeFcm, db: Database):
    ids = [enrolled(f"silent-{n}", None)[0] for n in range(3)]
    call("POST", "/v1/commands", {"action": "ping", "request_id": "b-1", "device_ids": ids})
    events(db)
    sweep()
    assert events(db) == []
    db.execute("UPDATE fcm_dispatches SET expires_at = now() - interval '1 second'")
    sweep(), sweep()
    (event,) = events(db)
    assert (event["actor"], event["action"], event["after"]["commands"]) == ("system:sweep", "command.expire", 3)
