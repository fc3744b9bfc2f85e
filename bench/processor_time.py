"""CPU time and log of a heartbeat in the function: the handler from event to response, compared with bare psycopg2.

Both run in this process, alternating after fifty calls, and the CPU time of the process is measured: waiting for the
server does not count, and other work on the machine has little effect. The floor runs the same statement with the same
parameters on a plain connection and parses the same body with the standard library's json. As in a deployment, the
server uses another CPU than the function, if there are two.
"""

import gc
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TextIO

import psycopg2
from nexmdm.devices.registry import token_id
from nexmdm.heartbeats import partitions
from nexmdm.runtime import database, logs
from nexmdm.runtime.database import Database
from psycopg2 import extensions

from bench import fixture, load
from bench.figures import Figure, at_most, below
from bench.heartbeats import bare, statement
from bench.pairs import spread_of
from bench.stage import Stage
from tests.support import api

BLOCK = 50
MOST = 1.5
MOST_BYTES = 500
# Names as long as in a deployed stack: of the function and of each invocation.
CONTEXT = SimpleNamespace(
    aws_request_id=str(uuid.UUID(int=1)),
    function_name="nexmdm-prod-HeartbeatFunction-AbCdEfGhIjKl",
    get_remaining_time_in_millis=lambda: 10_000,
)


def measure(stage: Stage) -> list[Figure]:
    blocks = max(2, stage.sizes.processor_calls // BLOCK)
    stage.durable(False)
    with stage.copy("processor_time") as url, fixture.connected(url) as db, closing(psycopg2.connect(url)) as floor:
        floor.autocommit = True
        config = fixture.settings(url)
        partitions.ensure_partitions(db, config)
        sides = [_devices(db, f"side-{n}") for n in range(2)]
        with (
            _log() as log,
            _apart(database.connection().execute("SELECT pg_backend_pid() AS pid")[0]["pid"], floor.info.backend_pid),
        ):
            took = _in_turn(blocks, sides, config, floor)
            size = os.fstat(log.fileno()).st_size / (blocks + 1) / BLOCK
    stage.durable(True)
    ours, bare_ = (sum(took[name]) / blocks / BLOCK * 1e6 for name in ("handler", "floor"))
    ratios = sorted(mine / its for mine, its in zip(took["handler"], took["floor"], strict=True))
    quarter = len(ratios) // 4
    note = f"half of the pairs of {BLOCK} calls are between {ratios[quarter]:.2f} and {ratios[-quarter - 1]:.2f}"
    what = f"processor time of a heartbeat in the function, {blocks * BLOCK:,} calls"
    return [
        at_most(MOST, what, "bare psycopg2 and json", bare_, ours, "µs", note,
                spread_of(took["floor"], took["handler"])),
        below("log of a heartbeat: the function's record", size, MOST_BYTES, "bytes",
              "with ids of 36 characters; the platform writes none of an ordinary invocation"),
    ]  # fmt: skip


@contextmanager
def _apart(*servers: int) -> Iterator[None]:
    """Run this process on one CPU and the server on the others."""
    processors = os.sched_getaffinity(0)
    own = {min(processors)}
    try:
        if processors > own:
            for pid in servers:
                os.sched_setaffinity(pid, processors - own)
            os.sched_setaffinity(0, own)
    except PermissionError:  # the server belongs to another user, if root started it and this process is not root
        pass
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def _devices(db: Database, name: str) -> list[str]:
    """Tokens of new devices whose ids are as long as real ones."""
    tokens = [f"{name}-{n}" for n in range(BLOCK)]
    db.execute(
        "INSERT INTO devices (id, alias, token_id, confirmed_at)"
        " SELECT gen_random_uuid(), %(name)s || '-' || n, t, now() FROM unnest(%(ids)s) WITH ORDINALITY AS given(t, n)",
        {"name": name, "ids": [token_id(token) for token in tokens]},
    )
    return tokens


@contextmanager
def _log() -> Iterator[TextIO]:
    """Redirect the function's records to a file during the block."""
    handler = logs.logger().registered_handler
    assert isinstance(handler, logging.StreamHandler)
    with tempfile.TemporaryFile("w") as file:
        before = handler.setStream(file)
        try:
            yield file
        finally:
            handler.setStream(before)


def _in_turn(blocks: int, sides: list[list[str]], config: Any, connection: Any) -> dict[str, list[float]]:
    """Seconds of CPU time of each block of each side, without the first."""
    took: dict[str, list[float]] = {"floor": [], "handler": []}
    begin = datetime.now(UTC) - timedelta(hours=20)
    for number in range(blocks + 1):
        at = begin + number * timedelta(seconds=config.heartbeat_bucket_seconds)
        jobs = {"floor": _floor(sides[0], at, config, connection), "handler": _handler(sides[1], at)}
        for name in sorted(jobs, reverse=bool(number % 2)):
            # Set by the function when it connects; a plain connection waits in libpq.
            waiting = extensions.get_wait_callback()
            extensions.set_wait_callback(None if name == "floor" else waiting)
            gc.collect()
            start = time.process_time()
            jobs[name]()
            seconds = time.process_time() - start
            extensions.set_wait_callback(waiting)
            if number:
                took[name].append(seconds)
    return took


def _floor(tokens: list[str], at: datetime, config: Any, connection: Any) -> Callable[[], None]:
    text = json.dumps(load.body(at))
    sql, calls = "", []
    for token in tokens:
        sql, parameters = statement(token, [load.report(at)], config)
        calls.append(parameters)

    def run() -> None:
        for parameters in calls:
            json.loads(text)
            bare(connection, sql, parameters)

    return run


def _handler(tokens: list[str], at: datetime) -> Callable[[], None]:
    made = [api.event("POST", "/v1/heartbeat", load.body(at), token=token) for token in tokens]

    def run() -> None:
        for handler, event in made:
            if handler(event, CONTEXT)["statusCode"] != 200:
                raise AssertionError("a heartbeat failed")

    return run
