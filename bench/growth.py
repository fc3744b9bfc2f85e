"""The effect of size: a heartbeat with 10,000 and 2 million rows, a page of the fleet with 1,000 and 100,000
devices."""

from collections.abc import Callable, Mapping
from functools import partial

from nexmdm.devices import lists
from nexmdm.heartbeats import partitions, record
from nexmdm.runtime.database import Database
from nexmdm.runtime.pagination import page

from bench import fixture
from bench.figures import Figure
from bench.heartbeats import Devices
from bench.pairs import interleaved, medians_at_most
from bench.stage import Stage

APP = "io.unitynodes.unityapp"
DAYS = 3
PAGE = 100


def measure(stage: Stage) -> list[Figure]:
    sizes = stage.sizes
    stage.durable(False)
    with (
        stage.copy("small") as small_url,
        stage.copy("large") as large_url,
        fixture.connected(small_url) as small,
        fixture.connected(large_url) as large,
    ):
        _fill(small_url, small, sizes.small_devices, sizes.small_rows)
        _fill(large_url, large, sizes.devices, sizes.rows)
        stage.results["heartbeat_bytes"] = _bytes_of_a_row(large)
        figures = [_heartbeat(stage, small, large, large_url), *_pages(stage, small, large)]
    stage.durable(True)
    return figures


def _fill(url: str, db: Database, devices: int, rows: int) -> None:
    """Devices with their last status, and heartbeats of the last three days, in their partitions."""
    partitions.ensure_partitions(db, fixture.settings(url, days=DAYS))
    fixture.fill_devices_up_to(url, devices)
    fixture.fill_recent(url, devices, rows, DAYS)


def _heartbeat(stage: Stage, small: Database, large: Database, url: str) -> Figure:
    config = fixture.settings(url)
    sides = {"small": (small, Devices(0)), "large": (large, Devices(0))}

    def prepare(_: int) -> dict[str, Callable[[], object]]:
        jobs: dict[str, Callable[[], object]] = {}
        for name, (db, devices) in sides.items():
            token, report = devices.next()
            jobs[name] = partial(record.for_token, db, token, [report], config)
        return jobs

    took = interleaved(stage.sizes.rounds, prepare)
    what = f"heartbeat among {stage.sizes.rows:,} rows, {DAYS} days of partitions: p50"
    return medians_at_most(1.2, what, f"among {stage.sizes.small_rows:,}", took["small"], took["large"])


def _pages(stage: Stage, small: Database, large: Database) -> list[Figure]:
    """The first page, and one from the middle of the list."""
    sizes = stage.sizes
    figures = []
    for what, count in (("first page", 0), ("a page in the middle", 0.5)):
        queries = {
            "small": (small, _query(small, int(sizes.small_devices * count))),
            "large": (large, _query(large, int(sizes.devices * count))),
        }
        jobs = {name: partial(lists.devices, db, query, 600, APP) for name, (db, query) in queries.items()}
        took = interleaved(max(20, sizes.rounds // 2), partial(_same, jobs))
        shown = f"fleet list of {sizes.devices:,} devices, {what}: p50"
        figures.append(medians_at_most(1.2, shown, f"of {sizes.small_devices:,}", took["small"], took["large"]))
    return figures


def _same(jobs: Mapping[str, Callable[[], object]], _round: int) -> dict[str, Callable[[], object]]:
    return dict(jobs)


def _query(db: Database, skip: int) -> lists.DevicesQuery:
    if not skip:
        return lists.DevicesQuery(limit=PAGE)
    rows = db.execute("SELECT alias FROM devices ORDER BY alias OFFSET %(skip)s LIMIT 1", {"skip": skip})
    return lists.DevicesQuery(limit=PAGE, cursor=page([rows[0]] * 2, 1, ("alias",)).next_cursor)


def _bytes_of_a_row(db: Database) -> float:
    """The storage per heartbeat: table, indexes and related files."""
    sql = """
        SELECT sum(pg_total_relation_size(inhrelid)) / (SELECT count(*) FROM device_heartbeats)::float8 AS bytes
        FROM pg_inherits WHERE inhparent = 'device_heartbeats'::regclass"""
    return float(db.execute(sql)[0]["bytes"])
