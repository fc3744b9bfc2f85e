"""`python -m local.fleet --url URL --devices 20`: runs a fleet against any server and prints counts regularly.

A load run is `python -m local.fleet --devices 100 --minutes 2 --report`: without a URL it uses its own gateway, with
the database at DATABASE_URL or the embedded one. It exits with 1 if a response was 5xx or a rejection, or if the rows
of that database are not exactly the buckets that were sent.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg2

from local import schema
from local.fleet import inbox, odd
from local.fleet.fleet import BOTH, Fleet, TokensFor
from local.fleet.ledger import Ledger
from local.fleet.pace import Pace
from local.fleet.report import report
from local.gateway.application import key_pair
from local.gateway.supervisor import GatewayFailed, Supervisor
from local.operator_api import Operator
from local.postgres import embedded


def main() -> None:
    options = _options()
    try:
        sys.exit(asyncio.run(_run(options)))
    except (OSError, ValueError, httpx.HTTPError, psycopg2.Error, schema.SchemaError, GatewayFailed) as error:
        sys.exit(f"local.fleet: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.fleet", description="Simulate a fleet of devices.")
    parser.add_argument("--url", help="of the server (default: a gateway of its own on the local database)")
    parser.add_argument("--devices", type=int, default=20, metavar="N")
    parser.add_argument(
        "--interval",
        type=float,
        help="seconds between heartbeats (default: 600 as in the field, 10 with --report and --odd)",
    )
    parser.add_argument("--backoff", type=float, default=1, help="factor for every pause before a retry (default: 1)")
    parser.add_argument("--duplicates", type=float, default=0.05, help="share of heartbeats sent twice at once")
    parser.add_argument("--offline", type=float, default=0.01, help="share of heartbeats before which the network goes")
    parser.add_argument(
        "--profile",
        choices=[*BOTH, "both"],
        default="both",
        help="of the agents: the existing one, one that follows docs/device.md, or half of each (default: both)",
    )
    parser.add_argument("--fcm", metavar="URL", help="a fake FCM (local.fcm) whose messages the devices receive")
    parser.add_argument(
        "--hmac-key", action="append", default=[], help="of the devices; the second is the rotation key"
    )
    parser.add_argument("--minutes", type=float, help="stop after this long (default: on Ctrl-C)")
    parser.add_argument("--report", action="store_true", help="compare the database with what was sent, and judge")
    parser.add_argument(
        "--odd",
        action="store_true",
        help="devices send unusual values, have wrong clocks, are wiped, share tokens; exits with 1 if a report was"
        " rejected or a device looks offline",
    )
    parser.add_argument("--environments", type=int, default=4, help="of its own gateway, per function (default: 4)")
    parser.add_argument("--prefix", default="sim", help="of the aliases (default: sim)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the devices' credentials here between runs")
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="enrollment tokens as JSON {alias: token}; without it they are made through the operator API, signed with"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> int:
    async with _server(options) as url, httpx.AsyncClient(base_url=url, timeout=40) as http:
        fleet = Fleet(
            url,
            options.devices,
            _tokens(options, http),
            _pace(options),
            BOTH if options.profile == "both" else (options.profile,),
            keep=options.keep,
            prefix=options.prefix,
            ledger=_ledger(options),
            hmac_keys=tuple(options.hmac_key),
            odd=options.odd,
        )
        left = await _until_it_ends(options, fleet)
        await fleet.close()
        if options.odd:
            return await _judge_odd(fleet, http)
        if not options.report:
            return 1 if fleet.ledger.server_errors else 0
        judged = report(fleet.ledger, fleet.device_ids, left, os.environ["DATABASE_URL"])
        print(*judged.lines(), sep="\n", flush=True)
        return 1 if any(judged.failures()) else 0


async def _judge_odd(fleet: Fleet, http: httpx.AsyncClient) -> int:
    keys = key_pair()
    if keys is None:
        raise ValueError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: --odd asks the server who is online")
    online = await Operator(http, keys).online()
    devices = (*fleet.devices, *fleet.twins)
    found = odd.judge(
        fleet.ledger, [d.odd for d in devices if d.odd], fleet.device_ids, online, os.environ["DATABASE_URL"]
    )
    print(*found.lines(), sep="\n", flush=True)
    return 1 if any(found.failures()) else 0


async def _until_it_ends(options: argparse.Namespace, fleet: Fleet) -> int:
    """Run until a signal or the end of the time; return the number of unsent reports."""
    running = asyncio.create_task(fleet.run())
    aside = [asyncio.create_task(_tell(fleet))]
    if options.fcm:
        aside.append(asyncio.create_task(inbox.follow(options.fcm, fleet.deliver)))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(running, options.minutes and options.minutes * 60)
    for task in aside:
        task.cancel()
    left = await fleet.drain(seconds=10)
    print(_line(fleet) + (f" · {left} unsent" if left else ""), flush=True)
    return left


@contextlib.asynccontextmanager
async def _server(options: argparse.Namespace) -> AsyncIterator[str]:
    """The URL of the server: the given one, or that of a gateway started for this run."""
    if options.report or options.odd or not options.url:
        os.environ.setdefault("DATABASE_URL", embedded.url())
    if options.url:
        yield options.url
        return
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "AKIALOCALOPERATOR")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local-operator-secret")
    schema.migrate(os.environ["DATABASE_URL"])
    embedded.STATE.mkdir(exist_ok=True)
    arguments = ["--environments", str(options.environments), "--log", os.devnull]
    gateway = Supervisor(arguments, embedded.STATE / "load.log", lambda text: print(text, flush=True))
    try:
        yield await gateway.start(0)
    finally:
        await gateway.stop()


def _pace(options: argparse.Namespace) -> Pace:
    interval = options.interval or (10 if options.report or options.odd else 600)
    return Pace(
        interval=interval,
        # The run's own server announces its default interval, so the reference agents use the same pace as the others.
        announced_scale=1.0 if options.url else interval / 600,
        backoff_scale=options.backoff,
        # Exact repeats do not update last_seen_at. An odd fleet sends none, so every accepted report must be visible.
        duplicate_share=0 if options.odd else options.duplicates,
        offline_share=options.offline,
    )


def _ledger(options: argparse.Namespace) -> Ledger:
    """Keep the latest latencies for a line of counts, all of them for a report."""
    bucket_seconds = int(os.environ.get("HEARTBEAT_BUCKET_SECONDS", "10"))
    return Ledger(bucket_seconds, latencies=deque()) if options.report else Ledger(bucket_seconds)


def _tokens(options: argparse.Namespace, http: httpx.AsyncClient) -> TokensFor:
    if options.tokens:
        given = json.loads(options.tokens.read_text())

        async def from_file(aliases: list[str]) -> dict[str, str]:
            return {alias: given[alias] for alias in aliases if alias in given}

        return from_file
    keys = key_pair()
    if keys is None:
        raise ValueError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --tokens FILE")
    return Operator(http, keys).enrollment_tokens


async def _tell(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(5)
        print(_line(fleet), flush=True)


def _line(fleet: Fleet) -> str:
    ledger = fleet.ledger
    p50, p95 = ledger.percentile(0.5), ledger.percentile(0.95)
    latency = f" · p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms" if p50 is not None and p95 is not None else ""
    return (
        f"{len(fleet.device_ids)} devices · accepted {ledger.accepted}, deduplicated {ledger.deduplicated},"
        f" rejected {ledger.rejected}, 5xx {ledger.server_errors}, unreachable {ledger.unreachable}{latency}"
    )


if __name__ == "__main__":
    main()
