"""Concurrent sends, cancels, acknowledgments and sweeps. Barriers and traps decide their order, never a sleep."""

import threading
from collections import Counter
from typing import Any

import pytest
from nexmdm.runtime import database
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from local.fcm.fake import Record
from tests.support.api import Answer, call, event
from tests.support.commands import enrolled
from tests.support.races import errors, race
from tests.system.dispatch.lines import Trap
from tests.system.dispatch.machine import FIXED, posts_that_count
from tests.system.dispatch.stage import Job, Stage

REPEATS = 12


@pytest.fixture
def threaded(here: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Each thread of `race` is its own environment: `database.connection()` returns the thread's connection."""
    own = threading.local()
    main = database.connection()
    monkeypatch.setattr(database, "connection", lambda: getattr(own, "db", main))
    monkeypatch.setattr(here, "use", lambda db: setattr(own, "db", db), raising=False)
    return here


def together(stage: Stage, *calls: tuple[Any, ...]) -> list[Answer]:
    """Run the calls at the same time, each in a thread with its own connection."""

    def runner(arguments: tuple[Any, ...]) -> Any:
        def run(db: Database) -> Answer:
            stage.use(db)
            *where, options = arguments
            return call(*where, **options)

        return run

    answers = race(stage.url, *(runner(arguments) for arguments in calls))
    assert errors(answers) == []
    return answers


def send(job: Job) -> tuple[Any, ...]:
    body = {"action": "ring", "request_id": job.request_id}
    return ("POST", f"/v1/devices/{job.device_id}/commands", body, {})


def cancel(job: Job) -> tuple[Any, ...]:
    return ("POST", f"/v1/commands/{job.request_id}/cancel", None, {})


def ack(job: Job) -> tuple[Any, ...]:
    body = {"request_id": job.request_id, "type": "RING_STARTED"}
    return ("POST", f"/v1/devices/{job.device_id}/ack", body, {"token": job.token})


def assert_one_command(stage: Stage, job: Job, answers: list[Answer]) -> None:
    statuses = Counter(answer.status for answer in answers)
    assert statuses[202] == 1, statuses
    assert statuses.keys() <= {200, 202, 409}, statuses
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status == 409)
    told = [[answer.json[name] for name in FIXED] for answer in answers if answer.status != 409]
    assert all(document == told[0] for document in told)
    assert len(stage.fake_fcm.posts(job.request_id)) == 1
    assert stage.state(job.request_id) == "sent"


def test_64_threads_with_one_request_id_send_once(threaded: Stage):
    job = threaded.job()
    assert_one_command(threaded, job, together(threaded, *[send(job)] * 64))


def test_8_processes_with_one_request_id_send_once(stage: Stage):
    job = stage.job()
    senders = [stage.sender(job.event) for _ in range(8)]
    assert_one_command(stage, job, [sender.answer() for sender in senders])


def test_repeats_during_the_send_return_409(stage: Stage):
    job = stage.job()
    with stage.held(job.event, trap := Trap("post", "arrived")) as sender:
        repeats = [stage.sender(job.event) for _ in range(4)]
        assert [repeat.answer().status for repeat in repeats] == [409] * 4
        trap.release()
        assert sender.answer().status == 202
    assert posts_that_count(stage.fake_fcm, job.request_id) == 1


def test_cancel_before_the_claim_prevents_the_send(stage: Stage, here: Stage):
    job = stage.job()
    with stage.held(job.event, trap := Trap("claim", "before")) as sender:
        assert call("POST", f"/v1/commands/{job.request_id}/cancel").status == 200
        trap.release()
        assert (sender.answer().status, stage.state(job.request_id)) == (202, "cancelled")
    assert stage.fake_fcm.posts(job.request_id) == []


@pytest.mark.parametrize("point", [("claim", "after"), ("post", "arrived"), ("settle", "before")], ids="-".join)
def test_cancel_after_the_claim_is_refused(stage: Stage, point: tuple[str, str]):
    job = stage.job()
    with stage.held(job.event, trap := Trap(*point)) as sender:
        answer = call("POST", f"/v1/commands/{job.request_id}/cancel")
        answer.problem(409)
        assert "retry-after" in answer.headers
        trap.release()
        assert sender.answer().json["state"] == "sent"


def test_racing_cancel_and_send_leave_one_outcome(threaded: Stage):
    for _ in range(REPEATS):
        job = threaded.job()
        sent, *cancels = together(threaded, send(job), *[cancel(job)] * 3)
        state, posts = threaded.state(job.request_id), len(threaded.fake_fcm.posts(job.request_id))
        assert sent.status == 202
        assert (state, posts) in {("cancelled", 0), ("sent", 1)}
        assert all(answer.status in (200, 404, 409) for answer in cancels)
        assert (200 in [answer.status for answer in cancels]) == (state == "cancelled")


@pytest.mark.parametrize("kind", ["200", "404", "429", "503"])
@pytest.mark.parametrize("phase", ["before", "after"])
def test_ack_during_the_settling_is_kept(stage: Stage, phase: str, kind: str):
    job = stage.job()
    stage.fake_fcm.behave(job.address, kind)
    with stage.held(job.event, trap := Trap("settle", phase)) as sender:
        assert call(*ack(job)[:3], token=job.token).json == {"ok": True}
        trap.release()
        sender.answer()
    row = stage.row(job.request_id)
    # A failed dispatch stays failed; any other is `sent` once the device has answered, and FCM's result is kept.
    assert row["state"] == ("failed" if (phase, kind) == ("after", "404") else "sent")
    assert (row["result"], row["http_code"], row["next_at"], row["lease_until"]) == ("OK", int(kind), None, None)


def test_racing_acks_and_sender_leave_one_result(threaded: Stage):
    for _ in range(REPEATS):
        job = threaded.job()

        def device(_record: Record, job: Job = job) -> None:
            together(threaded, *[ack(job)] * 4)

        threaded.fake_fcm.on_message = device
        (sent,) = together(threaded, send(job))
        threaded.fake_fcm.on_message = None
        assert sent.json["state"] == "sent"
        assert threaded.row(job.request_id)["http_code"] == 200


def many(stage: Stage, count: int) -> list[str]:
    """Create commands that wait to be sent, each to its own device; return their request_ids."""
    stage.db.execute(
        """INSERT INTO devices (id, alias, fcm_token)
        SELECT 'many-' || n, 'many-' || n, 'fcm:many-' || n FROM generate_series(1, %(count)s) AS n""",
        {"count": count},
    )
    stage.db.execute(
        """INSERT INTO fcm_dispatches (request_id, device_id, action, payload_hash, state, expires_at, created_by)
        SELECT id, id, 'ping', id, 'accepted', now() + interval '1 hour', 'test' FROM devices WHERE id LIKE 'many-%%'"""
    )
    return [f"many-{n}" for n in range(1, count + 1)]


def test_two_sweeps_of_200_commands_send_each_once(stage: Stage):
    names, seen, eye, look = many(stage, 200), [], threading.Lock(), Database(make_dsn(stage.url))

    def note(record: Record) -> None:
        with eye:
            seen.append(look.execute(_COMMITTED, {"id": record.data["request_id"]})[0])

    stage.fake_fcm.on_message = note
    reports = [sweep.result() for sweep in [stage.sweeper(), stage.sweeper()]]
    look.close()
    stage.watch(None)

    assert sum(report["sent"] for report in reports) == 200
    assert min(report["sent"] for report in reports) > 0, "the sweeps did not run at the same time"
    assert [len(stage.fake_fcm.posts(name)) for name in names] == [1] * 200
    assert {stage.state(name) for name in names} == {"sent"}
    assert seen == [{"state": "sending", "fence": 1, "lease": True, "idle_in_transaction": 0}] * 200


# The rows when a message arrives, seen by another session.
_COMMITTED = """
SELECT state, fence, lease_until > clock_timestamp() AS lease, (
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%%'
) AS idle_in_transaction
FROM fcm_dispatches WHERE request_id = %(id)s
"""


def test_claim_is_committed_and_no_transaction_is_open_when_a_message_arrives(stage: Stage):
    device_id, _ = enrolled("looked-at", "fcm:looked-at")
    job = stage.job()
    bulk = event("POST", "/v1/commands", {"action": "ping", "request_id": "bulk", "device_ids": [device_id]})[1]
    again = event("POST", f"/v1/commands/{job.request_id}/resend", {"reason": "to look"})[1]
    looks = [(job.event, job.request_id, 1), (bulk, f"bulk:{device_id}", 1), (again, job.request_id, 2)]
    for sent, request_id, fence in looks:
        with stage.held(sent, trap := Trap("post", "arrived")) as sender:
            row = stage.db.execute(_COMMITTED, {"id": request_id})[0]
            assert row == {"state": "sending", "fence": fence, "lease": True, "idle_in_transaction": 0}
            trap.release()
            assert sender.answer().status == 202
