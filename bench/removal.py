"""The duration of removing expired heartbeats and its effect on heartbeats: the cleanup compared with a DELETE."""

import time
from collections.abc import Callable
from statistics import median
from typing import cast

import msgspec
from nexmdm.retention import run
from nexmdm.runtime.database import NONE, Database, Parameters, Row

from bench import fixture, load
from bench.figures import Figure, below, compared, counted, percentile, spread
from bench.pairs import spread_of
from bench.stage import Stage

CALM_SECONDS = 1
FELT_MS = 150  # the documented limit for a heartbeat
DELETE = "WITH gone AS (DELETE FROM device_heartbeats WHERE ts < now() - make_interval(days => %(days)s) RETURNING 1)"


# The parts of a cleanup, by the text of the statement.
PARTS = {"DROP TABLE": "summaries and drops", "count(*) AS n": "counts", "ctid": "rows of the partition that is cut"}


class Profiled:
    """A database that sums the durations of its statements."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.seconds = dict.fromkeys(PARTS.values(), 0.0)

    def execute(self, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        start = time.perf_counter()
        try:
            return self._db.execute(sql, parameters, repeatable=repeatable)
        finally:
            part = next((part for mark, part in PARTS.items() if mark in sql), None)
            if part:
                self.seconds[part] += time.perf_counter() - start


class Removed(msgspec.Struct):
    """seconds: of the removal; vacuum: of the VACUUM after a DELETE. idle, during: milliseconds of heartbeats."""

    rows: int
    seconds: float
    vacuum: float
    idle: list[float]
    during: list[float]
    parts: dict[str, float]


# The removal, and then the step that makes the space usable again.
Way = tuple[Callable[[Profiled, str], int], Callable[[Database], object]]


def measure(stage: Stage) -> list[Figure]:
    """Both methods alternately, each on a copy of the same database, with commits that wait for the disk, as usual."""
    ways: dict[str, Way] = {
        "cleanup": (_clean, lambda _: None),
        "delete": (_delete, lambda db: db.execute("VACUUM device_heartbeats")),
    }
    done: dict[str, list[Removed]] = {name: [] for name in ways}
    with stage.copy("expired") as full:
        fixture.fill_expired(full, stage.sizes.rows)
        for number in range(stage.sizes.removal_rounds):
            for name, way in ways.items():
                with stage.copy(f"{name}_{number}", "expired") as url:
                    done[name].append(_timed(stage, url, way))
    return _figures(stage, done["cleanup"], done["delete"])


def _figures(stage: Stage, cleaned: list[Removed], deleted: list[Removed]) -> list[Figure]:
    rows = cleaned[0].rows
    stage.results["cleanup_seconds"] = max(each.seconds for each in cleaned)
    what = f"cleanup of {rows:,} expired heartbeats, to the second and counted"
    by_cleanup, by_delete = (rows / median(each.seconds for each in done) for done in (cleaned, deleted))
    parts = (f"{name} {median(each.parts[name] for each in cleaned):.2f} s" for name in PARTS.values())
    note = f"{', '.join(parts)}; the schedule cuts at an edge"
    spread = spread_of([each.seconds for each in cleaned], [each.seconds for each in deleted])
    return [
        compared(what, "one DELETE, which frees nothing", by_delete, by_cleanup, "rows/s", note, spread),
        counted("rows that a DELETE would have removed and the cleanup did not", deleted[0].rows - rows, 0, "rows"),
        _felt("cleanup", cleaned),
        _felt("DELETE", deleted),
    ]


def _felt(name: str, removals: list[Removed]) -> Figure:
    """The effect of a removal on heartbeats, which lasts as long as a drop's lock, a few milliseconds."""
    during = [ms for each in removals for ms in each.during]
    note = f"{len(during)} heartbeats during, p99 {percentile(during, 99):.1f} ms"
    return below(f"heartbeat during a {name}, the slowest", spread(during)["max"], FELT_MS, "ms", note)


def _timed(stage: Stage, url: str, way: Way) -> Removed:
    remove, afterwards = way
    with fixture.connected(url) as db, load.running(url) as posting:
        time.sleep(CALM_SECONDS)
        begun = time.monotonic()
        time.sleep(stage.sizes.idle_seconds)
        profiled, start = Profiled(db), time.monotonic()
        removed = remove(profiled, url)
        end = time.monotonic()
        afterwards(db)
        vacuumed = time.monotonic()
        time.sleep(CALM_SECONDS)  # until delayed heartbeats are recorded
    idle = posting.between(begun, start)
    return Removed(removed, end - start, vacuumed - end, idle, posting.between(start, end), profiled.seconds)


def _clean(db: Profiled, url: str) -> int:
    done = run.clean(cast(Database, db), fixture.settings(url), lambda: 290)
    assert done.policies["heartbeats"].done, done
    return done.policies["heartbeats"].deleted


def _delete(db: Profiled, _url: str) -> int:
    return int(db.execute(f"{DELETE} SELECT count(*) AS n FROM gone", {"days": fixture.RETENTION_DAYS})[0]["n"])
