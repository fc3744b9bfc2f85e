"""The sending process is killed at every possible point, with every kind of response from FCM.

Afterwards an operator repeats the request three times and two sweeps run, all at once in separate processes. The
following must hold: a command whose claim was not committed is sent later, once; one killed between claim and settling
stays unknown; one killed after the settling has the state that FCM's response decided.
"""

from typing import NamedTuple

import pytest

from local.fcm.behaviours import KINDS
from tests.support.api import Answer
from tests.system.dispatch import machine
from tests.system.dispatch.lines import Trap
from tests.system.dispatch.machine import ACCEPTED_OR_UNKNOWN, STATE_AFTER, TERMINAL, posts_that_count
from tests.system.dispatch.sender import Sender
from tests.system.dispatch.stage import Job, Stage

# The statements in the order in which one command executes them; FCM's exchange is between claim and settle.
WAY = ("find", "accept", "show", "claim", "settle", "show")


class Point(NamedTuple):
    """The point at which the process is killed: the n-th passing of something."""

    what: str
    phase: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.phase} {self.what}" + (f" {self.nth}" if self.nth > 1 else "")


PHASES = ("before", "after")
STATEMENTS = [Point(what, phase, WAY[:n].count(what) + 1) for n, what in enumerate(WAY) for phase in PHASES]
EXCHANGE = [
    Point("oauth", "before"),
    Point("oauth", "after"),
    Point("post", "before"),
    Point("post", "arrived"),
    Point("post", "after"),
]
# One response of each class: accepted, permanently refused, certainly not accepted, unknown.
CASES = [(point, kind) for point in STATEMENTS for kind in ("200", "404", "429", "503")]
# Before FCM answers, the kind of its answer does not matter.
ANSWERED = [Point("post", "arrived"), Point("post", "after")]
CASES += [(point, kind) for point in EXCHANGE if point not in ANSWERED for kind in ("200", "503")]
CASES += [(point, kind) for point in ANSWERED for kind in KINDS if (point.phase, kind) != ("after", "silence")]
# A 401 causes a second exchange.
SECOND_EXCHANGE = [point._replace(nth=2) for point in EXCHANGE]
CASES += [(point, "401") for point in SECOND_EXCHANGE]

CLAIMED = [*EXCHANGE, *SECOND_EXCHANGE, Point("claim", "after"), Point("settle", "before")]
SETTLED = [Point("settle", "after"), Point("show", "before", 2), Point("show", "after", 2)]
# What a process killed at this point leaves: nothing, a command that waits, a claim, or the outcome.
ABSENT = [Point("find", "before"), Point("find", "after"), Point("accept", "before")]


def crash(stage: Stage, job: Job, point: Point, kind: str, deviation: str | None = None) -> None:
    """Kill a process that sends `job` at `point`, let all others retry, and compare the result with the table."""
    stage.fake_fcm.behave(job.address, kind)
    with stage.held(job.event, Trap(*point)) as sender:
        sender.kill()
    left = stage.row(job.request_id)
    expected_left = (
        None if point in ABSENT
        else "sending" if point in CLAIMED
        else STATE_AFTER[kind] if point in SETTLED
        else "accepted"
    )  # fmt: skip
    assert (left and left["state"]) == expected_left

    answers = [stage.sender(job.event, deviation).answer()]
    stage.pass_leases()
    crowd = [stage.sender(job.event, deviation), stage.sweeper(deviation), stage.sweeper(deviation)]
    crowd.append(stage.sender(job.event, deviation))
    answers += [crowd[0].answer(), crowd[3].answer()]
    crowd[1].result(), crowd[2].result()

    assert_answers(answers, existed=left is not None)
    assert_crash_table(stage, job, point, kind)


def assert_answers(answers: list[Answer], existed: bool) -> None:
    """The request that made the row gets 202; others get 200, or 409 during the send; all name the same command."""
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 202, 409}, [answer.text for answer in answers]
    assert statuses.count(202) == (0 if existed else 1), statuses
    told = [[answer.json[name] for name in machine.FIXED] for answer in answers if answer.status != 409]
    assert all(document == told[0] for document in told), told


def assert_crash_table(stage: Stage, job: Job, point: Point, kind: str) -> None:
    counted = posts_that_count(stage.fake_fcm, job.request_id)
    assert counted <= 1, f"{counted} POSTs that FCM accepted or may have: {stage.fake_fcm.posts(job.request_id)}"
    state = stage.state(job.request_id)
    if point in CLAIMED:
        assert state == "unknown", "a command that was claimed and not settled must stay unknown"
        return
    assert state == STATE_AFTER[kind]
    if state == "retry_wait":
        # The state is neither terminal nor unknown, so the command must really be sent.
        stage.fake_fcm.behave(job.address, "200")
        stage.make_due()
        stage.sweeper().result()
        assert stage.state(job.request_id) == "sent"
    assert stage.state(job.request_id) in TERMINAL | {"unknown"}
    expected = 0 if STATE_AFTER[kind] == "failed" else 1
    assert posts_that_count(stage.fake_fcm, job.request_id) == expected


@pytest.mark.parametrize(("point", "kind"), CASES, ids=str)
def test_killed_sender_leaves_the_expected_state(stage: Stage, point: Point, kind: str):
    crash(stage, stage.job(), point, kind)


def test_every_statement_and_exchange_is_a_kill_point(stage: Stage):
    """If a statement or an exchange were missing here, the suite above would not kill at it."""
    passed = []

    def note(what: str, phase: str) -> bool:
        passed.append(Point(what, phase))
        return True

    stage.watch(note)
    job = stage.job()
    assert Sender(job.event, stage.environment(watched=True)).answer().status == 202
    exchange = [point for point in EXCHANGE if point.phase != "arrived"]
    statements = [point._replace(nth=1) for point in STATEMENTS]
    assert passed == [*statements[:8], *exchange, *statements[8:]]


MESSAGE_IS_OUT = [Point("post", "arrived"), Point("post", "after"), Point("settle", "before")]


@pytest.mark.parametrize("kind", ["200", "503", "half"])
@pytest.mark.parametrize("point", MESSAGE_IS_OUT, ids=str)
def test_suite_detects_a_resend_after_the_lease(stage: Stage, point: Point, kind: str):
    with pytest.raises(AssertionError, match="2 POSTs that FCM accepted or may have"):
        crash(stage, stage.job(), point, kind, "lease expired: send again")


@pytest.mark.parametrize("point", [Point("claim", "after"), Point("oauth", "before"), Point("post", "before")], ids=str)
def test_suite_detects_a_resend_after_the_lease_without_a_message(stage: Stage, point: Point):
    with pytest.raises(AssertionError, match="must stay unknown"):
        crash(stage, stage.job(), point, "200", "lease expired: send again")


def test_suite_detects_a_resend_after_a_503(stage: Stage):
    with pytest.raises(AssertionError):
        crash(stage, stage.job(), Point("accept", "after"), "503", "503: send again")


def test_every_outcome_has_its_class():
    assert set(STATE_AFTER) == set(KINDS)
    assert "200" in ACCEPTED_OR_UNKNOWN
