"""Dispatches that are not sent are neither marked as sent nor left claimed: time budgets, defects, odd responses."""

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from nexmdm.commands import message, queue
from nexmdm.runtime import settings
from nexmdm.runtime.errors import Unavailable

from functions.fcm_dispatch import fcm, handler, sending
from local.fcm import Behaviour
from tests.support.api import call, event
from tests.support.commands import sweep
from tests.support.fcm import forget_service
from tests.system.dispatch.lines import Trap
from tests.system.dispatch.sender import Sender
from tests.system.dispatch.stage import Job, Stage


def give(job: Job, remaining_seconds: float = 60) -> dict[str, Any]:
    left = lambda: int(remaining_seconds * 1000)  # noqa: E731
    context = SimpleNamespace(aws_request_id="0", function_name="sending", get_remaining_time_in_millis=left)
    return handler.handler(job.event, context)


def test_no_send_is_started_when_the_time_is_too_short(here: Stage):
    budget = sending.send_budget_seconds(settings.load())
    job = here.job()

    assert give(job, budget)["statusCode"] == 202
    row = here.row(job.request_id)
    assert (row["state"], row["fence"], here.fake_fcm.posts(job.request_id)) == ("accepted", 0, [])
    assert sending.drain(here.db, settings.load(), lambda: budget) == 0
    assert here.row(job.request_id)["fence"] == 0
    assert sending.drain(here.db, settings.load(), lambda: budget + 1) == 1
    assert here.state(job.request_id) == "sent"


def test_expired_dispatch_is_not_claimed_before_a_sweep_marks_it(here: Stage):
    job = here.job()
    give(job, sending.send_budget_seconds(settings.load()))
    here.db.execute("UPDATE fcm_dispatches SET expires_at = now() - interval '1 s'")
    assert queue.claim(here.db, job.request_id, 90) is None
    assert queue.claim_due(here.db, 9, 90) == []


def test_no_resend_is_started_when_the_time_is_too_short(here: Stage):
    job = here.job()
    here.fake_fcm.behave(job.address, "503")
    give(job)
    resend = job._replace(event=event("POST", f"/v1/commands/{job.request_id}/resend", {"reason": "again"})[1])

    answer = give(resend, sending.send_budget_seconds(settings.load()))
    assert (answer["statusCode"], here.row(job.request_id)["fence"]) == (503, 1)
    assert int(answer["headers"]["Retry-After"]) > 0


def test_budget_covers_the_longest_token_request_and_message():
    config = settings.Settings(database_url="postgresql://x/y")
    assert config.dispatch_lease_seconds > 60 + config.fcm_timeout_seconds, "the lease must outlive the function"
    assert sending.send_budget_seconds(config) > 2 * config.fcm_timeout_seconds


@pytest.mark.parametrize("missing", ["FCM_SERVICE_ACCOUNT", "COMMAND_HMAC_KEY"])
def test_missing_settings_fail_before_a_claim(here: Stage, monkeypatch, missing: str):
    monkeypatch.setenv(missing, "arn:aws:secretsmanager:eu-west-1:000000000000:secret:x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1/")
    settings.load.cache_clear()
    forget_service()
    job = here.job()
    assert give(job)["statusCode"] == 500
    with pytest.raises((OSError, settings.SettingsError)):
        sweep()
    assert (here.state(job.request_id), here.row(job.request_id)["fence"]) == ("accepted", 0)


def test_message_that_cannot_be_built_counts_as_not_sent(here: Stage, monkeypatch):
    broken, whole = here.job(), here.job()
    build = message.build

    def defective(content: message.Content, *rest: Any) -> dict[str, str]:
        if content.request_id == broken.request_id:
            raise KeyError("a defect")
        return build(content, *rest)

    budget = sending.send_budget_seconds(settings.load())
    give(broken, budget), give(whole, budget)
    monkeypatch.setattr(message, "build", defective)
    assert sweep()["sent"] == 2
    row = here.row(broken.request_id)
    assert (row["state"], row["fcm_status"], here.state(whole.request_id)) == ("retry_wait", "NOT_BUILT", "sent")

    # Once the defect is fixed, the sweep sends the command.
    monkeypatch.setattr(message, "build", build)
    here.make_due()
    sweep()
    assert (here.state(broken.request_id), len(here.fake_fcm.posts(broken.request_id))) == ("sent", 1)


def test_message_that_firebase_refuses_to_encode_counts_as_not_sent(here: Stage):
    job = here.job()
    here.db.execute("UPDATE devices SET fcm_token = '' WHERE id = %(id)s", {"id": job.device_id})
    give(job)
    assert here.row(job.request_id)["fcm_status"] == "NOT_BUILT"


def test_outage_during_a_sweep_settles_the_results_afterwards(here: Stage):
    """The statement that settles one dispatch is lost with its connection; its result is recorded with the other's."""
    budget = sending.send_budget_seconds(settings.load())
    lost, later = here.job(), here.job()
    give(lost, budget), give(later, budget)
    settled, gate = [], threading.Event()
    here.fake_fcm.on_message = lambda record: record.data["request_id"] == lost.request_id or gate.wait(30)

    class Failing:
        """A database that is unavailable for two runs of one statement."""

        def execute(self, sql: str, parameters: dict[str, Any], **how: Any) -> Any:
            if "settled AS" in sql:
                settled.append([answer["request_id"] for answer in json.loads(parameters["answers"])])
                gate.set()
                if len(settled) == 1:
                    raise Unavailable
            return here.db.execute(sql, parameters, **how)

    with pytest.raises(Unavailable):
        sending.drain(Failing(), settings.load(), lambda: 60)
    assert settled == [[lost.request_id], [lost.request_id, later.request_id]]
    assert (here.state(lost.request_id), here.state(later.request_id)) == ("sent", "sent")
    here.watch(None)


@pytest.mark.parametrize("kind", ["400", "503", "reset", "silence"])
def test_nothing_is_sent_without_an_oauth_token(stage: Stage, kind: str):
    job = stage.job()
    stage.fake_fcm.behave("/token", kind)
    answer = stage.sender(job.event).answer()
    assert (answer.json["state"], answer.json["fcm_status"]) == ("retry_wait", "NO_ACCESS_TOKEN")
    assert stage.fake_fcm.posts(job.request_id) == []


def test_silent_token_refresh_takes_no_longer_than_a_post(here: Stage):
    """google-auth's own timeout is 120 s, twice the function's, after which the row would have to be unknown."""
    job = here.job()
    give(job)
    here.fake_fcm.revoke_access()
    here.fake_fcm.behave("/token", "silence")
    again = here.job()
    give(again)
    row = here.row(again.request_id)
    assert (row["state"], row["http_code"], len(here.fake_fcm.posts(again.request_id))) == ("retry_wait", 401, 1)


def test_connections_from_before_a_freeze_are_not_reused(stage: Stage):
    """A POST on a dead connection would be unknown, so each invocation begins with its own connection."""
    first, second = stage.job(), stage.job()
    stage.exchanges.connections.clear()
    sender = Sender([first.event, second.event], stage.environment(watched=True))
    for _ in range(2):
        assert sender.answer().json["state"] == "sent"
    assert stage.exchanges.connections == {"oauth": 1, "post": 2}


ANSWERS = {
    "a NUL": (500, b'{"error": {"status": "A\\u0000B", "message": "\\u0000"}}', "unknown"),
    "half a surrogate pair": (500, b'{"error": {"status": "\\ud800", "message": "\\ud800"}}', "unknown"),
    "a name with half a surrogate pair": (200, b'{"name": "\\ud800"}', "unknown"),
    "a NUL outside of JSON": (400, b"\x00\x00", "failed"),
    "no UTF-8": (400, b"\xff\xfe\xfa", "failed"),
    "a name that is a number": (200, b'{"name": 5}', "unknown"),
    "a name with a NUL": (200, b'{"name": "a\\u0000b"}', "unknown"),
    "no name": (200, b"{}", "unknown"),
    "a list": (200, b"[]", "unknown"),
    "nothing": (200, b"", "unknown"),
    "an error that is a list": (404, b'{"error": []}', "failed"),
    "details that are a number": (404, b'{"error": {"status": "S", "details": 1}}', "failed"),
    "no content": (204, b"", "unknown"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_any_response_settles_the_row(here: Stage, monkeypatch, answer: str):
    code, body, state = ANSWERS[answer]
    head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    give(here.job())  # now there is an OAuth token
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere = msgspec.structs.replace(fcm.service(), url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        monkeypatch.setattr(fcm, "service", lru_cache(lambda: elsewhere))
        thread = threading.Thread(target=answer_once, args=(listener, head + body))
        thread.start()
        job = here.job()
        assert give(job)["statusCode"] == 202
        thread.join()
    assert here.state(job.request_id) == state


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        data = b""
        while b"messages" not in data and b'"message"' not in data:
            data += connection.recv(65_536)
        connection.sendall(answer)


def test_retry_after_may_be_a_date(here: Stage, monkeypatch):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < fcm._retry_after(answered(when)) <= 100
    assert fcm._retry_after(answered("30")) == 30
    assert fcm._retry_after(answered("9" * 400)) == 86_400
    # A Retry-After of zero or in the past uses the normal backoff, or sweeps would retry without a pause.
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert [fcm._retry_after(answered(text)) for text in ("0", past, "soon", "", "-5", "²")] == [None] * 6


@given(st.text(max_size=60) | st.datetimes(timezones=st.just(UTC)).map(format_datetime))
def test_any_retry_after_is_tolerated(text: str):
    seconds = fcm._retry_after(answered(text))
    assert seconds is None or 0 < seconds <= 86_400


def answered(retry_after: str) -> requests.Response:
    response = requests.Response()
    response.headers["Retry-After"] = retry_after
    return response


def test_retry_after_0_waits_for_the_backoff(here: Stage):
    job = here.job()
    here.fake_fcm.behave(job.address, Behaviour("429", retry_after=0))
    give(job)
    assert sweep()["sent"] == 0
    assert len(here.fake_fcm.posts(job.request_id)) == 1


def test_result_of_an_earlier_attempt_is_not_reused(stage: Stage):
    job = stage.job()
    stage.fake_fcm.behave(job.address, Behaviour("429", times=1), Behaviour("200"))
    stage.sender(job.event).answer()
    stage.make_due()
    with stage.held({"source": "aws.scheduler"}, trap := Trap("post", "arrived")) as sweeper:
        shown = stage.row(job.request_id)
        assert (shown["state"], shown["http_code"], shown["error_msg"]) == ("sending", None, None)
        call(
            "POST",
            f"/v1/devices/{job.device_id}/ack",
            {"request_id": job.request_id, "type": "PING_ACK"},
            token=job.token,
        )
        trap.release()
        sweeper.result()
    assert (stage.row(job.request_id)["state"], stage.row(job.request_id)["http_code"]) == ("sent", 200)
