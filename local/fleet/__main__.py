"""`python -m local.fleet --url URL --devices 20`: a fleet against any server, with a line of counts now and then."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import httpx

from local.fleet import inbox
from local.fleet.fleet import Fleet, TokensFor
from local.fleet.pace import Pace
from local.gateway import key_pair
from local.operator_api import Operator


def main() -> None:
    options = _options()
    try:
        sys.exit(asyncio.run(_run(options)))
    except (OSError, ValueError, httpx.HTTPError) as error:
        sys.exit(f"local.fleet: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.fleet", description="Simulate a fleet of devices.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--devices", type=int, default=20, metavar="N")
    parser.add_argument("--interval", type=float, default=600, help="seconds between heartbeats (default: 600)")
    parser.add_argument("--backoff", type=float, default=1, help="factor for every pause before a retry (default: 1)")
    parser.add_argument("--duplicates", type=float, default=0.05, help="share of heartbeats sent twice at once")
    parser.add_argument("--offline", type=float, default=0.01, help="share of heartbeats before which the network goes")
    parser.add_argument("--batches", type=float, default=0, help="share of devices that drain their queue in batches")
    parser.add_argument("--fcm", metavar="URL", help="an FCM double (local.fcm) whose messages the devices receive")
    parser.add_argument(
        "--hmac-key", action="append", default=[], help="of the devices; the second is the rotation key"
    )
    parser.add_argument("--minutes", type=float, help="stop after this long (default: on Ctrl-C)")
    parser.add_argument("--prefix", default="sim", help="of the aliases (default: sim)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the devices' credentials here between runs")
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="enrolment tokens as JSON {alias: token}; without it they are made through the operator API, signed with"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> int:
    async with httpx.AsyncClient(base_url=options.url, timeout=40) as http:
        pace = Pace(
            interval=options.interval,
            backoff_scale=options.backoff,
            duplicate_share=options.duplicates,
            offline_share=options.offline,
            batch_share=options.batches,
        )
        fleet = Fleet(
            options.url,
            options.devices,
            _tokens(options, http),
            pace,
            keep=options.keep,
            prefix=options.prefix,
            hmac_keys=tuple(options.hmac_key),
        )
        running = asyncio.create_task(fleet.run())
        aside = [asyncio.create_task(_report(fleet))]
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
        await fleet.close()
    return 1 if fleet.ledger.server_errors else 0


def _tokens(options: argparse.Namespace, http: httpx.AsyncClient) -> TokensFor:
    if options.tokens:
        given = json.loads(options.tokens.read_text())

        async def from_file(aliases: list[str]) -> dict[str, str]:
            return {alias: given[alias] for alias in aliases if alias in given}

        return from_file
    keys = key_pair()
    if keys is None:
        raise ValueError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --tokens FILE")
    return Operator(http, keys).enrolment_tokens


async def _report(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(5)
        print(_line(fleet), flush=True)


def _line(fleet: Fleet) -> str:
    ledger = fleet.ledger
    p50, p95 = ledger.percentile(0.5), ledger.percentile(0.95)
    latency = f" · p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms" if p50 is not None else ""
    return (
        f"{len(fleet.device_ids)} devices · accepted {ledger.accepted}, deduplicated {ledger.deduplicated},"
        f" rejected {ledger.rejected}, 5xx {ledger.server_errors}, unreachable {ledger.unreachable}{latency}"
    )


if __name__ == "__main__":
    main()
