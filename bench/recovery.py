"""Recovery after an hour's outage of the whole fleet, scaled down: `python -m bench.recovery --devices 5000 --svg
FILE`.

Each device has 7 reports in its queue. Like the existing agent, it sends them one after the other, each over a separate
connection that it does not close before the queue is empty; rejected reports are sent again later. The server is the
real heartbeat handler in two processes with one request at a time each, like two Lambda environments; there is no
gateway. The floor is the same statement from two processes. A reference agent sends its queue as one batch.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
from nexmdm.heartbeats import partitions
from rich.console import Console

from bench import fixture, load, recovery_chart
from bench.figures import Figure, at_least, compared, counted, print_table
from bench.heartbeats import bare, statement
from bench.pairs import spread_of
from bench.stage import QUICK, Stage
from local.fleet.storage import Body
from local.postgres import embedded

PROCESSES = 2
QUEUED = 7  # an hour and ten minutes at one report in ten minutes
DAY = 143  # a day's
DEVICES = 5_000
OPEN = 64  # connections that a server process keeps open; a device has at most QUEUED
_spawn = get_context("spawn")


class Drain(msgspec.Struct):
    """One process's part: seconds from the common start, heartbeats accepted by then, and every status."""

    curve: list[tuple[float, int]]
    statuses: dict[int, int]

    @property
    def seconds(self) -> float:
        return self.curve[-1][0]

    @property
    def accepted(self) -> int:
        return self.curve[-1][1]


class Drained(msgspec.Struct):
    """The results of all processes. rows: the number of rows in the database afterwards."""

    parts: list[Drain]
    rows: int

    @property
    def accepted(self) -> int:
        return sum(part.accepted for part in self.parts)

    @property
    def rate(self) -> float:
        return self.accepted / max(part.seconds for part in self.parts)

    @property
    def statuses(self) -> Counter[int]:
        return sum((Counter(part.statuses) for part in self.parts), Counter())


def measure(stage: Stage, devices: int | None = None, chart: Path | None = None) -> list[Figure]:
    devices = devices or 2 * stage.sizes.small_devices
    stage.durable(False)
    floor = _drained(stage, "recovery_floor", devices, QUEUED, _statements)
    single = _drained(stage, "recovery_single", devices, QUEUED, _one_by_one, through_handlers=True)
    hour = _drained(stage, "recovery_hour", devices, QUEUED, _in_batches, through_handlers=True)
    day = _drained(stage, "recovery_day", max(1, devices * QUEUED // DAY), DAY, _in_batches, through_handlers=True)
    stage.durable(True)
    if chart:
        lines = {"the statement alone": floor, "one by one": single, "a batch each": hour}
        chart.write_text(
            recovery_chart.svg({name: [part.curve for part in run.parts] for name, run in lines.items()}, devices)
        )
    what = f"{devices} devices return with {QUEUED} reports each"
    others = sum(count for run in (single, hour, day) for status, count in run.statuses.items() if status != 200)
    lost = sum(run.accepted - run.rows for run in (single, hour, day))
    batch, day_batch = f"{what}, a batch of {QUEUED} each", f"a day's queue, a batch of {DAY} each"
    beside = "the same statement from 2 processes"
    return [
        counted(f"{what}: accepted reports without a row", lost, 0, "reports"),
        counted(f"{what}: responses other than 200", others, 0, "responses"),
        at_least(0.6, f"{what}, one by one", beside, floor.rate, single.rate, "/s", spread=_spread(floor, single)),
        at_least(10, batch, "one by one", single.rate, hour.rate, "/s", spread=_spread(single, hour)),
        compared(day_batch, "one by one", single.rate, day.rate, "/s", spread=_spread(single, day)),
    ]


def _spread(floor: Drained, measured: Drained) -> float:
    """Between the two processes."""
    return spread_of(_rates(floor), _rates(measured))


def _rates(run: Drained) -> list[float]:
    return [part.accepted / part.seconds for part in run.parts]


def _drained(stage: Stage, name: str, devices: int, queued: int, work: Any, through_handlers: bool = False) -> Drained:
    with stage.copy(name) as url, fixture.connected(url) as db:
        partitions.ensure_partitions(db, fixture.settings(url))
        with _servers(url if through_handlers else None) as ports:
            parts = [range(number, devices, PROCESSES) for number in range(PROCESSES)]
            drains = _run(work, [(url, ports[number], list(part), queued) for number, part in enumerate(parts)])
        rows = db.execute("SELECT count(*) AS n FROM device_heartbeats")[0]["n"]
    return Drained(drains, rows)


def _run(work: Any, arguments: list[tuple[Any, ...]]) -> list[Drain]:
    """Run each part in a separate process, starting at the same time."""
    begin, pipes, running = _spawn.Barrier(len(arguments) + 1), [], []
    for given in arguments:
        ours, theirs = _spawn.Pipe()
        running.append(_spawn.Process(target=work, args=(*given, begin, theirs), daemon=True))
        running[-1].start()
        pipes.append(ours)
    begin.wait()
    drains = [msgspec.json.decode(pipe.recv_bytes(), type=Drain) for pipe in pipes]
    for process in running:
        process.join()
    return drains


# --- the server: a handler on a socket


@contextmanager
def _servers(url: str | None) -> Iterator[list[int]]:
    """The ports of the server processes; zeros if there is no url."""
    if url is None:
        yield [0] * PROCESSES
        return
    running, ports = [], []
    for _ in range(PROCESSES):
        ours, theirs = _spawn.Pipe()
        running.append(_spawn.Process(target=_serve, args=(url, theirs), daemon=True))
        running[-1].start()
        ports.append(ours.recv())
    try:
        yield ports
    finally:
        for process in running:
            process.terminate()
            process.join()


def _serve(url: str, ready: Any) -> None:
    os.environ["DATABASE_URL"] = url
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (a log record per heartbeat, as in Lambda; it is not read)
    from functions.heartbeat.handler import handler

    context = type("Context", (), {"aws_request_id": "bench", "function_name": "heartbeat",
                                   "get_remaining_time_in_millis": lambda self: 10_000})()  # fmt: skip
    kept: deque[socket.socket] = deque()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        ready.send(listening.getsockname()[1])
        while True:
            connection, _ = listening.accept()
            path, token, body = _request(connection)
            event = {
                "version": "2.0",
                "routeKey": f"POST {path}",
                "headers": {"authorization": token, "content-type": "application/json"},
                "requestContext": {"http": {"sourceIp": "192.0.2.1"}},
                "body": body,
                "isBase64Encoded": False,
            }
            answer = handler(event, context)
            content = answer.get("body", "").encode()
            head = f"HTTP/1.1 {answer['statusCode']} -\r\ncontent-length: {len(content)}\r\n"
            if "Retry-After" in answer["headers"]:
                head += f"retry-after: {answer['headers']['Retry-After']}\r\n"
            connection.sendall(head.encode() + b"\r\n" + content)
            kept.append(connection)
            if len(kept) > OPEN:
                kept.popleft().close()


def _request(connection: socket.socket) -> tuple[str, str, str]:
    head, body = _message(connection)
    start = head.index(b"authorization: ") + len(b"authorization: ")
    return head.split(b" ", 2)[1].decode(), head[start : head.index(b"\r", start)].decode(), body.decode()


def _message(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read (head, body). HTTP parsing is part of neither the handler nor the floor, so it must be cheap."""
    data = connection.recv(65_536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(65_536)
    start = data.index(b"content-length: ", 0, end) + len(b"content-length: ")
    length = end + 4 + int(data[start : data.index(b"\r", start)])
    while len(data) < length:
        data += connection.recv(65_536)
    return data[:end], data[end + 4 :]


# --- the devices


def _queue(number: int, queued: int) -> list[Body]:
    """The reports of a device, oldest first, ten minutes apart, with a different second for each phone."""
    end = datetime.now(UTC) - timedelta(seconds=number % 600)
    return [load.body(end - timedelta(seconds=600 * (queued - n))) for n in range(queued)]


def _one_by_one(url: str, port: int, numbers: list[int], queued: int, begin: Any, results: Any) -> None:
    waiting = deque((number, [json.dumps(body).encode() for body in _queue(number, queued)]) for number in numbers)
    _send(port, "/v1/heartbeat", waiting, lambda _: 1, begin, results)


def _in_batches(url: str, port: int, numbers: list[int], queued: int, begin: Any, results: Any) -> None:
    waiting = deque((n, [json.dumps({"heartbeats": _queue(n, queued)}).encode()]) for n in numbers)
    _send(port, "/v1/heartbeats", waiting, lambda answer: len(json.loads(answer)["results"]), begin, results)


def _send(port: int, path: str, waiting: deque[tuple[int, list[bytes]]], count: Any, begin: Any, results: Any) -> None:
    """Drain device after device. A report that is not accepted goes to the end of the queue, like with a backoff."""
    statuses: Counter[int] = Counter()
    curve, accepted = [(0.0, 0)], 0
    begin.wait()
    start = time.monotonic()
    while waiting:
        number, items = waiting.popleft()
        head, opened, left = f"POST {path} HTTP/1.1\r\nauthorization: Bearer {fixture.token(number)}\r\n", [], []
        for item in items:
            connection = socket.socket()
            connection.connect(("127.0.0.1", port))
            opened.append(connection)
            connection.sendall(f"{head}content-length: {len(item)}\r\n\r\n".encode() + item)
            response, answer = _message(connection)
            status = int(response[9:12])
            statuses[status] += 1
            if status == 200:
                accepted += count(answer)
            else:
                left.append(item)
        for connection in opened:
            connection.close()
        if left:
            waiting.append((number, left))
        curve.append((time.monotonic() - start, accepted))
    results.send_bytes(msgspec.json.encode(Drain(curve, dict(statuses))))


def _statements(url: str, port: int, numbers: list[int], queued: int, begin: Any, results: Any) -> None:
    """The floor: the statement of every report, ready to be executed, over one connection."""
    config, prepared = fixture.settings(url), []
    for number in numbers:
        for body in _queue(number, queued):
            report = load.report(datetime.fromisoformat(body["timestamp_utc"]))
            prepared.append(statement(fixture.token(number), [report], config))
    curve = [(0.0, 0)]
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        begin.wait()
        start = time.monotonic()
        for n, (sql, parameters) in enumerate(prepared, 1):
            bare(connection, sql, parameters)
            if n % queued == 0:
                curve.append((time.monotonic() - start, n))
    results.send_bytes(msgspec.json.encode(Drain(curve, {})))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description="Simulate the recovery of a fleet.")
    parser.add_argument("--devices", type=int, default=DEVICES, metavar="N", help=f"at most {fixture.LIVE_DEVICES}")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart of the drained queues")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="nexmdm-recovery-") as folder,
        embedded.start(Path(folder) / "data") as url,
    ):
        stage = Stage(url, QUICK)
        stage.build()
        print_table(Console(width=150), "The whole fleet returns", measure(stage, options.devices, options.svg))


if __name__ == "__main__":
    main()
