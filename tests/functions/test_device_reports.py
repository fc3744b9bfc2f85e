"""POST /v1/devices/fcm-token."""

import pytest

from tests.support import agent
from tests.support.api import call, enroll


@pytest.fixture
def lobby(url) -> tuple[str, str]:
    return enroll("lobby")


def address(db) -> str | None:
    return db.execute("SELECT fcm_token FROM devices WHERE alias = 'lobby'")[0]["fcm_token"]


def report(token: str | None, fcm_token="fcm:new", **more):
    return call("POST", "/v1/devices/fcm-token", {"fcm_token": fcm_token, **more}, token=token)


def test_fcm_token_is_stored_and_the_response_says_ok(db, lobby):
    device_id, token = lobby
    answer = report(token, device_id=device_id)
    assert answer.status == 200
    assert answer.json["ok"] is True
    assert isinstance(answer.json["message"], str)
    assert address(db) == "fcm:new"
    assert report(token).status == 200


def test_older_heartbeat_does_not_restore_the_old_fcm_token(db, lobby):
    _, token = lobby
    report(token)
    call("POST", "/v1/heartbeat", agent.heartbeat(agent.an_hour_ago(), fcm_token="fcm:old"), token=token)
    assert address(db) == "fcm:new"


def test_fcm_token_route_refuses_invalid_requests(db, lobby):
    device_id, token = lobby
    other_id, other = enroll("hall")
    report(None).problem(403)
    report("wrong").problem(401)
    report(token, device_id=other_id).problem(403)
    report(token, fcm_token="").problem(422, "$.fcm_token")
    report(token, fcm_token="x" * 4097).problem(422, "$.fcm_token")
    call("POST", "/v1/devices/fcm-token", {"device_id": device_id}, token=token).problem(422)
    call("DELETE", f"/v1/devices/{other_id}")
    assert report(other).problem(410)["reason"] == "device_deleted"
    assert address(db) is None
