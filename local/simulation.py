"""Runs a fleet and an operator against a gateway, shows their progress, and checks the results at the end."""

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg2
from nexmdm_cli.resources import Audit, read

from local import alarms, figures
from local.fcm.fake import FakeFcm
from local.figures import Figures
from local.fleet.fleet import Fleet
from local.fleet.ledger import Ledger
from local.fleet.pace import Pace
from local.gateway.application import required_key_pair
from local.operations import TTL_SECONDS, Operations
from local.operator_api import Operator
from local.releases import Releases
from local.view import View, line

DRAIN_SECONDS = 15
SHOWN_EVERY = 1.0


async def run(options: argparse.Namespace, url: str, fake_fcm: FakeFcm, view: View, stop: asyncio.Event) -> int:
    """Run until `stop` or for the given minutes; return the exit code."""
    began = datetime.now(UTC)
    database = figures.Database(os.environ["DATABASE_URL"], float(os.environ["HEARTBEAT_INTERVAL_SECONDS"]))
    async with httpx.AsyncClient(base_url=url, timeout=40) as http:
        operator = Operator(http, required_key_pair())
        fleet = _fleet(options, url, operator, database)
        fake_fcm.on_delivery = lambda delivery: fleet.deliver(delivery.token, delivery.data)
        operations = Operations(operator, fleet, options.commands)
        releases = Releases(operator, 2 * options.sweep, view.tell)
        simulated = _Simulation(fleet, operations, releases, database, view)
        with view:
            await simulated.run(stop, options.minutes and options.minutes * 60)
            left = await simulated.settle(stop, options.sweep)
        last = await simulated.figures()
        # Only this run's commands, because an earlier run may have been stopped during a send.
        audit = read(Audit, await operator.call("GET", f"/v1/audit/commands?since={began:%Y-%m-%dT%H:%M:%SZ}"))
        await fleet.close()
    database.close()
    return _judge(last, left, audit, fake_fcm, view)


def _fleet(options: argparse.Namespace, url: str, operator: Operator, database: figures.Database) -> Fleet:
    ledger = Ledger(int(os.environ.get("HEARTBEAT_BUCKET_SECONDS", "10")))
    if not database.has_rows_since(ledger.bucket(ledger.started)):
        ledger.since = ledger.bucket(ledger.started)  # counts the current bucket if no earlier run wrote to it
    return Fleet(
        url,
        options.devices,
        operator.enrollment_tokens,
        Pace(options.interval, backoff_scale=0.1),
        keep=options.state / "fleet.json",
        ledger=ledger,
        hmac_keys=(os.environ["COMMAND_HMAC_KEY"],),
    )


class _Simulation:
    def __init__(
        self, fleet: Fleet, operations: Operations, releases: Releases, database: figures.Database, view: View
    ) -> None:
        self._fleet, self._operations, self._database, self._view = fleet, operations, database, view
        self._releases = releases

    async def figures(self) -> Figures:
        fleet, operations = self._fleet, self._operations
        known = (fleet.device_ids, fleet.ledger.since, list(operations.request_ids))
        return figures.gather(fleet, operations, await asyncio.to_thread(self._database.read, *known))

    async def run(self, stop: asyncio.Event, seconds: float | None) -> None:
        """Run until a signal, the end of the time, or an error in the fleet or the operator, which is raised."""
        tasks = [asyncio.create_task(part) for part in self._parts()]
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, *tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        failed = next((task for task in tasks if task.done()), None)
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)
        if failed:
            failed.result()

    def _parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        told = alarms.read(os.environ["AWS_ENDPOINT_URL_SNS"], self._view.tell)
        return (self._fleet.run(), self._operations.run(), self._releases.run(), told, self._show())

    async def settle(self, stop: asyncio.Event, sweep: float) -> int:
        """Let devices send their queues and commands settle; return the number of requests without a response.

        After Ctrl-C it waits only for the devices.
        """
        self._view.tell("stopping: devices send their queued reports")
        interrupted = stop.is_set()
        left = await self._fleet.drain(DRAIN_SECONDS)
        if not interrupted:
            lease = float(os.environ.get("DISPATCH_LEASE_SECONDS", "90"))
            deadline = time.monotonic() + max(lease, TTL_SECONDS) + 3 * sweep
            while time.monotonic() < deadline and not stop.is_set():
                open_commands = (await self.figures()).stored.open_commands
                if not open_commands:
                    break
                self._view.tell(f"{open_commands} commands are still open; the sweep ends them")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), sweep)
            left = await self._fleet.drain(DRAIN_SECONDS)
        return left

    async def _show(self) -> None:
        while True:
            try:
                self._view.show(await self.figures())
            except psycopg2.Error as error:
                self._view.tell(f"the database does not respond: {str(error).splitlines()[0]}")
            await asyncio.sleep(SHOWN_EVERY)


def _judge(last: Figures, left: int, audit: Audit, fake_fcm: FakeFcm, view: View) -> int:
    ledger = last.fleet.ledger
    wrong = []
    if not last.consistent:
        wrong.append(f"{last.stored.rows} rows, but {last.expected} distinct buckets were sent")
    if last.server_errors:
        wrong.append(f"{last.server_errors} requests got 5xx; see the logs")
    if twice := figures.sent_twice(fake_fcm):
        wrong.append(f"sent twice: {', '.join(twice)}")
    if twice := [request_id for (_, request_id), count in ledger.ran.items() if count > 1]:
        wrong.append(f"ran twice: {', '.join(twice)}")
    if first := audit.first:
        wrong.append(f"the audit of {audit.checked} commands: {first.request_id} breaks {first.rule}")
    if ledger.corrupt:
        wrong.append(f"{ledger.corrupt} downloads differed from their build")
    if ledger.messages_refused:
        wrong.append(f"devices refused {ledger.messages_refused} messages: signature or time")
    view.print(line(last))
    view.print(f"audit: {audit.checked} commands, {audit.violations} violations")
    if left:
        view.print(f"{left} requests got no response")
    for what in wrong:
        view.print(f"WRONG: {what}", style="bold red")
    return 1 if wrong else 0
