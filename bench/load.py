"""A second process that records heartbeats through the verb, on a separate connection, at a steady pace."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from nexmdm.heartbeats import record
from nexmdm.heartbeats.body import Report, strictly

from bench import fixture
from local.fleet.storage import Body

PER_SECOND = 100
_processes = multiprocessing.get_context("spawn")


class Load:
    """Its heartbeats, as (monotonic second at which one was due, milliseconds until it was recorded)."""

    def __init__(self) -> None:
        self.posted: list[tuple[float, float]] = []

    def between(self, start: float, end: float) -> list[float]:
        return [ms for due, ms in self.posted if start <= due < end]


@contextmanager
def running(url: str) -> Iterator[Load]:
    """posted is filled at the end of the block."""
    load, stop = Load(), _processes.Event()
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=_post, args=(url, stop, theirs), daemon=True)
    process.start()
    ours.recv()  # connected, and its first heartbeats are done
    try:
        yield load
    finally:
        stop.set()
        load.posted = ours.recv()
        process.join()


def _post(url: str, stop: Any, results: Any) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (a log record per heartbeat, as in Lambda; it is not read)
    posted, number, config = [], 0, fixture.settings(url)
    with fixture.connected(url) as db:

        def one() -> None:
            record.for_token(db, fixture.token(number % fixture.LIVE_DEVICES), [report()], config)

        for number in range(50):  # noqa: B007
            one()
        results.send("ready")
        due = time.monotonic()
        while not stop.is_set():
            number += 1
            # Measured from when it was due, so that a blocked heartbeat does not hide the delay of the following ones.
            due += 1 / PER_SECOND
            time.sleep(max(0, due - time.monotonic()))
            one()
            posted.append((due, (time.monotonic() - due) * 1000))
    results.send(posted)


BODY = {"status": "ok", "battery_pct": 80, "network_type": "wifi", "uptime_s": 86_400, "unity_running": True}


# The packages that the agent is configured to report.
APPS = {f"com.example.app{n}": {"installed": True, "version_name": f"1.{n}.0", "version_code": n} for n in range(20)}


def body(at: datetime, apps: bool = False) -> Body:
    """apps: include an inventory, the same in each report."""
    return {**BODY, **({"app_versions": APPS} if apps else {}), "timestamp_utc": at.isoformat()}


def report(at: datetime | None = None, apps: bool = False) -> Report:
    given = {**BODY, "app_versions": APPS} if apps else BODY
    read, device_ts = strictly(given, "io.unitynodes.unityapp"), at or datetime.now(UTC)
    return Report({**read.values, "device_ts": device_ts}, device_ts, read.claimed)
