"""The fake FCM over real sockets: its responses, its faults, what it records and what it delivers."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from local.fcm import Behaviour, FakeFcm, running
from local.fcm.account import service_account
from local.fcm.behaviours import at_random
from tests.local.processes import listening

SEND = "/v1/projects/nexmdm-local/messages:send"


@pytest.fixture
def fake_fcm():
    return FakeFcm()


@pytest.fixture
def fcm(fake_fcm):
    with running(fake_fcm) as url, httpx.Client(base_url=url, timeout=2, follow_redirects=False) as client:
        granted = client.post("/token", data={"grant_type": "jwt-bearer", "assertion": "a.b.c"}).json()
        client.headers["Authorization"] = f"Bearer {granted['access_token']}"
        yield client


def send(fcm, token="a-device", **data):
    return fcm.post(SEND, json={"message": {"token": token, "data": {"request_id": "r-1", **data}}})


def test_message_is_accepted_recorded_and_delivered(fake_fcm, fcm):
    answer = send(fcm, action="ping")
    assert answer.status_code == 200
    assert answer.json()["name"].startswith("projects/nexmdm-local/messages/0:")
    [record] = fake_fcm.posts("r-1")
    assert (record.token, record.outcome, record.delivered) == ("a-device", "200", True)
    # The client may have the response before the fake has recorded it.
    fake_fcm.wait_for(lambda: record.answered_at is not None)
    assert record.at <= record.answered_at <= time.time()
    assert [(d.token, d.data["action"]) for d in fake_fcm.deliveries()] == [("a-device", "ping")]


@pytest.mark.parametrize(
    ("kind", "status", "google", "error_code"),
    [
        ("400", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("403", 403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        ("404", 404, "NOT_FOUND", "UNREGISTERED"),
        ("500", 500, "INTERNAL", "INTERNAL"),
        ("503", 503, "UNAVAILABLE", "UNAVAILABLE"),
    ],
)
def test_errors_have_the_format_of_fcm(fake_fcm, fcm, kind, status, google, error_code):
    fake_fcm.behave("a-device", kind)
    answer = send(fcm)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (status, status, google)
    assert [detail["errorCode"] for detail in error["details"]] == [error_code]
    assert fake_fcm.deliveries() == []
    assert send(fcm, token="another").status_code == 200


def test_429_has_a_retry_after(fake_fcm, fcm):
    fake_fcm.behave("a-device", Behaviour("429", retry_after=7))
    answer = send(fcm)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_html_pages_and_redirects_can_be_returned(fake_fcm, fcm):
    fake_fcm.behave("a-device", "502", "redirect")
    assert send(fcm).headers["content-type"] == "text/html"
    assert send(fcm).status_code == 307


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("half", httpx.RemoteProtocolError),
        ("nothing", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("silence", httpx.ReadTimeout),
    ],
)
def test_socket_faults_can_be_produced(fake_fcm, fcm, kind, error):
    fake_fcm.behave("a-device", kind)
    with pytest.raises(error):
        send(fcm)
    assert fake_fcm.posts("r-1")[0].outcome == kind
    assert send(fcm, token="another").status_code == 200


def test_message_with_an_ambiguous_response_may_be_delivered(fake_fcm, fcm):
    fake_fcm.behave("a-device", Behaviour("503", delivered=True), Behaviour("503"))
    send(fcm)
    send(fcm)
    assert [record.delivered for record in fake_fcm.posts("r-1")] == [True, False]


def test_behaviors_apply_in_order_and_the_last_one_stays(fake_fcm, fcm):
    fake_fcm.behave("a-device", Behaviour("503", times=2), "429", "200")
    assert [send(fcm).status_code for _ in range(5)] == [503, 503, 429, 200, 200]


def test_invalid_access_token_is_refused(fake_fcm, fcm):
    fake_fcm.revoke_access()
    assert send(fcm).status_code == 401
    assert fake_fcm.deliveries() == []


def test_token_endpoint_can_fail(fake_fcm, fcm):
    fake_fcm.behave("/token", "503", "200")
    assert fcm.post("/token", data={"assertion": "x"}).status_code == 503
    assert fcm.post("/token", data={"assertion": "x"}).status_code == 200
    assert fcm.post("/token", data={}).status_code == 400
    assert len(fake_fcm.requests(path="/token")) == 4


def test_hook_runs_between_request_and_response(fake_fcm, fcm):
    arrived, go_on = threading.Event(), threading.Event()

    def hook(record):
        arrived.set()
        assert go_on.wait(5)

    fake_fcm.on_message = hook
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(send, fcm)
        assert arrived.wait(5)
        assert fake_fcm.posts("r-1")[0].outcome == "arrived"
        assert not answer.done()
        go_on.set()
        assert answer.result().status_code == 200


def test_waiting_for_messages(fake_fcm, fcm):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(fake_fcm.wait_for, lambda: len(fake_fcm.posts("r-1")) == 2)
        send(fcm)
        send(fcm)
        waiting.result(5)
    with pytest.raises(TimeoutError):
        fake_fcm.wait_for(lambda: False, 0.01)


def test_concurrent_messages_are_all_recorded(fake_fcm, fcm):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: send(fcm, request_id=f"r-{n}"), range(200)))
    assert sorted(len(fake_fcm.posts(f"r-{n}")) for n in range(200)) == [1] * 200


def test_invalid_request_returns_400_and_unknown_path_404(fake_fcm, fcm):
    assert fcm.post(SEND, content=b"{").status_code == 400
    assert fcm.post(SEND, json={"message": {}}).status_code == 400
    assert fcm.get("/elsewhere").status_code == 404


def test_client_that_speaks_no_http_does_no_harm(fcm):
    with socket.create_connection((fcm.base_url.host, fcm.base_url.port)) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(100) == b""
    assert send(fcm).status_code == 200


def test_fake_is_controlled_over_http(fake_fcm, fcm):
    told = [{"kind": "503", "times": 1, "delivered": True}, {"kind": "200"}]
    assert fcm.put("/control/behaviours/a-device", json=told).status_code == 200
    assert [send(fcm).status_code for _ in range(2)] == [503, 200]
    requests = fcm.get("/control/requests").json()["requests"]
    assert [request["outcome"] for request in requests] == ["503", "200"]
    messages = fcm.get("/control/messages", params={"after": 1}).json()["messages"]
    assert [message["number"] for message in messages] == [2]
    assert fcm.put("/control/behaviours/a-device", json=[{"kind": "999"}]).status_code == 400
    assert fcm.delete("/control").status_code == 200
    assert fake_fcm.requests() == fake_fcm.deliveries() == []


def test_long_poll_ends_with_the_message(fcm):
    with ThreadPoolExecutor() as pool:
        polled = pool.submit(fcm.get, "/control/messages", params={"wait": 30}, timeout=40)
        send(fcm)
        assert len(polled.result(10).json()["messages"]) == 1


def test_random_behavior_never_unregisters_a_device():
    import random

    kinds = {at_random(random.Random(n), share=1.0).kind for n in range(500)}
    assert not kinds & {"400", "403", "404", "404-no-details", "200"}
    assert {"503", "reset", "silence", "half", "429"} <= kinds
    assert at_random(random.Random(1), share=0).kind == "200"


def test_fake_runs_as_a_process_with_its_service_account(tmp_path):
    account = tmp_path / "account.json"
    with listening("-m", "local.fcm", "--port", "0", "--account", str(account)) as (process, url):
        assert json.loads(account.read_text())["token_uri"] == f"{url}/token"
        process.terminate()
        assert process.wait(10) == 0


def test_firebase_admin_accepts_the_service_account(fake_fcm, fcm):
    from google.auth.transport.requests import Request
    from google.oauth2 import service_account as google

    given = json.loads(service_account(str(fcm.base_url).rstrip("/")))
    credentials = google.Credentials.from_service_account_info(given, scopes=["x"])
    credentials.refresh(Request())
    fcm.headers["Authorization"] = f"Bearer {credentials.token}"
    assert send(fcm).status_code == 200
