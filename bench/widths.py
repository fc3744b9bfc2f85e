"""The effect of the width of partitions on heartbeats, and the duration of a drop: 24, 6 and 1 hours.

Runs only by name (`python -m bench --only widths`), because it documents a past decision, see docs/migrations.md.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from statistics import median

from nexmdm.heartbeats import partitions, record
from nexmdm.runtime.database import Database

from bench import fixture
from bench.figures import Figure, compared
from bench.heartbeats import Devices
from bench.pairs import interleaved
from bench.stage import Stage

HOURS = (24, 6, 1)


def measure(stage: Stage) -> list[Figure]:
    """rows: expired rows over two days, so that a wider partition has more of them."""
    usual, rows = partitions.WIDTH, stage.sizes.rows // 2
    stage.durable(False)
    with ExitStack() as stack:
        databases = {}
        try:
            for hours in HOURS:
                partitions.WIDTH = timedelta(hours=hours)
                url = stack.enter_context(stage.copy(f"width_{hours}"))
                databases[hours] = stack.enter_context(fixture.connected(url))
                _fill(databases[hours], url, rows)
        finally:
            partitions.WIDTH = usual
        took = _heartbeats(stage, databases, url)
        figures = [_figure(hours, db, took, rows) for hours, db in databases.items()]
    stage.durable(True)
    return figures


def _fill(db: Database, url: str, rows: int) -> None:
    for partition in partitions.bounds(db):
        partitions.drop(db, partition.name)
    fixture.fill_expired(url, rows)


def _heartbeats(stage: Stage, databases: dict[int, Database], url: str) -> dict[str, list[float]]:
    config = fixture.settings(url)
    sides = {hours: Devices(0) for hours in databases}

    def prepare(_: int) -> dict[str, Callable[[], object]]:
        jobs: dict[str, Callable[[], object]] = {}
        for hours, devices in sides.items():
            token, report = devices.next()
            jobs[str(hours)] = partial(record.for_token, databases[hours], token, [report], config)
        return jobs

    return interleaved(stage.sizes.rounds, prepare)


def _figure(hours: int, db: Database, took: dict[str, list[float]], rows: int) -> Figure:
    """Drops the fullest partition, including the count of its rows, which does not block other sessions."""
    found = partitions.bounds(db)
    counts = {each.name: db.execute(f"SELECT count(*) AS n FROM {each.name}")[0]["n"] for each in found}
    full = max(counts, key=counts.__getitem__)
    start = time.perf_counter()
    partitions.drop(db, full)
    drop_ms = (time.perf_counter() - start) * 1000
    note = (
        f"{len(found)} partitions; one drop {drop_ms:.0f} ms ({counts[full]:,} rows);"
        f" at most {rows * hours // 48:,} rows left to DELETE"
    )
    floor, measured = median(took[str(HOURS[0])]), median(took[str(hours)])
    return compared(f"heartbeat, partitions of {hours} h: p50", f"of {HOURS[0]} h", floor, measured, "ms", note)
