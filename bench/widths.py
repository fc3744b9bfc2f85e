"""What the width of a partition costs a heartbeat, and what dropping one takes: 24, 6 and 1 hours."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from statistics import median
from typing import Any

from nexmdm import heartbeats, partitions
from nexmdm.database import Database, Row
from nexmdm.errors import NotAuthenticated

from bench import fixture, load
from tests.databases import url_of

HOURS = (24, 6, 1)
REPEATS = 200


class Explained:
    """Runs each statement under EXPLAIN ANALYZE and keeps what it took; the rows are lost."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.planning: list[float] = []
        self.execution: list[float] = []

    def execute(self, sql: str, parameters: Mapping[str, Any], *, repeatable: bool = False) -> list[Row]:
        (row,) = self._db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters)
        (plan,) = row["QUERY PLAN"]
        self.planning.append(plan["Planning Time"])
        self.execution.append(plan["Execution Time"])
        return []


def measure(server: str, rows: int) -> list[dict[str, Any]]:
    """rows: expired ones, over two days, so that a wider partition holds more of them."""
    usual = partitions.WIDTH
    try:
        return [_of_width(server, hours, rows) for hours in HOURS]
    finally:
        partitions.WIDTH = usual


def _of_width(server: str, hours: int, rows: int) -> dict[str, Any]:
    partitions.WIDTH = timedelta(hours=hours)
    name = f"width_{hours}"
    with fixture.connected(server) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE at_head")
    url = url_of(server, name)
    with fixture.connected(url) as db:
        for partition in partitions.bounds(db):
            partitions.drop(db, partition["name"])
        fixture.fill_expired(url, rows)
        measured = {"hours": hours, "partitions": len(partitions.bounds(db)), **_heartbeat(db, url), **_drops(db)}
    with fixture.connected(server) as db:
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return {**measured, "rows_left_to_delete": rows * hours // 48}


def _heartbeat(db: Database, url: str) -> dict[str, float]:
    explained, config = Explained(db), fixture.settings(url)
    for n in range(REPEATS + 20):
        with suppress(NotAuthenticated):
            heartbeats.record(explained, fixture.token(n), [load.report()], config)
    return {
        "planning_ms": round(median(explained.planning[20:]), 3),
        "execution_ms": round(median(explained.execution[20:]), 3),
    }


def _drops(db: Database) -> dict[str, float]:
    """Of the fullest partition: with the count of its rows before the DROP, which blocks nobody."""
    full = max(
        (p["name"] for p in partitions.bounds(db)[1:]),
        key=lambda name: db.execute(f"SELECT count(*) AS n FROM {name}")[0]["n"],
    )
    held = db.execute(f"SELECT count(*) AS n FROM {full}")[0]["n"]
    start = time.perf_counter()
    partitions.drop(db, full)
    return {"dropped_rows": held, "drop_ms": round((time.perf_counter() - start) * 1000, 1)}
