"""Results of commands in private: how secrets are stored, and which parts of results a viewer cannot see."""

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import call
from tests.support.commands import ADDRESS, enrolled, send

WIFI = {"ssid": "kiosks", "password": "correct horse"}


def wifi(device_id: str, request_id: str = "r-1", password: str = "correct horse"):
    return send(device_id, request_id, action="wifi_connect", params={**WIFI, "password": password})


def test_payload_hash_reveals_no_password(fake_fcm: FakeFcm, device: str, db: Database):
    wifi(device, "r-1")
    wifi(device, "r-2", "another one")
    first, second = db.execute("SELECT payload_hash FROM fcm_dispatches")
    assert first == second


def test_repeat_compares_secrets_while_they_are_stored(fake_fcm: FakeFcm, device: str):
    fake_fcm.behave(ADDRESS, "503")
    assert wifi(device).json["state"] == "unknown"
    assert wifi(device).status == 200
    wifi(device, password="another one").problem(422)


def test_repeat_after_the_wipe_is_recognized_by_the_rest_of_the_payload(fake_fcm: FakeFcm, device: str):
    assert wifi(device).json["state"] == "sent"
    assert wifi(device).status == 200
    assert "secrets" not in wifi(device).json
    send(device, action="wifi_connect", params={"ssid": "kiosks"}).problem(422)


def test_bulk_command_treats_secrets_in_the_same_way(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, "503")
    body = {"action": "wifi_connect", "params": WIFI, "request_id": "b-1", "device_ids": [device]}
    call("POST", "/v1/commands", body)
    assert call("POST", "/v1/commands", body).status == 200
    call("POST", "/v1/commands", {**body, "params": {**WIFI, "password": "another one"}}).problem(422)
    db.execute("UPDATE fcm_dispatches SET secrets = '{}'")
    assert call("POST", "/v1/commands", {**body, "params": {**WIFI, "password": "another one"}}).status == 200


@pytest.fixture
def shell(fake_fcm: FakeFcm, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A device that was sent the shell command r-1 and answered it."""
    monkeypatch.setenv("REMOTE_EXEC_SHELL_ENABLED", "true")
    settings.load.cache_clear()
    device_id, token = enrolled("lobby", ADDRESS)
    send(device_id, action="remote_exec_shell", params={"command": "cat /sdcard/pin"})
    answer = {
        "exec_id": "r-1",
        "correlation_id": "r-1",
        "device_id": device_id,
        "status": "OK",
        "output": "4711",
        "ts": 1,
    }
    assert call("POST", "/v1/remote-exec/ack", answer, headers={"X-Device-Token": token}).status == 200
    return device_id, token


def test_only_the_result_route_shows_shell_command_and_output(shell):
    result = call("GET", "/v1/commands/r-1/result").json
    assert result["params"]["command"] == "cat /sdcard/pin"
    assert "4711" in result["result_message"]
    shown, listed = call("GET", "/v1/commands/r-1"), call("GET", "/v1/commands")
    assert shown.json["answer_withheld"] is True
    for answer in (shown, listed):
        assert "4711" not in answer.text
        assert "sdcard" not in answer.text


def test_result_masks_secrets_and_unknown_result_returns_404(fake_fcm: FakeFcm, device: str):
    wifi(device)
    assert call("GET", "/v1/commands/r-1/result").json["params"] == {"ssid": "kiosks", "password": "***"}
    call("GET", "/v1/commands/other/result").problem(404)
