"""Heartbeats: the verb and the handler compared with their statement through bare psycopg2; repeats; batches."""

from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import psycopg2
from nexmdm.heartbeats import partitions, record
from nexmdm.heartbeats.body import Report
from nexmdm.runtime.database import NONE, Database, Parameters, Row
from nexmdm.runtime.errors import NotAuthenticated
from psycopg2 import extensions

from bench import fixture, load
from bench.figures import Figure, at_least, at_most, counted, percentile
from bench.pairs import interleaved, medians_at_most, spread_of
from bench.stage import Stage, pointed_at
from tests.support import api
from tests.support.relay import relay

BUCKET = timedelta(seconds=10)
DEVICES = 100  # per side: enough that no row is a hot spot, few enough that their pages are cached
BATCH = 500
WAY = "the same statement, bare psycopg2"


class Statement:
    """Records the statement of a verb instead of running it."""

    def execute(self, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        self.sql, self.parameters = sql, dict(parameters)
        return []


def statement(token: str, reports: list[Report], config: Any) -> tuple[str, Parameters]:
    kept = Statement()
    with suppress(NotAuthenticated):
        record.for_token(kept, token, reports, config)
    return kept.sql, kept.parameters


def bare(connection: extensions.connection, sql: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def at_of(report: Report) -> datetime:
    assert report.device_ts is not None  # load.report sets a time for each
    return report.device_ts


class Devices:
    """Each side has its own devices; each heartbeat is in a bucket that its device has not used yet."""

    def __init__(self, first: int, apps: bool = False) -> None:
        self._first, self._count, self.apps = first, 0, apps
        self._begin = datetime.now(UTC) - timedelta(hours=20)

    def next(self) -> tuple[str, Report]:
        turn, number = divmod(self._count, DEVICES)
        self._count += 1
        return fixture.token(self._first + number), load.report(self._begin + turn * BUCKET, self.apps)


def measure(stage: Stage) -> list[Figure]:
    stage.durable(False)
    with stage.copy("heartbeats") as url, fixture.connected(url) as db, closing(psycopg2.connect(url)) as floor:
        floor.autocommit = True
        partitions.ensure_partitions(db, fixture.settings(url))
        db.execute("ANALYZE")
        figures = _overheads(stage, url, db, floor)
        figures += [*_with_inventory(stage, url, db, floor), _round_trips(url)]
        _end_others(db)
        figures += [*_repeats(stage, url, db), _batch(stage, url, db)]
    stage.durable(True)
    return figures


def _overheads(stage: Stage, url: str, db: Database, floor: Any) -> list[Figure]:
    config = fixture.settings(url)
    sides = {name: Devices(n * DEVICES) for n, name in enumerate(("floor", "verb", "handler"))}

    def prepare(_: int) -> dict[str, Callable[[], object]]:
        sql, parameters = statement(*_reports(sides["floor"]), config)
        token, reports = _reports(sides["verb"])
        handler, event = _event(sides["handler"])
        return {
            "floor": lambda: bare(floor, sql, parameters),
            "verb": lambda: record.for_token(db, token, reports, config),
            "handler": lambda: handler(event, api.CONTEXT),
        }

    took = interleaved(stage.sizes.rounds, prepare)
    stage.results["heartbeat_ms"] = median(took["floor"])
    verb, handler = "heartbeat verb, new bucket", "heartbeat handler, API event in to answer out"
    return [
        medians_at_most(1.4, f"{verb}: p50", WAY, took["floor"], took["verb"]),
        at_most(
            1.6,
            f"{verb}: p95",
            WAY,
            percentile(took["floor"], 95),
            percentile(took["verb"], 95),
            "ms",
            spread=spread_of(took["floor"], took["verb"], lambda part: percentile(part, 95)),
        ),
        medians_at_most(2, f"{handler}: p50", WAY, took["floor"], took["handler"]),
    ]


def _reports(devices: Devices) -> tuple[str, list[Report]]:
    token, report = devices.next()
    return token, [report]


def _event(devices: Devices) -> api.Call:
    token, report = devices.next()
    return api.event("POST", "/v1/heartbeat", load.body(at_of(report), devices.apps), token=token)


def _round_trips(url: str) -> Figure:
    devices = Devices(3 * DEVICES)
    with relay(url) as line, pointed_at(line.url):
        for _ in range(3):
            handler, event = _event(devices)
            line.sent.clear()
            assert handler(event, api.CONTEXT)["statusCode"] == 200
        sent = list(line.sent)
    return counted("heartbeat: messages to the server (statements = round trips)", len(sent), 1, "messages")


def _repeats(stage: Stage, url: str, db: Database) -> list[Figure]:
    config, devices = fixture.settings(url), Devices(4 * DEVICES)

    def prepare(_: int) -> dict[str, Callable[[], object]]:
        token, report = devices.next()
        record.for_token(db, token, [report], config)
        other, new = devices.next()
        return {
            "new": lambda: record.for_token(db, other, [new], config),
            "repeat": lambda: record.for_token(db, token, [report], config),
        }

    took = interleaved(stage.sizes.rounds, prepare)
    token, report = devices.next()
    record.for_token(db, token, [report], config)
    rows, wal = _written(db, lambda: record.for_token(db, token, [report], config))
    return [
        medians_at_most(1.0, "exact repeat of a heartbeat: p50", "new heartbeat", took["new"], took["repeat"]),
        counted("200 exact repeats: table rows written", rows, 0, "rows"),
        counted("200 exact repeats: WAL written", wal, 0, "bytes", "the least of five attempts: the server writes too"),
    ]  # fmt: skip


def _written(db: Database, repeat: Callable[[], object]) -> tuple[int, int]:
    """The rows and bytes of WAL that 200 repeats wrote, according to the server."""
    wal = []
    rows = _row_writes(db)
    for _ in range(5):
        before = db.execute("SELECT pg_current_wal_insert_lsn() AS lsn")[0]["lsn"]
        for _ in range(200):
            repeat()
        since = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %(before)s)::int AS bytes"
        wal.append(db.execute(since, {"before": before})[0]["bytes"])
    return _row_writes(db) - rows, min(wal)


def _end_others(db: Database) -> None:
    """End other sessions, because a session reports its writes only seconds later or when it ends."""
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
               " AND pid <> pg_backend_pid()")  # fmt: skip
    while db.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"):
        pass


def _row_writes(db: Database) -> int:
    db.execute("SELECT pg_stat_force_next_flush()")
    db.execute("SELECT 1")
    return int(db.execute("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::int AS n FROM pg_stat_user_tables")[0]["n"])


def _with_inventory(stage: Stage, url: str, db: Database, floor: Any) -> list[Figure]:
    """The same bars for heartbeats with an unchanged app inventory, and its cost compared with none."""
    config, first = fixture.settings(url), 8 * DEVICES + stage.sizes.rounds
    sides = {name: Devices(first + n * DEVICES, apps=name != "without") for n, name in enumerate(
        ("floor", "verb", "handler", "without"))}  # fmt: skip
    for devices in sides.values():
        for _ in range(DEVICES):  # after these the inventory is stored
            record.for_token(db, *_reports(devices), config)

    def prepare(_: int) -> dict[str, Callable[[], object]]:
        sql, parameters = statement(*_reports(sides["floor"]), config)
        token, reports = _reports(sides["verb"])
        handler, event = _event(sides["handler"])
        other, plain = _reports(sides["without"])
        return {
            "floor": lambda: bare(floor, sql, parameters),
            "verb": lambda: record.for_token(db, token, reports, config),
            "handler": lambda: handler(event, api.CONTEXT),
            "without": lambda: record.for_token(db, other, plain, config),
        }

    before = _apps_written(db)
    took = interleaved(stage.sizes.rounds, prepare)
    written = _apps_written(db) - before
    what = f"heartbeat with {len(load.APPS)} apps, unchanged"

    def against(bar: float, side: str, floor_: str, way: str) -> Figure:
        return medians_at_most(bar, f"{what}, {side}: p50", way, took[floor_], took[side])

    return [
        against(1.4, "verb", "floor", WAY),
        against(2, "handler", "floor", WAY),
        against(1.2, "verb", "without", "one without"),
        counted(f"{what}: rows of the inventory written", written, 0, "rows"),
    ]


def _apps_written(db: Database) -> int:
    db.execute("SELECT pg_stat_force_next_flush()")
    db.execute("SELECT 1")
    sql = "SELECT n_tup_ins + n_tup_upd + n_tup_del AS n FROM pg_stat_user_tables WHERE relname = 'device_apps'"
    return int(db.execute(sql)[0]["n"])


def _batch(stage: Stage, url: str, db: Database) -> Figure:
    """A batch of 500 compared with 50 single heartbeats in each round."""
    config, rounds = fixture.settings(url), max(3, stage.sizes.rounds // 25)
    singles = Devices(6 * DEVICES)
    begin = datetime.now(UTC) - timedelta(hours=40)

    def prepare(number: int) -> dict[str, Callable[[], object]]:
        batch = [load.report(begin + n * BUCKET) for n in range(BATCH)]
        some = [singles.next() for _ in range(BATCH // 10)]
        token = fixture.token(7 * DEVICES + number)
        return {
            "single": lambda: [record.for_token(db, token, [report], config) for token, report in some],
            "batch": lambda: record.for_token(db, token, batch, config),
        }

    took = interleaved(rounds, prepare, warm_up=2)
    single, batch = (1000 * n / median(took[name]) for name, n in (("single", BATCH // 10), ("batch", BATCH)))
    stage.results["batch_rows_per_second"] = batch
    return at_least(
        15,
        f"batch of {BATCH} heartbeats",
        "one by one",
        single,
        batch,
        "rows/s",
        spread=spread_of(took["batch"], took["single"]),
    )
