"""Clients that make all kinds of calls concurrently through the gateway, and record what they did and got."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

from tests.support.agent import an_hour_ago, utc
from tests.system.dispatch.machine import posts_that_count
from tests.system.torture.history import Operation, Outcome, Stored
from tests.system.torture.stack import Stack

DEVICES, BUCKETS, USES = 4, 40, 2
ACTIONS = ("ping", "wake")


class Clients:
    """devices: (id, token) of devices that FCM reaches. tokens: {token_id: enrollment token}, with USES uses each."""

    def __init__(self, stack: Stack, devices: list[tuple[str, str]], tokens: dict[str, str], commands: int) -> None:
        self.history: list[Operation] = []
        self.statuses: Counter[tuple[str, int]] = Counter()  # by kind of operation
        self._stack, self._devices, self._tokens = stack, devices, list(tokens.items())
        self._names = [f"c-{n}" for n in range(commands)]
        self._start = int(an_hour_ago().timestamp())

    def run(self, threads: int, operations: int, seed: int) -> None:
        """Run `operations` operations in each thread, different ones for each seed."""
        running = [threading.Thread(target=self._run, args=(f"{seed}-{n}", operations)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def _run(self, seed: str, operations: int) -> None:
        rng = random.Random(seed)
        acts = [self._heartbeat] * 4 + [self._command] * 4 + [self._show, self._cancel, self._ack, self._register]
        with self._stack.client() as device, self._stack.operator() as operator:
            for _ in range(operations):
                rng.choice(acts)(rng, device, operator)

    def _do(self, kind: str, subject: Any, call: Callable[[], httpx.Response], **asked: Any) -> None:
        invoked, value, outcome = time.monotonic(), {}, "unknown"
        try:
            answer = call()
            outcome = _outcome(answer.status_code)
            self.statuses[kind, answer.status_code] += 1
            value = answer.json() if outcome == "ok" else {}
        except httpx.TransportError:
            pass
        self.history.append(Operation(kind, subject, invoked, time.monotonic(), outcome, value, asked))

    def _heartbeat(self, rng: random.Random, device: httpx.Client, _: httpx.Client) -> None:
        (device_id, token), bucket = rng.choice(self._devices), self._start + rng.randrange(BUCKETS)
        body = {"timestamp_utc": utc(datetime.fromtimestamp(bucket + rng.random() * 0.9, UTC))}
        self._do("heartbeat", (device_id, bucket), lambda: device.post("/v1/heartbeat", json=body, headers=_by(token)))

    def _command(self, rng: random.Random, _: httpx.Client, operator: httpx.Client) -> None:
        """Send a command. The name determines the device, and almost always the action."""
        name = rng.choice(self._names)
        device_id = self._devices[_number(name) % DEVICES][0]
        body = {"request_id": name, "action": ACTIONS[rng.random() < 0.1]}
        path = f"/v1/devices/{device_id}/commands"
        self._do("command", name, lambda: operator.post(path, json=body), device_id=device_id)

    def _show(self, rng: random.Random, _: httpx.Client, operator: httpx.Client) -> None:
        name = rng.choice(self._names)
        self._do("show", name, lambda: operator.get(f"/v1/commands/{name}"))

    def _cancel(self, rng: random.Random, _: httpx.Client, operator: httpx.Client) -> None:
        name = rng.choice(self._names)
        self._do("cancel", name, lambda: operator.post(f"/v1/commands/{name}/cancel"))

    def _ack(self, rng: random.Random, device: httpx.Client, _: httpx.Client) -> None:
        name, result = rng.choice(self._names), rng.choice(["OK", "FAILED"])
        device_id, token = self._devices[_number(name) % DEVICES]
        body = {"request_id": name, "type": "PING_ACK", "status": result}
        path = f"/v1/devices/{device_id}/ack"
        self._do("ack", name, lambda: device.post(path, json=body, headers=_by(token)), result=result)

    def _register(self, rng: random.Random, device: httpx.Client, _: httpx.Client) -> None:
        token_id, token = rng.choice(self._tokens)
        body = {"alias": f"{token_id[:8]}-{rng.randrange(6)}"}
        self._do("register", token_id, lambda: device.post("/v1/register", json=body, headers={"x-admin-key": token}))


def _number(name: str) -> int:
    """The number of the command, which determines its device."""
    return int(name.rpartition("-")[2])


def _by(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _outcome(status: int) -> Outcome:
    return "ok" if status < 300 else "failed" if status < 500 else "unknown"


@contextmanager
def troubled(stack: Stack, db: Database, seed: int):
    """Repeatedly cut the database connection, lose its responses and terminate its backends; yield how often each
    happened."""
    rng, over, times = random.Random(seed), threading.Event(), Counter()
    troubles = {
        "line cut": stack.line.cut,
        "answer lost": stack.line.lose_answers,
        "backends terminated": lambda: db.execute(_TERMINATE),
    }

    def trouble() -> None:
        while not over.wait(rng.uniform(0.05, 0.2)):
            name = rng.choice(list(troubles))
            troubles[name]()
            times[name] += 1

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def stored(stack: Stack, devices: list[str]) -> Stored:
    """What is stored now: these devices' heartbeats, and everything else."""
    db = Database(make_dsn(stack.database))
    beats = db.execute(_HEARTBEATS, {"ids": devices})
    # Times in the API's format.
    commands = msgspec.to_builtins(db.execute(_COMMANDS))
    tokens = db.execute("SELECT token_id, uses_allowed, uses_consumed FROM enrollment_tokens")
    made = db.execute("SELECT id, enrollment_token_id FROM devices")
    db.close()
    names = [row["request_id"] for row in commands]
    return Stored(
        heartbeats=[(row["device_id"], row["bucket"]) for row in beats],
        commands={row["request_id"]: row for row in commands},
        tokens={row["token_id"]: (row["uses_allowed"], row["uses_consumed"]) for row in tokens},
        devices={row["id"]: row["enrollment_token_id"] for row in made},
        posts=Counter({name: posts_that_count(stack.fake_fcm, name) for name in names}),
        accepted=Counter({n: sum(post.outcome == "200" for post in stack.fake_fcm.posts(n)) for n in names}),
    )


_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_HEARTBEATS = """
SELECT device_id, extract(epoch FROM bucket)::bigint AS bucket FROM device_heartbeats WHERE device_id = ANY(%(ids)s)
"""
_COMMANDS = """
SELECT request_id, device_id, action, payload AS params, state, result, created_by, created_at, expires_at
FROM fcm_dispatches
"""
