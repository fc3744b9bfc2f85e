"""Operator routes with a large fleet: 100,000 devices, 2 M heartbeats, 1 M commands, 1 M events.

`make bench-operators`, or `python -m bench --only operators`; it takes some minutes, mostly for creating the data.

A request must respond within 50 ms at p95, or within three times the time of fetching the affected devices by primary
key, measured alternately. No statement may read a large table completely, according to the server's own counters, which
include statements in functions. A request about all devices may read each table once. The statements of each request
and their plans are written to .nexmdm/operators.txt.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch
from zlib import crc32

from nexmdm.runtime import database
from nexmdm.runtime.database import NONE, Database, Parameters, Row

from bench import fixture, fleet_data
from bench.figures import Figure, absent, percentile
from bench.operator_requests import REQUESTS, TO_S3, Ask
from bench.pairs import spread_of
from bench.sending import fake_fcm
from bench.stage import Stage, pointed_at
from local import template
from local.postgres.embedded import STATE
from tests.support import api

MS, TIMES = 50, 3
MOST_MS = 5_000  # of one request in all its rounds, so that a slow request is not repeated twenty times
LARGE = 20_000  # rows from which a table must not be read completely
PLANS = STATE / "operators.txt"
BY_KEY = """
SELECT d.id, d.alias, l.last_seen_at FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
WHERE d.id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL
"""


def routes() -> list[str]:
    """The operator routes of the template."""
    return [f"{route.method} {route.path}" for route in template.load().routes if route.authorizer == "AWS_IAM"]


def measure(stage: Stage) -> list[Figure]:
    stage.durable(False)
    figures: list[Figure] = []
    with (
        stage.copy("operators") as url,
        fake_fcm() as variables,
        # The request only accepts a bulk command; the sweep sends it.
        pointed_at(url, **variables, BULK_INLINE_SECONDS="0"),
        fixture.connected(url) as db,
    ):
        fleet_data.fill(url, db, stage.sizes)
        database.connection().execute("SELECT 1")  # the login is not part of a request
        PLANS.parent.mkdir(exist_ok=True)
        with PLANS.open("w") as plans:
            for route in routes():
                asks = REQUESTS.get(route, [])
                if not asks and route not in TO_S3:
                    figures.append(absent(route, "it has no request in bench/operator_requests.py"))
                figures += [_asked(stage, db, route, ask, plans) for ask in asks]
    stage.durable(True)
    return figures


def _asked(stage: Stage, db: Database, route: str, ask: Ask, plans: Any) -> Figure:
    name = f"{route}{f', {ask.label}' if ask.label else ''}"
    ids = [row["id"] for row in db.execute(ask.rows)] if ask.rows else []
    rounds = ask.rounds or stage.sizes.asked
    took: list[float] = []
    floor: list[float] = []
    scanned: set[str] = set()
    for n in range(rounds):
        if sum(took) > MOST_MS and n > 1:
            break
        handler, event = _event(route, ask, n)
        before = _read(db)
        with _recorded() as statements:
            start = time.perf_counter()
            answer = handler(event, api.CONTEXT)
            took.append((time.perf_counter() - start) * 1000)
        if answer["statusCode"] >= 400:
            return absent(name, f"{answer['statusCode']}: {answer.get('body', '')[:300]}")
        scanned.update(_scanned(before, _read(db), ask))
        if ids:
            start = time.perf_counter()
            db.execute(BY_KEY, {"ids": ids})
            floor.append((time.perf_counter() - start) * 1000)
    _write_plans(db, plans, name, took, statements)
    return _judged(name, ask, took, floor, sorted(scanned))


def _judged(name: str, ask: Ask, took: list[float], floor: list[float], scanned: list[str]) -> Figure:
    p95 = percentile(took, 95)
    bar = ask.most_seconds * 1000 if ask.most_seconds else MS
    quick = p95 <= bar or bool(floor and median(took) <= TIMES * median(floor))
    note = f"p50 {median(took):.1f} ms" + (f"; reads as a whole: {', '.join(scanned)}" if scanned else "")
    return Figure(
        what=name,
        against="these devices by primary key" if floor else "",
        floor=round(median(floor), 2) if floor else None,
        measured=round(p95, 2),
        unit="ms",
        ratio=round(median(took) / median(floor), 3) if floor else None,
        spread=round(spread_of(floor, took), 3) if floor else 0,
        bar=f"<= {bar:g} ms" + (f" or {TIMES} times" if floor else ""),
        met=quick and not scanned,
        note=note,
    )


def _event(route: str, ask: Ask, n: int) -> api.Call:
    path, body = ask.at(n)
    headers = {"idempotency-key": f"ask-{crc32(f'{route}{ask.label}'.encode())}-{n}"} if ask.key else {}
    return api.event(route.partition(" ")[0], path, body, query=ask.query, headers=headers)


Statement = tuple[str, Parameters]


@contextmanager
def _recorded() -> Iterator[list[Statement]]:
    """Record the statements of the function during the block."""
    statements: list[Statement] = []
    execute = Database.execute

    def recording(self: Database, sql: str, parameters: Parameters = NONE, *, repeatable: bool = False) -> list[Row]:
        statements.append((sql, parameters))
        return execute(self, sql, parameters, repeatable=repeatable)

    with patch.object(Database, "execute", recording):
        yield statements


def _read(db: Database) -> dict[str, tuple[int, int]]:
    """Returns {large table: (number of sequential scans, number of rows read by them)}."""
    for one in (database.connection(), db):
        one.execute("SELECT pg_stat_force_next_flush()")
        one.execute("SELECT 1")
    rows = db.execute(
        "SELECT relname, seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE n_live_tup > %(large)s", {"large": LARGE}
    )
    return {row["relname"]: (row["seq_scan"], row["seq_tup_read"]) for row in rows}


def _scanned(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], ask: Ask) -> list[str]:
    """The large tables that were scanned beyond a page although they may not be."""
    return [
        table
        for table, (scans, rows) in sorted(after.items())
        if table in before and table not in ask.reads
        and scans > before[table][0] and rows - before[table][1] > LARGE / 2
    ]  # fmt: skip


def _write_plans(db: Database, plans: Any, name: str, took: list[float], statements: list[Statement]) -> None:
    print(f"\n==== {name}: p50 {median(took):.1f} ms, p95 {percentile(took, 95):.1f} ms", file=plans)
    for sql, parameters in statements:
        # For a message of two statements, of which the first takes a lock, the last is explained.
        last = sql.strip().rstrip(";").rpartition(";\n")[2]
        if not last.lstrip().upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            continue
        print(f"\n{last.strip()}\n", file=plans)
        try:
            plan = db.execute(f"EXPLAIN {last}", parameters)
        except Exception as error:
            print(f"  (no plan: {error})", file=plans)
            continue
        print(*(f"  {next(iter(row.values()))}" for row in plan), sep="\n", file=plans)
    plans.flush()


def main() -> None:
    """Run by `make bench-operators`."""
    import runpy
    import sys

    sys.argv[1:1] = ["--only", "operators", "--json", str(STATE / "operators.json")]
    runpy.run_module("bench", run_name="__main__")


if __name__ == "__main__":
    main()
