"""Measures, prints tables, writes .nexmdm/bench.json. Ends with 1 when a target of the documents is missed.

BENCH_ROWS: how many expired heartbeats (2000000).
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import fixture, removal, targets, watching, widths
from local import postgres
from tests.databases import url_of

Target = tuple[str, float, float, str]


def main() -> int:
    # The verbs log each operation on standard output; the tables go where it led before.
    console = Console(file=os.fdopen(os.dup(1), "w"), width=120 if not sys.stdout.isatty() else None)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    rows = int(os.environ.get("BENCH_ROWS", "2000000"))
    with tempfile.TemporaryDirectory(prefix="nexmdm-bench-") as folder, postgres.start(Path(folder) / "data") as url:
        os.environ["DATABASE_URL"] = url  # the settings that the verbs load, here and in the process that posts
        measured = _measure(url, rows, console)
    postgres.STATE.mkdir(exist_ok=True)
    (postgres.STATE / "bench.json").write_text(json.dumps(measured, indent=2) + "\n")
    return 0 if _print_targets(console, measured["targets"]) else 1


def _measure(url: str, rows: int, console: Console) -> dict[str, Any]:
    server, head, full = url_of(url, "postgres"), url_of(url, "at_head"), url_of(url, "full")
    with fixture.connected(server) as db:
        db.execute("CREATE DATABASE at_head")
        migration = fixture.migrate(head)
        fixture.fill_devices(head)
        for copy in ("full", "watched"):
            db.execute(f'CREATE DATABASE "{copy}" TEMPLATE at_head')
    by_width = widths.measure(server, rows // 2)
    _print_widths(console, by_width)
    watched = watching.measure(url_of(url, "watched"))
    _print_watched(console, watched)
    removals = removal.measure(full, rows)
    _print_removals(console, removals)
    with fixture.connected(head) as db:
        checks = removal.spread(targets.idempotency(db))
    heartbeat = removal.spread(targets.heartbeat(head))
    cleanup = max(each["seconds"] for each in removals if each["way"] == "cleanup")
    return {
        "rows": rows,
        "processors": os.cpu_count(),
        "widths": by_width,
        "removals": removals,
        "watched": watched,
        "targets": [
            ("heartbeat p95, 100 devices over 16 connections", heartbeat["p95"], 150, "ms"),
            ("idempotency check p95", checks["p95"], 5, "ms"),
            (f"cleanup of {rows:,} heartbeats", cleanup, 60, "s"),
            (f"watch, each condition of {watching.DEVICES:,} devices", watching.slowest_seconds(watched), 1, "s"),
            ("migration from empty to head", round(migration, 2), 10, "s"),
        ],
    }


def _print_widths(console: Console, measured: list[dict[str, Any]]) -> None:
    names = list(measured[0])
    table = Table(*names, title="Width of a partition (hours); medians of the heartbeat's statement")
    for each in measured:
        table.add_row(*[f"{each[name]:,}" for name in names])
    console.print(table)


def _print_watched(console: Console, measured: list[dict[str, Any]]) -> None:
    table = Table(*measured[0], title=f"Watch over {watching.DEVICES:,} devices (ms)")
    for each in measured:
        table.add_row(*map(str, each.values()))
    console.print(table)


def _print_removals(console: Console, measured: list[dict[str, Any]]) -> None:
    columns = ["way", "round", "rows", "seconds"]
    for cut in ("p50", "p99"):
        columns += [f"{cut} idle", "during", "ratio"]
    table = Table(*columns, "worst", "n", title="Expired heartbeats removed while others arrive (ms)")
    for each in measured:
        idle, during = each["idle"], each["during"]
        cells = [each["way"], each["round"], f"{each['rows']:,}", each["seconds"]]
        for cut in ("p50", "p99"):
            cells += [idle[cut], during[cut], f"{during[cut] / idle[cut]:.1f}"]
        table.add_row(*map(str, cells), str(during["max"]), str(during["count"]))
    console.print(table)


def _print_targets(console: Console, measured: list[Target]) -> bool:
    table = Table("target of the documents", "measured", "below", "", title="Targets")
    for what, value, below, unit in measured:
        table.add_row(what, f"{value} {unit}", f"{below} {unit}", "met" if value < below else "MISSED")
    console.print(table)
    return all(value < below for _, value, below, _ in measured)


if __name__ == "__main__":
    sys.exit(main())
