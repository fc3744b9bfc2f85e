"""One command, one POST: the operator's response, the request the fake received, and the stored row."""

import sys
import threading

import pytest
from nexmdm.commands import queue, single
from nexmdm.commands.message import signature
from nexmdm.commands.queue import Answer, Result
from nexmdm.commands.single import Command, OneDevice
from nexmdm.runtime import settings
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database

from local.fcm import Behaviour, FakeFcm
from tests.support.api import call
from tests.support.commands import ADDRESS, enrolled, make_due, send, state, sweep
from tests.support.fcm import HMAC_KEY, forget_service
from tests.support.races import free, meeting


def test_command_is_accepted_sent_and_answered_in_one_call(fake_fcm: FakeFcm, device: str):
    answer = send(device, action="ring", params={"duration": 10})

    assert answer.status == 202
    assert answer.json["state"] == "sent"
    assert answer.json["attempts"] == 1
    (post,) = fake_fcm.posts("r-1")
    assert post.message["token"] == ADDRESS
    assert post.message["android"]["priority"] == "high"
    assert 0 < int(post.message["android"]["ttl"].rstrip("s")) <= 240
    data = post.data
    assert all(isinstance(value, str) for value in data.values())
    assert data["action"] == "ring"
    assert data["duration"] == "10"
    assert data["correlation_id"] == "r-1"
    assert data["device_id"] == device
    assert data["ts"].endswith("Z")
    assert data["hmac"] == signature(data, HMAC_KEY)


def test_repeated_request_is_answered_from_the_row(fake_fcm: FakeFcm, device: str):
    first = send(device)
    again = send(device)

    assert (first.status, again.status) == (202, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == first.json
    assert len(fake_fcm.posts("r-1")) == 1


@pytest.mark.parametrize("change", [{"action": "wake"}, {"ttl_seconds": 601}, {"device": "other"}])
def test_reused_key_for_another_command_is_refused(fake_fcm: FakeFcm, device: str, change: dict):
    send(device)
    target = enrolled("other", None)[0] if "device" in change else device
    answer = send(target, **{name: value for name, value in change.items() if name != "device"})

    answer.problem(422)
    assert len(fake_fcm.posts("r-1")) == 1


def test_defaults_are_part_of_the_payload(fake_fcm: FakeFcm, device: str):
    send(device, action="ring")
    assert send(device, action="ring", params={"duration": 30}, ttl_seconds=600).status == 200


def test_idempotency_key_is_required_and_two_must_agree(fake_fcm: FakeFcm, device: str):
    path = f"/v1/devices/{device}/commands"
    call("POST", path, {"action": "ping"}).problem(400)
    differing = call("POST", path, {"action": "ping", "request_id": "a"}, headers={"Idempotency-Key": "b"})
    differing.problem(422, "$.request_id")
    call("POST", path, {"action": "ping", "request_id": "a:b"}).problem(422, "$.request_id")
    assert call("POST", path, {"action": "ping"}, headers={"Idempotency-Key": "b"}).json["request_id"] == "b"


def test_repeat_during_the_send_returns_409(fake_fcm: FakeFcm, device: str, db: Database):
    seen = []

    def look(_record):
        # The claim is committed before any byte is sent, and no transaction is open meanwhile.
        seen.append(db.execute("SELECT state, fence FROM fcm_dispatches")[0])
        seen.append(db.execute("SELECT count(*) AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"))

    fake_fcm.on_message = look
    assert send(device).json["state"] == "sent"
    assert seen == [{"state": "sending", "fence": 1}, [{"n": 0}]]

    db.execute(
        "UPDATE fcm_dispatches SET state = 'sending', completed_at = NULL, lease_until = now() + interval '1 minute'"
    )
    answer = send(device)
    answer.problem(409)
    assert int(answer.headers["retry-after"]) > 0


OUTCOMES = {
    # behaviour: (state, POSTs that one command causes, HTTP code stored)
    "200": ("sent", 1, 200),
    "400": ("failed", 1, 400),
    "401": ("retry_wait", 2, 401),
    "403": ("failed", 1, 403),
    "404": ("failed", 1, 404),
    "404-no-details": ("failed", 1, 404),
    "429": ("retry_wait", 1, 429),
    "500": ("unknown", 1, 500),
    "502": ("unknown", 1, 502),
    "503": ("unknown", 1, 503),
    "redirect": ("unknown", 1, 307),
    "half": ("unknown", 1, None),
    "nothing": ("unknown", 1, None),
    "reset": ("unknown", 1, None),
    "silence": ("unknown", 1, None),
}


@pytest.mark.parametrize("behaviour", OUTCOMES)
def test_fcm_response_decides_the_state_and_causes_no_second_post(
    fake_fcm: FakeFcm, device: str, db: Database, behaviour: str
):
    expected, posts, code = OUTCOMES[behaviour]
    fake_fcm.behave(ADDRESS, Behaviour(behaviour))

    answer = send(device)

    assert answer.status == 202
    assert answer.json["state"] == expected, answer.json
    assert answer.json["http_code"] == code
    assert len(fake_fcm.posts("r-1")) == posts
    refused = int(expected in ("failed", "retry_wait"))
    assert db.execute("SELECT refused FROM fcm_dispatches") == [{"refused": refused}], (
        "`refused` must count exactly the certain refusals"
    )
    assert ADDRESS not in str(answer.json)
    # Afterwards, only a message that was certainly not accepted is sent again automatically.
    make_due(db)
    sweep(), sweep()
    assert (len(fake_fcm.posts("r-1")) > posts) == (expected == "retry_wait")


def test_refused_connection_counts_as_not_accepted(fake_fcm: FakeFcm, device: str, monkeypatch, db: Database):
    monkeypatch.setenv("FCM_ENDPOINT", "http://127.0.0.1:1")
    settings.load.cache_clear()
    forget_service()
    assert send(device).json["state"] == "retry_wait"
    assert state(db) == "retry_wait"


def test_expired_access_token_is_renewed_once(fake_fcm: FakeFcm, device: str):
    send(device, "first")
    fake_fcm.revoke_access()

    assert send(device, "second").json["state"] == "sent"
    assert [post.outcome for post in fake_fcm.posts("second")] == ["401", "200"]


def test_access_token_is_kept_between_calls(fake_fcm: FakeFcm, device: str):
    for n in range(3):
        send(device, f"r-{n}")
    assert len(fake_fcm.requests(path="/token")) == 1


def test_only_fcm_is_called(fake_fcm: FakeFcm, device: str):
    asked = set()
    watching = True

    def audit(name: str, arguments: tuple) -> None:
        if watching and name == "socket.getaddrinfo":
            asked.add(arguments[0])

    sys.addaudithook(audit)
    send(device)
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and thread.daemon and "google" in type(thread).__module__:
            thread.join()
    watching = False
    assert asked == {"127.0.0.1"}


def test_sweep_retries_after_the_retry_after_time(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, Behaviour("429", retry_after=30), "200")
    assert send(device).json["state"] == "retry_wait"
    wait = db.execute("SELECT extract(epoch FROM next_at - now())::float8 AS s FROM fcm_dispatches")[0]["s"]
    assert 25 < wait < 40

    sweep()
    assert state(db) == "retry_wait"
    make_due(db)
    sweep()
    assert state(db) == "sent"
    assert [post.outcome for post in fake_fcm.posts("r-1")] == ["429", "200"]


def test_unregistered_removes_the_fcm_token_only_if_it_is_still_current(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, "404")
    send(device)
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": None}]

    db.execute("UPDATE devices SET fcm_token = %(t)s", {"t": ADDRESS})
    fake_fcm.on_message = lambda _: db.execute("UPDATE devices SET fcm_token = 'fcm:newer'")
    send(device, "r-2")
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": "fcm:newer"}]


def test_unregistered_locks_the_device_before_its_command(url: str, device: str, db: Database):
    """An enrollment locks in this order when a phone takes the device over and its open commands are cancelled."""
    answer = Answer("r-1", 1, Result(outcome="failed", fcm_status="UNREGISTERED", unregistered_token=ADDRESS))
    single.accept(db, Command("r-1", OneDevice(device), "ping", {}, 600, Actor("me")))
    assert queue.claim(db, "r-1", 90) is not None
    settled = meeting(
        url,
        lambda tx: tx.execute("SELECT FROM devices FOR UPDATE"),
        lambda own: queue.settle(own, [answer]),
        then=free("fcm_dispatches"),
    )
    assert settled == ["failed"]
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": None}]


def test_404_without_a_reason_keeps_the_fcm_token(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, "404-no-details")
    send(device)
    assert db.execute("SELECT fcm_token FROM devices") == [{"fcm_token": ADDRESS}]


def test_device_without_an_fcm_token_gets_its_command_with_a_heartbeat(fake_fcm: FakeFcm, db: Database):
    device_id, token = enrolled("silent", None)
    assert send(device_id, action="ring").json["state"] == "accepted"
    sweep()
    assert state(db) == "accepted"
    assert fake_fcm.requests() == []

    (pending,) = call("POST", "/v1/heartbeat", {}, token=token).json["pending_commands"]
    assert pending["request_id"] == "r-1"
    assert pending["duration"] == "30"
    assert pending["hmac"] == signature(pending, HMAC_KEY)
    assert state(db) == "accepted"


def test_unsent_command_expires(fake_fcm: FakeFcm, db: Database):
    device_id, _ = enrolled("silent", None)
    send(device_id)
    db.execute("UPDATE fcm_dispatches SET expires_at = now() - interval '1 second'")
    assert sweep()["expired"] == 1
    assert state(db) == "expired"


def test_dispatch_with_an_expired_lease_is_unknown_and_not_sent_again(fake_fcm: FakeFcm, device: str, db: Database):
    send(device)
    db.execute("UPDATE fcm_dispatches SET state = 'sending', lease_until = now() - interval '1 second'")
    assert sweep()["unknown"] == 1
    sweep()
    assert state(db) == "unknown"
    assert len(fake_fcm.posts("r-1")) == 1


def test_secrets_are_masked_and_wiped(fake_fcm: FakeFcm, device: str, db: Database):
    wifi = {"ssid": "kiosks", "password": "correct horse"}
    fake_fcm.behave(ADDRESS, "503", "200")
    shown = send(device, action="wifi_connect", params=wifi)
    assert shown.json["params"] == {"ssid": "kiosks", "password": "***"}
    assert fake_fcm.posts("r-1")[0].data["password"] == "correct horse"
    # The state is unknown and the device may still get the command with a heartbeat, so the secret is kept but hidden.
    assert db.execute("SELECT secrets FROM fcm_dispatches") == [{"secrets": {"password": "correct horse"}}]

    assert call("POST", "/v1/commands/r-1/resend", {"reason": "no answer"}).json["state"] == "sent"
    assert fake_fcm.posts("r-1")[1].data["password"] == "correct horse"
    assert db.execute("SELECT secrets FROM fcm_dispatches") == [{"secrets": {}}]
    call("POST", "/v1/commands/r-1/resend", {"reason": "again"}).problem(409)


@pytest.mark.parametrize(
    ("action", "params", "path"),
    [
        ("dance", {}, "$.action"),
        ("ping", {"x": 1}, "$.params"),
        ("ring", {"duration": 4}, "$.params.duration"),
        ("install_apk", {"download_url": "https://x/y"}, "$.params"),
        ("remote_control", {"command": "tap", "x": 1}, "$.params.y"),
        ("set_dnd", {}, "$.params"),
        ("apply_battery_whitelist", {"packages": []}, "$.params.packages"),
        ("remote_exec_fcm", {"type": ""}, "$.params.type"),
    ],
)
def test_invalid_parameters_store_nothing(fake_fcm: FakeFcm, device: str, db: Database, action, params, path):
    send(device, action=action, params=params).problem(422, path)
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 0}]


def test_message_above_4096_bytes_is_refused_before_anything_is_stored(fake_fcm: FakeFcm, device: str, db: Database):
    packages = {"packages": ["com." + "p" * 200] * 20}
    send(device, action="apply_battery_whitelist", params=packages).problem(422, "$.params")
    assert db.execute("SELECT count(*) AS n FROM fcm_dispatches") == [{"n": 0}]


def test_shell_commands_are_disabled_by_default(fake_fcm: FakeFcm, device: str, monkeypatch):
    send(device, action="remote_exec_shell", params={"command": "id"}).problem(403)
    monkeypatch.setenv("REMOTE_EXEC_SHELL_ENABLED", "true")
    settings.load.cache_clear()
    assert send(device, action="remote_exec_shell", params={"command": "id"}).json["state"] == "sent"
    (post,) = fake_fcm.posts("r-1")
    assert post.data["exec_id"] == "r-1"
    assert post.data["hmac"] == signature(post.data, HMAC_KEY)


def test_command_for_an_unknown_device_returns_404(fake_fcm: FakeFcm):
    send("00000000-0000-0000-0000-000000000000").problem(404)


def test_cancel_affects_only_dispatches_that_may_still_be_sent(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, Behaviour("429", retry_after=60))
    send(device)
    cancelled = call("POST", "/v1/commands/r-1/cancel")
    assert cancelled.json["state"] == "cancelled"
    assert cancelled.json["audit"][0]["event"] == "cancel"
    assert call("POST", "/v1/commands/r-1/cancel").json == cancelled.json
    make_due(db)
    sweep()
    assert len(fake_fcm.posts("r-1")) == 1

    fake_fcm.behave(ADDRESS, "200")
    send(device, "r-2")
    call("POST", "/v1/commands/r-2/cancel").problem(409)


def test_resend_is_audited_and_has_its_own_expiry(fake_fcm: FakeFcm, device: str, db: Database):
    fake_fcm.behave(ADDRESS, "503", "200")
    send(device)
    call("POST", "/v1/commands/r-1/resend", {}).problem(422, "$")
    again = call("POST", "/v1/commands/r-1/resend", {"reason": "device is back", "ttl_seconds": 120})

    assert again.status == 202
    assert again.json["state"] == "sent"
    (entry,) = again.json["audit"]
    assert entry["event"] == "resend"
    assert entry["from"] == "unknown"
    assert entry["by"].startswith("arn:aws:iam::")
    assert entry["reason"] == "device is back"
    first, second = fake_fcm.posts("r-1")
    assert first.data["ts"] != second.data["ts"]
    left = db.execute("SELECT extract(epoch FROM expires_at - now())::float8 AS s FROM fcm_dispatches")[0]["s"]
    assert 100 < left <= 120


def test_resend_with_a_key_is_done_once(fake_fcm: FakeFcm, device: str):
    fake_fcm.behave(ADDRESS, "503", "200")
    send(device)
    resend = {"body": {"reason": "no answer"}, "headers": {"Idempotency-Key": "resend-1"}}
    first = call("POST", "/v1/commands/r-1/resend", **resend)
    again = call("POST", "/v1/commands/r-1/resend", **resend)

    assert (first.status, again.status) == (202, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == first.json
    assert len(fake_fcm.posts("r-1")) == 2


def test_idempotency_key_with_a_trailing_newline_is_refused(device: str):
    send(device, "r-1\n").problem(422, "$.request_id")
