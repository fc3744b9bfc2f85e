"""The whole system on this machine with a simulated fleet: `python -m local.run --devices 20`, which is `make run`.

PostgreSQL, migrations, the gateway, the fleet. Data and the devices' credentials stay in `.nexmdm/`. Ctrl-C stops
everything; a run with `--minutes` ends by itself, with exit code 1 when the database's rows are not the distinct
buckets that the fleet sent, or when anything was answered 5xx.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator

import httpx
import psycopg2
from rich.console import Console

from local import figures, postgres, schema
from local.figures import Figures
from local.fleet.fleet import Fleet
from local.fleet.ledger import Ledger
from local.fleet.pace import Pace
from local.gateway import key_pair
from local.operator_api import Operator
from local.signature import KeyPair
from local.supervisor import GatewayFailed, Supervisor
from local.view import View, line

STATE = postgres.STATE
DRAIN_SECONDS = 15
# Of this machine's gateway only, used when the environment has no pair of its own. It opens nothing elsewhere.
LOCAL_KEYS = KeyPair("AKIALOCALOPERATOR", "local-operator-secret")
console = Console()


def main() -> None:
    options = _options()
    _default_settings(options)
    STATE.mkdir(exist_ok=True)
    try:
        with _step("PostgreSQL"):
            os.environ["DATABASE_URL"] = postgres.url()
        with _step("migrations"):
            schema.migrate(os.environ["DATABASE_URL"])
        sys.exit(asyncio.run(_run(options)))
    except KeyboardInterrupt:
        sys.exit(130)
    except (schema.SchemaError, GatewayFailed, RuntimeError, OSError) as error:
        sys.exit(f"local.run: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description="Run the whole system with a fleet.")
    parser.add_argument("--devices", type=int, default=20, metavar="N")
    parser.add_argument("--interval", type=float, default=5, help="seconds between heartbeats of a device (default: 5)")
    parser.add_argument(
        "--minutes", type=float, default=os.environ.get("DURATION"), help="end by itself after this long"
    )
    parser.add_argument("--port", type=int, default=8000, help="of the gateway (default: 8000, or a free one)")
    parser.add_argument("--environments", type=int, default=4, help="processes per function (default: 4)")
    return parser.parse_args()


def _default_settings(options: argparse.Namespace) -> None:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", LOCAL_KEYS.key_id)
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", LOCAL_KEYS.secret)
    os.environ.setdefault("HEARTBEAT_INTERVAL_SECONDS", str(max(10, round(options.interval))))


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    start = time.monotonic()
    console.print(f"starting {name} …", end=" ", highlight=False)
    yield
    console.print(f"{time.monotonic() - start:.1f} s", highlight=False)


async def _run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    view = View(f"NexMDM · {options.devices} devices")
    arguments = ["--environments", str(options.environments), "--log", str(STATE / "functions.log")]
    gateway = Supervisor(arguments, STATE / "gateway.log", view.tell)
    try:
        with _step("gateway"):
            url = await gateway.start(_port(options.port))
        console.print(f"{url}\nlogs in {STATE}; Ctrl-C stops", highlight=False)
        return await _with_fleet(options, url, view, stop)
    finally:
        await gateway.stop()


def _port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            console.print(f"(port {wanted} is in use, taking another)", end=" ", highlight=False)
            return 0
    return wanted


async def _with_fleet(options: argparse.Namespace, url: str, view: View, stop: asyncio.Event) -> int:
    interval = float(os.environ["HEARTBEAT_INTERVAL_SECONDS"])
    database = figures.Database(os.environ["DATABASE_URL"], interval)
    ledger = Ledger(int(os.environ.get("HEARTBEAT_BUCKET_SECONDS", "10")))
    if not database.has_rows_since(ledger.bucket(ledger.started)):
        ledger.since = ledger.bucket(ledger.started)  # no earlier run wrote into the present bucket: it counts
    pace = Pace(options.interval, backoff_scale=0.1, batch_share=0.25)
    async with httpx.AsyncClient(base_url=url, timeout=40) as http:
        tokens_for = Operator(http, key_pair()).enrolment_tokens
        fleet = Fleet(url, options.devices, tokens_for, pace, STATE / "fleet.json", ledger=ledger)
        running = asyncio.create_task(fleet.run())
        showing = asyncio.create_task(_show(fleet, database, view))
        with view:
            await _until(stop, running, options.minutes and options.minutes * 60)
            view.tell("stopping: devices send what they still hold")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            left = await fleet.drain(DRAIN_SECONDS)
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        last = await _figures(fleet, database)
        await fleet.close()
    database.close()
    return _summary(last, left)


async def _until(stop: asyncio.Event, running: asyncio.Task, seconds: float | None) -> None:
    """A signal, the end of the time, or an error in the fleet, which is raised."""
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, running}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()


async def _show(fleet: Fleet, database: figures.Database, view: View) -> None:
    while True:
        try:
            view.show(await _figures(fleet, database))
        except psycopg2.Error as error:
            view.tell(f"the database does not answer: {str(error).splitlines()[0]}")
        await asyncio.sleep(1)


async def _figures(fleet: Fleet, database: figures.Database) -> Figures:
    read = await asyncio.to_thread(database.read, fleet.device_ids, fleet.ledger.since)
    return figures.gather(fleet, *read)


def _summary(last: Figures, left: int) -> int:
    console.print(line(last), highlight=False, soft_wrap=True)
    if left:
        console.print(f"{left} requests were never answered", highlight=False)
    if not last.consistent:
        console.print(f"WRONG: {last.rows} rows, but {last.expected} distinct buckets were sent", style="bold red")
    if last.server_errors:
        console.print(f"WRONG: {last.server_errors} requests were answered 5xx; see {STATE}", style="bold red")
    return 0 if last.consistent and not last.server_errors else 1


if __name__ == "__main__":
    main()
