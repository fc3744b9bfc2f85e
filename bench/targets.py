"""The documented service targets, in milliseconds and seconds, with 100 devices at once."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from nexmdm.commands import single
from nexmdm.commands.single import Command, OneDevice
from nexmdm.heartbeats import partitions, record
from nexmdm.runtime import actor
from nexmdm.runtime.database import Database

from bench import fixture, load
from bench.figures import Figure, absent, below, percentile
from bench.stage import Stage

DEVICES, CONNECTIONS = 100, 16


def measure(stage: Stage) -> list[Figure]:
    with stage.copy("targets") as url, fixture.connected(url) as db:
        partitions.ensure_partitions(db, fixture.settings(url))
        heartbeat, checks = percentile(_heartbeats(stage, url), 95), percentile(_idempotency(stage, db), 95)
    cleanup = stage.results.get("cleanup_seconds")
    what = f"heartbeat p95, {DEVICES} devices over {CONNECTIONS} connections at once"
    removal = f"cleanup of {stage.sizes.rows:,} heartbeats, the slowest"
    return [
        below(what, heartbeat, 150, "ms"),
        below("idempotency check p95", checks, 5, "ms"),
        below(removal, cleanup, 60, "s") if cleanup is not None else absent(removal, "removal was left out"),
        below("migration from empty to head", stage.migration_seconds, 10, "s"),
    ]


def _heartbeats(stage: Stage, url: str) -> list[float]:
    """Milliseconds of each heartbeat: 100 devices, each equally often, over 16 concurrent connections."""
    took: list[float] = []
    begin = datetime.now(UTC) - timedelta(hours=1)
    rounds = stage.sizes.crowd_rounds
    threads = [threading.Thread(target=_share, args=(url, n, rounds, begin, took)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == DEVICES * rounds
    return took


def _share(url: str, number: int, rounds: int, begin: datetime, took: list[float]) -> None:
    config = fixture.settings(url)
    with fixture.connected(url) as db:
        db.execute("SELECT 1")
        for turn in range(rounds):
            for device in range(number, DEVICES, CONNECTIONS):
                report = load.report(begin + turn * timedelta(seconds=config.heartbeat_bucket_seconds))
                took.append(_timed(partial(record.for_token, db, fixture.token(device), [report], config)))


def _idempotency(stage: Stage, db: Database) -> list[float]:
    """Milliseconds of each repeat of a command with a known request_id, among many others."""
    known = stage.sizes.known
    commands = [
        Command(f"r-{n}", OneDevice(f"live-{n + 1}"), "ping", {}, 600, actor.operator("bench")) for n in range(known)
    ]
    for command in commands:
        single.accept(db, command)
    return [_timed(partial(single.accept, db, command)) for command in commands]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000
