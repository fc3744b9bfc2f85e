"""The documents' targets for a heartbeat and for a command's idempotency check."""

import threading
import time
from datetime import UTC, datetime, timedelta

from nexmdm import dispatches, heartbeats
from nexmdm.database import Database
from nexmdm.dispatches import Command

from bench import fixture, load

DEVICES, CONNECTIONS, ROUNDS, CHECKS = 100, 16, 30, 500


def heartbeat(url: str) -> list[float]:
    """Milliseconds of each heartbeat: 100 devices, every one 30 times, over 16 connections at once."""
    took: list[float] = []
    begin = datetime.now(UTC) - timedelta(hours=1)
    threads = [threading.Thread(target=_share, args=(url, n, begin, took)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == DEVICES * ROUNDS
    return took


def _share(url: str, number: int, begin: datetime, took: list[float]) -> None:
    config = fixture.settings(url)
    with fixture.connected(url) as db:
        db.execute("SELECT 1")
        for turn in range(ROUNDS):
            for device in range(number, DEVICES, CONNECTIONS):
                report = load.report(begin + turn * timedelta(seconds=config.heartbeat_bucket_seconds))
                took.append(_timed(lambda d=device, r=report: heartbeats.record(db, fixture.token(d), [r], config)))


def idempotency(db: Database) -> list[float]:
    """Milliseconds of each repeat of a command whose request_id is known, among 2,000 others."""
    commands = [Command(f"r-{n}", {"device_id": f"live-{n + 1}"}, "ping", {}, 600, "bench") for n in range(2_000)]
    for command in commands:
        dispatches.accept(db, command)
    return [_timed(lambda c=command: dispatches.accept(db, c)) for command in commands[:CHECKS]]


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000
