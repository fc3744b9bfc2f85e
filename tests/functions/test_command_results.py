"""Devices report results of commands: once, in any order, and only for their own commands."""

import pytest
from nexmdm.runtime.database import Database

from local.fcm import FakeFcm
from tests.support.api import call, enroll
from tests.support.commands import ADDRESS, enrolled, send, state, sweep


@pytest.fixture
def phone(fake_fcm: FakeFcm) -> tuple[str, str]:
    return enrolled("phone", ADDRESS)


def ack(device_id: str, token: str, **body):
    body = {"request_id": "r-1", "type": "RING_STARTED", **body}
    return call("POST", f"/v1/devices/{device_id}/ack", body, token=token)


def action_result(token: str, **body):
    body = {"request_id": "r-1", "action": "wake", "outcome": "success", "finished_at": "2026-01-01T00:00:00Z", **body}
    return call("POST", "/v1/action-result", body, token=token)


def remote_exec_ack(token: str, device_id: str, **body):
    body = {"exec_id": "e-1", "correlation_id": "r-1", "device_id": device_id, "status": "OK", "ts": 1, **body}
    return call("POST", "/v1/remote-exec/ack", body, headers={"X-Device-Token": token})


def row(db: Database) -> dict:
    return db.execute("SELECT state, completed_at, result, result_message, http_code FROM fcm_dispatches")[0]


def test_first_ack_settles_the_command_and_is_kept(phone, db: Database):
    device_id, token = phone
    send(device_id, action="ring")
    assert ack(device_id, token).json == {"ok": True}
    first = row(db)
    assert first["result"] == "OK"
    assert first["completed_at"] is not None

    assert ack(device_id, token, type="RING_STOPPED", status="ERROR").json == {"ok": True}
    assert row(db) == first


@pytest.mark.parametrize("key", ["request_id", "correlation_id"])
def test_either_name_of_the_request_id_is_accepted(phone, db: Database, key: str):
    device_id, token = phone
    send(device_id, action="launch_app", params={"package_name": "a.b"})
    body = {key: "r-1", "type": "LAUNCH_APP_ACK", "status": "FAILED", "message": "not installed", "battery": 0.5}
    assert call("POST", f"/v1/devices/{device_id}/ack", body, token=token).status == 200
    assert (row(db)["result"], row(db)["result_message"]) == ("FAILED", "not installed")


def test_invalid_ack_is_refused_with_its_field(phone):
    device_id, token = phone
    other_id, other_token = enroll("other")
    send(device_id, action="ring")
    call("POST", f"/v1/devices/{device_id}/ack", {"type": "PING_ACK"}, token=token).problem(400)
    ack(device_id, token, type="DANCED").problem(400)
    ack(device_id, other_token).problem(403)
    ack(device_id, token, request_id="nobody-sent-this").problem(404)
    ack(other_id, other_token).problem(404)


def test_device_cannot_settle_a_command_of_another(phone, db: Database):
    device_id, _ = phone
    other_id, other_token = enroll("other")
    send(device_id)
    action_result(other_token).problem(404)
    remote_exec_ack(other_token, other_id).problem(404)
    call("POST", "/v1/heartbeat", {"is_ping_response": True, "ping_request_id": "r-1"}, token=other_token)
    assert row(db)["completed_at"] is None


def test_action_result_is_idempotent(phone, db: Database):
    device_id, token = phone
    send(device_id, action="wake")
    assert action_result(token, message="screen on").status == 200
    first = row(db)
    assert (first["result"], first["result_message"]) == ("success", "screen on")
    assert action_result(token, outcome="failure").status == 200
    assert row(db) == first
    action_result(token, device_id="another").problem(404)


@pytest.mark.parametrize("outcome", [None, {}])
def test_answer_without_an_outcome_completes_the_command_and_passes_the_audit(phone, db: Database, outcome):
    device_id, token = phone
    send(device_id, action="wake")
    assert action_result(token, outcome=outcome).status == 200
    found = row(db)
    assert (found["state"], found["completed_at"] is not None, found["result"]) == ("sent", True, None)
    assert call("GET", "/v1/audit/commands").json["violations"] == 0


def test_shell_output_is_cut_to_its_first_2048_characters(phone, db: Database):
    device_id, token = phone
    send(device_id, action="wake")
    answer = remote_exec_ack(token, device_id, exit_code=1, output="o" * 5000, error="e" * 5000, status="FAILED")
    assert answer.status == 200
    message = row(db)["result_message"]
    assert (message.count("o" * 2048), message.count("o" * 2049)) == (1, 0)
    assert (message.count("e" * 1024), message.count("e" * 1025)) == (1, 0)
    assert row(db)["result"] == "FAILED"


def test_heartbeat_answers_a_ping_and_no_other_command(phone, db: Database):
    device_id, token = phone
    send(device_id, action="ring")
    call("POST", "/v1/heartbeat", {"is_ping_response": True, "ping_request_id": "r-1"}, token=token)
    assert row(db)["completed_at"] is None


def test_heartbeat_answers_its_ping_in_the_same_statement(phone, db: Database):
    device_id, token = phone
    send(device_id)
    body = {"is_ping_response": True, "ping_request_id": "r-1"}
    assert call("POST", "/v1/heartbeat", body, token=token).json["pending_commands"] == []
    assert (row(db)["state"], row(db)["result"]) == ("sent", "OK")


def test_result_of_the_device_may_arrive_before_that_of_the_sender(fake_fcm: FakeFcm, phone, db: Database):
    device_id, token = phone
    fake_fcm.on_message = lambda _record: ack(device_id, token)

    assert send(device_id, action="ring").json["state"] == "sent"
    settled = row(db)
    assert settled["result"] == "OK"
    assert settled["http_code"] == 200  # the sender's result is kept beside the device's


def test_result_of_the_device_overrides_that_of_fcm(fake_fcm: FakeFcm, phone, db: Database):
    device_id, token = phone
    fake_fcm.behave(ADDRESS, "503")
    fake_fcm.on_message = lambda _record: ack(device_id, token)
    assert send(device_id, action="ring").json["state"] == "sent"


def test_result_of_the_device_settles_an_unknown_dispatch(fake_fcm: FakeFcm, phone, db: Database):
    device_id, token = phone
    fake_fcm.behave(ADDRESS, "503")
    assert send(device_id, action="ring").json["state"] == "unknown"
    ack(device_id, token)
    assert state(db) == "sent"
    call("POST", "/v1/commands/r-1/resend", {"reason": "impatient"}).problem(409)


@pytest.mark.parametrize("final", ["failed", "cancelled"])
def test_result_does_not_change_a_failed_or_cancelled_dispatch(fake_fcm: FakeFcm, phone, db: Database, final: str):
    device_id, token = phone
    fake_fcm.behave(ADDRESS, "400" if final == "failed" else "503")
    send(device_id, action="ring")
    if final == "cancelled":
        call("POST", "/v1/commands/r-1/cancel")
    assert ack(device_id, token).status == 200
    assert (state(db), row(db)["result"]) == (final, "OK")


def test_answered_dispatch_is_settled_although_its_sender_died(phone, db: Database):
    device_id, token = phone
    send(device_id, action="ring")
    db.execute(
        "UPDATE fcm_dispatches SET state = 'sending', lease_until = now() - interval '1 second', http_code = NULL"
    )
    ack(device_id, token)
    sweep()
    assert state(db) == "sent"
