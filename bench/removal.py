"""How long removing expired heartbeats takes, and what a heartbeat feels of it: the cleanup beside a plain DELETE."""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from nexmdm import cleanup
from nexmdm.database import Database

from bench import fixture, load
from tests.databases import url_of

IDLE_SECONDS = 5
CALM_SECONDS = 1  # after the removal, until heartbeats that it held up are answered
ROUNDS = 2


def measure(url: str, rows: int) -> list[dict[str, Any]]:
    """Each round, both ways in turn, each on a copy of the same database. Heartbeats go on all the time."""
    server = url_of(url, "postgres")
    fixture.fill_expired(url, rows)
    ways: dict[str, Callable[[Database, str], int]] = {"cleanup": _clean, "DELETE + VACUUM": _delete}
    return [
        {"way": way, "round": n + 1, **_on_copy(server, url, f"copy_{n}_{place}", remove)}
        for n in range(ROUNDS)
        for place, (way, remove) in enumerate(ways.items())
    ]


def _on_copy(server: str, url: str, name: str, remove: Callable[[Database, str], int]) -> dict[str, Any]:
    source = url.partition("?")[0].rsplit("/", 1)[1]
    copy = url_of(url, name)
    with fixture.connected(server) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
        db.execute("CHECKPOINT")  # what the copy wrote is not to be paid for by what is measured
        try:
            return _timed(copy, remove)
        finally:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _timed(url: str, remove: Callable[[Database, str], int]) -> dict[str, Any]:
    with fixture.connected(url) as db, load.running(url) as posting:
        time.sleep(CALM_SECONDS)
        begun = time.monotonic()
        time.sleep(IDLE_SECONDS)
        start = time.monotonic()
        removed = remove(db, url)
        end = time.monotonic()
        time.sleep(IDLE_SECONDS)
        last = time.monotonic()
    idle = posting.between(begun, start) + posting.between(end + CALM_SECONDS, last)
    during = posting.between(start, end)
    return {"rows": removed, "seconds": round(end - start, 2), "idle": spread(idle), "during": spread(during)}


def _clean(db: Database, url: str) -> int:
    done = cleanup.clean(db, fixture.settings(url), lambda: 290)
    assert done["complete"], done
    return done["policies"]["heartbeats"]["deleted"]


def _delete(db: Database, _url: str) -> int:
    days = {"days": fixture.RETENTION_DAYS}
    sql = "WITH gone AS (DELETE FROM device_heartbeats WHERE ts < now() - make_interval(days => %(days)s) RETURNING 1)"
    removed = db.execute(f"{sql} SELECT count(*) AS n FROM gone", days)[0]["n"]
    db.execute("VACUUM device_heartbeats")
    return removed


def spread(milliseconds: list[float]) -> dict[str, float]:
    cuts = quantiles(milliseconds, n=100, method="inclusive") if len(milliseconds) > 1 else [0.0] * 99
    figures = {"p50": median(milliseconds or [0]), "p95": cuts[94], "p99": cuts[98], "max": max(milliseconds or [0])}
    return {"count": len(milliseconds), **{name: round(value, 2) for name, value in figures.items()}}
