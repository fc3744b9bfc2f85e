"""What Lambda does to a function: it kills it during a call, delivers an event twice, and limits its memory.

Frozen environments are in tests/system/dispatch/test_frozen.py, short remaining time in test_sending.py beside it.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import nexmdm
import psutil
import pytest
from nexmdm.runtime.database import Database

import functions
from local import template
from local.fcm import FakeFcm
from local.gateway.environment import Environments, Outcome
from tests.support.agent import an_hour_ago, heartbeat
from tests.support.api import CONTEXT, Answer, Device, call, event
from tests.support.claims import SCALE, Claim
from tests.support.commands import enrolled
from tests.support.fcm import running_fake
from tests.support.postgres import run_sql
from tests.support.races import in_own_thread
from tests.system.dispatch.machine import posts_that_count
from tests.system.torture.load import under_load
from tests.system.torture.stack import Stack, standing

pytestmark = pytest.mark.long

OURS = (str(Path(nexmdm.__file__).parent), str(Path(functions.__path__[0])))


@pytest.fixture
def fake_fcm(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFcm]:
    with running_fake(monkeypatch) as fake_fcm:
        yield fake_fcm


# --- killed during a call: a timeout and the memory limit are both a SIGKILL


def kill_one(stack: Stack, rng: random.Random) -> bool:
    processes = [child for child in stack.process.children() if "local.gateway.bootstrap" in " ".join(child.cmdline())]
    if processes:
        rng.choice(processes).send_signal(signal.SIGKILL)
    return bool(processes)


def test_environments_may_be_killed_at_any_moment(url: str, db: Database, claim: Claim):
    kills, rng, names = 15 * SCALE, random.Random(7), []
    with standing(url, 3, "--every", "fcm_dispatch=0.5", DISPATCH_LEASE_SECONDS="5") as stack:
        with under_load(stack) as load, stack.operator() as operator:
            for n in range(kills):
                names.append(f"k-{n}")
                device_id = rng.choice(load.device_ids)
                sender = threading.Thread(target=post, args=(operator, device_id, names[-1]))
                sender.start()
                load.wait_for_answers(rng.randint(1, 6), {200}, time.monotonic())
                with contextlib.suppress(psutil.NoSuchProcess):
                    assert kill_one(stack, rng)
                sender.join()
        told = Counter(answer.status for answer in load.record.answers)
        assert told.keys() <= {200, 500}, told  # a killed call is API Gateway's own 500
        held = {(row["device_id"], row["bucket"]) for row in db.execute(BUCKETS)}
        assert load.record.acknowledged <= held
        assert {
            name: posts_that_count(stack.fake_fcm, name) for name in names if posts_that_count(stack.fake_fcm, name) > 1
        } == {}
    claim("nothing acknowledged is lost, nothing sent twice", f"environments killed, {told.total()} requests", kills)


BUCKETS = "SELECT device_id, extract(epoch FROM bucket)::bigint AS bucket FROM device_heartbeats"


def post(operator: httpx.Client, device_id: str, name: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        operator.post(f"/v1/devices/{device_id}/commands", json={"action": "wake", "request_id": name})


# --- a BaseException between any two lines: Lambda's own timeout handlers, SIGTERM, or an extension


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def raising_at(step: int) -> Iterator[list[str]]:
    """Raise before the n-th line of the project's code that runs inside; yields where it did."""
    left, where = step, []

    def trace(frame: FrameType, what: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if what == "line" and not where:
            left -= 1
            if left == 0:
                where.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    except Interrupted:
        pass
    finally:
        sys.settrace(before)


def _interrupted_at(step: int, act: Callable[[int], object]) -> list[str]:
    with raising_at(step) as where:
        act(step)
    return where


def interrupted(act: Callable[[int], object], then: Callable[[int, str], None], stride: int) -> int:
    """Interrupt `act` at every `stride`-th of its lines, each time followed by `then`; return how often."""
    for n, step in enumerate(range(1, 20_000, stride)):
        where = in_own_thread(partial(_interrupted_at, step, act))
        if not where:
            return n
        then(step, where[0])
    raise AssertionError("the call never completed without an interruption")


STRIDE = max(1, 4 // SCALE)


def test_heartbeat_interrupted_anywhere_does_not_affect_the_next(db: Database, device: Device, claim: Claim):
    start = an_hour_ago() - timedelta(hours=6)  # each step has its own bucket, and none is in the future

    def beat(step: int) -> Answer:
        return call("POST", "/v1/heartbeat", heartbeat(start + timedelta(seconds=10 * step)), token=device.token)

    def next_one(step: int, where: str) -> None:
        again = beat(step)
        assert again.status == 200, (where, again.text)
        rows = db.execute("SELECT count(*) AS n FROM device_heartbeats")[0]["n"]
        assert rows == 1 + (step - 1) // STRIDE, where

    times = interrupted(beat, next_one, STRIDE)
    assert times * STRIDE > 50
    claim("an interrupted call does not affect the next", "lines of a heartbeat", times)


def test_registration_interrupted_anywhere_uses_its_token_at_most_once(db: Database, claim: Claim):
    made = call("POST", "/v1/enroll-tokens", {"aliases": ["many"], "uses_allowed": 10_000}).json["items"][0]

    def register(step: int) -> Answer:
        return call("POST", "/v1/register", {"alias": f"d-{step}"}, headers={"x-admin-key": made["token"]})

    def next_one(step: int, where: str) -> None:
        assert register(step).status == 200, where
        [row] = db.execute(USES, {"id": made["token_id"]})
        assert row["uses_consumed"] == row["devices"] == 1 + (step - 1) // STRIDE, where

    times = interrupted(register, next_one, STRIDE)
    assert times * STRIDE > 50
    claim("an interrupted call does not affect the next", "lines of a registration", times)


USES = """
SELECT uses_consumed, (SELECT count(*) FROM devices WHERE enrollment_token_id = %(id)s) AS devices
FROM enrollment_tokens WHERE token_id = %(id)s
"""


def test_command_interrupted_anywhere_is_sent_at_most_once(db: Database, fake_fcm: FakeFcm, claim: Claim):
    device_id, _ = enrolled("lobby", "fcm:lobby")

    def send(step: int) -> Answer:
        body = {"action": "wake", "request_id": f"i-{step}"}
        return call("POST", f"/v1/devices/{device_id}/commands", body)

    def next_one(step: int, where: str) -> None:
        answer = send(step)
        # Claimed but not settled: the outcome is unknown, and the command is not sent again.
        assert answer.status in (200, 202, 409), (where, answer.text)
        assert posts_that_count(fake_fcm, f"i-{step}") <= 1, where

    times = interrupted(send, next_one, STRIDE)
    assert times * STRIDE > 100
    db.execute("UPDATE fcm_dispatches SET lease_until = now() - interval '1 s' WHERE state = 'sending'")
    handler, _ = event("POST", "/v1/commands")
    handler({"source": "aws.scheduler"}, CONTEXT)
    states = Counter(row["state"] for row in db.execute("SELECT state FROM fcm_dispatches"))
    assert states.keys() <= {"sent", "unknown"}, states
    assert all(posts_that_count(fake_fcm, f"i-{n * STRIDE + 1}") <= 1 for n in range(times))
    claim("an interrupted call does not affect the next", f"lines of a command ({states['unknown']} unknown)", times)


# --- an event delivered twice


def at_once(name: str, events: list[Any]) -> list[Outcome]:
    """Run the events in environments of one function, all at the same time."""

    async def run() -> list[Outcome]:
        with open(os.devnull, "ab") as log:
            pool = Environments(template.load().function(name), len(events), output=log)
            try:
                return await asyncio.gather(*map(pool.invoke, events))
            finally:
                pool.close()

    return asyncio.run(run())


def test_cleanup_event_may_be_delivered_twice(url: str, db: Database, device: Device, claim: Claim):
    run_sql(
        url,
        f"""INSERT INTO device_heartbeats (device_id, ts, bucket) SELECT '{device.id}', t, date_bin('10 s', t, 'epoch')
            FROM generate_series(now() - interval '4 days', now(), interval '1 minute') AS t""",
        f"""INSERT INTO fcm_dispatches (request_id, device_id, action, state, sent_at, expires_at)
            SELECT 'old-' || n, '{device.id}', 'ping', 'sent', now() - interval '3 days', now() - interval '3 days'
            FROM generate_series(1, 2000) AS n""",
    )
    due = db.execute(DUE)[0]["n"]
    outcomes = at_once("cleanup", [{}, {}])
    assert [outcome.error for outcome in outcomes] == [None, None]
    removed = sum(policy["deleted"] for outcome in outcomes for policy in outcome.result["policies"].values())
    left = db.execute(DUE)[0]["n"]
    assert left == 0
    # A run that counted a partition before the other dropped it also counts its rows.
    assert removed >= due + 2000
    claim("an event delivered twice does no harm", "two concurrent cleanups", 1)


DUE = "SELECT count(*) AS n FROM device_heartbeats WHERE ts < now() - interval '2 days 1 minute'"


# --- memory


def test_heaviest_calls_fit_into_the_memory_of_the_function(url: str, db: Database, claim: Claim):
    """Measures the largest resident size of each environment's process, including the interpreter."""
    devices, rounds = 1_000, 2 * SCALE
    run_sql(url, f"INSERT INTO devices (id, alias) SELECT 'd' || n, 'd' || n FROM generate_series(1, {devices}) AS n")
    _, token = enrolled("lobby", None)
    beats = [heartbeat(an_hour_ago() + timedelta(seconds=n)) for n in range(500)]
    bearer = {"authorization": f"Bearer {token}"}
    with standing(url, 1) as stack, stack.client() as device, stack.operator() as operator:
        for n in range(rounds):
            assert device.post("/v1/heartbeats", json={"heartbeats": beats}, headers=bearer).status_code == 200
            assert device.post("/v1/heartbeat", content=b"[" * (1 << 20), headers=bearer).status_code == 400
            bulk = {"action": "ping", "request_id": f"b-{n}", "device_ids": [f"d{n}" for n in range(1, devices + 1)]}
            assert operator.post("/v1/commands", json=bulk).status_code == 202
            assert operator.get("/v1/commands?limit=500").status_code == 200
        used = {words[-1]: peak for words, peak in peaks(stack)}
    limits = {function.handler: function.memory for function in template.load().functions.values()}
    assert used
    assert all(peak < limits[handler] for handler, peak in used.items()), used
    largest = max(used.values())
    claim("memory is bounded", f"heaviest calls (at most {largest:.0f} MB of {min(limits.values())})", 4 * rounds)


def peaks(stack: Stack) -> Iterator[tuple[list[str], float]]:
    for child in stack.process.children():
        status = Path(f"/proc/{child.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        yield child.cmdline(), int(line.split()[1]) / 1024
