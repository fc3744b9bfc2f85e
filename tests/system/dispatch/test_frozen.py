"""An environment that Lambda freezes between claim and POST, and resumes when its lease has expired."""

import signal
import time

import pytest

from tests.support.api import call, event
from tests.system.dispatch.lines import Trap
from tests.system.dispatch.machine import ACCEPTED_OR_UNKNOWN, STATE_AFTER, posts_that_count
from tests.system.dispatch.stage import Stage

CLAIMED = ("claim", "after")


@pytest.mark.parametrize("kind", ["200", "404", "429", "503"])
def test_late_holder_settles_an_unknown_dispatch(stage: Stage, kind: str):
    """Its lease expired in the database but not by its own clock: it sends, and FCM's result replaces `unknown`."""
    job = stage.job()
    stage.fake_fcm.behave(job.address, kind)
    with stage.held(job.event, trap := Trap(*CLAIMED)) as sender:
        sender.signal(signal.SIGSTOP)
        trap.release()
        stage.pass_leases()
        assert stage.sweeper().result()["unknown"] == 1
        assert stage.sender(job.event).answer().json["state"] == "unknown"
        sender.signal(signal.SIGCONT)
        assert sender.answer().json["state"] == STATE_AFTER[kind]
    stage.sweeper().result()
    assert len(stage.fake_fcm.posts(job.request_id)) == 1


def test_late_holder_whose_own_clock_shows_the_expiry_sends_nothing(stage: Stage):
    job = stage.job()
    with stage.held(job.event, trap := Trap(*CLAIMED), DISPATCH_LEASE_SECONDS="1") as sender:
        sender.signal(signal.SIGSTOP)
        trap.release()
        wait_until(stage, "lease_until < clock_timestamp()", job.request_id)
        assert stage.sweeper().result()["unknown"] == 1
        sender.signal(signal.SIGCONT)
        assert sender.answer().json["state"] == "retry_wait"
    assert stage.fake_fcm.posts(job.request_id) == []
    # The command was certainly not sent, so the sweep may send it.
    stage.make_due()
    stage.sweeper().result()
    assert (stage.state(job.request_id), len(stage.fake_fcm.posts(job.request_id))) == ("sent", 1)


def test_command_that_expired_during_the_freeze_is_not_sent(stage: Stage):
    job = stage.job(ttl_seconds=1)
    with stage.held(job.event, trap := Trap(*CLAIMED)) as sender:
        sender.signal(signal.SIGSTOP)
        trap.release()
        wait_until(stage, "expires_at < clock_timestamp()", job.request_id)
        sender.signal(signal.SIGCONT)
        assert sender.answer().json["state"] == "retry_wait"
    stage.sweeper().result()
    assert (stage.state(job.request_id), stage.fake_fcm.posts(job.request_id)) == ("expired", [])


def test_dispatch_cancelled_during_the_freeze_stays_cancelled(stage: Stage):
    """The POST cannot be undone, but the operator's decision stands."""
    job = stage.job()
    with stage.held(job.event, trap := Trap(*CLAIMED)) as sender:
        sender.signal(signal.SIGSTOP)
        trap.release()
        stage.pass_leases()
        stage.sweeper().result()
        assert call("POST", f"/v1/commands/{job.request_id}/cancel").json["state"] == "cancelled"
        sender.signal(signal.SIGCONT)
        assert sender.answer().json["state"] == "cancelled"
    assert len(stage.fake_fcm.posts(job.request_id)) <= 1


RESENDS = [("503", "200"), ("404", "200"), ("404", "503"), ("429", "503"), ("200", "503")]


@pytest.mark.parametrize(("kind", "resent"), RESENDS)
def test_resend_during_the_freeze_overrides_the_late_holder(stage: Stage, kind: str, resent: str):
    """There are two POSTs, one of them requested by an operator; the old fence settles nothing."""
    job = stage.job()
    resend = event("POST", f"/v1/commands/{job.request_id}/resend", {"reason": "no answer"})[1]
    with stage.held(job.event, trap := Trap(*CLAIMED)) as sender:
        sender.signal(signal.SIGSTOP)
        trap.release()
        stage.pass_leases()
        stage.sweeper().result()
        stage.fake_fcm.behave(job.address, resent)
        assert stage.sender(resend).answer().json["state"] == STATE_AFTER[resent]
        stage.fake_fcm.behave(job.address, kind)
        sender.signal(signal.SIGCONT)
        assert sender.answer().json["state"] == STATE_AFTER[resent]
    row = stage.row(job.request_id)
    assert (row["fence"], row["http_code"]) == (2, int(resent))
    assert len(stage.fake_fcm.posts(job.request_id)) == 2
    assert posts_that_count(stage.fake_fcm, job.request_id) == (2 if kind in ACCEPTED_OR_UNKNOWN else 1)
    # FCM's `unregistered` for a lost fence must not remove the FCM token.
    assert stage.db.execute("SELECT fcm_token FROM devices WHERE id = %(id)s", {"id": job.device_id}) == [
        {"fcm_token": job.address}
    ]


def wait_until(stage: Stage, condition: str, request_id: str) -> None:
    """Wait until the condition holds by the database's own clock, whose passing is what these tests are about."""
    deadline = time.monotonic() + 30
    sql = f"SELECT {condition} AS so FROM fcm_dispatches WHERE request_id = %(id)s"
    while not stage.db.execute(sql, {"id": request_id})[0]["so"]:
        assert time.monotonic() < deadline
