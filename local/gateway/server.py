"""The gateway as a process: options, database, schedules, signals, and the line that it prints."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import IO

import uvicorn
from nexmdm_cli.listening import listen

from local import schema, template
from local.gateway import application
from local.template import Schedule


def main() -> None:
    options = _options()
    try:
        listener = listen(options.host, options.port, "choose another with --port")
        # Functions use this server's URL for devices, not the one in a request's Host header.
        os.environ.setdefault("PUBLIC_URL", _url(listener))
        schema.prepare()
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(open(options.log, "ab")) if options.log else None
            asyncio.run(_serve(options, listener, output))
    except (schema.SchemaError, OSError, RuntimeError) as error:
        sys.exit(f"local.gateway: {error}")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.gateway", description="Serve template.yaml's routes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: 8000)")
    parser.add_argument("--environments", type=int, default=4, metavar="N", help="processes per function (default: 4)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="file for the functions' output (default: stderr)")
    parser.add_argument("--template", type=Path, default=template.TEMPLATE, help=argparse.SUPPRESS)
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input is closed")
    parser.add_argument(
        "--every",
        action="append",
        default=[],
        metavar="FUNCTION=SECONDS",
        help="run a function's schedules at this interval instead of the template's rate",
    )
    return parser.parse_args()


async def _serve(options: argparse.Namespace, listener: socket.socket, output: IO[bytes] | None) -> None:
    declared = template.load(options.template)
    keys = application.key_pair()
    if keys is None:
        print("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set: operator routes return 403", file=sys.stderr)
    gateway = application.Gateway(declared, keys, options.environments, output)
    rates = dict(entry.split("=") for entry in options.every)
    schedules = [
        asyncio.create_task(_fire(gateway, schedule, float(every)))
        for schedule in declared.schedules
        if (every := rates.get(schedule.function.name, schedule.every))
    ]
    if options.until_stdin_closes:
        asyncio.get_running_loop().add_reader(0, _stop_at_end_of_stdin)
    try:
        await serve(gateway, listener)
    finally:
        for schedule in schedules:
            schedule.cancel()


def _stop_at_end_of_stdin() -> None:
    if not os.read(0, 64):
        asyncio.get_running_loop().remove_reader(0)
        os.kill(os.getpid(), signal.SIGTERM)


async def serve(gateway: application.Gateway, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; ends all environments."""
    try:
        await _Server(gateway).serve_on(listener)
    finally:
        gateway.close()


async def _fire(gateway: application.Gateway, schedule: Schedule, every: float) -> None:
    event = json.loads(schedule.input) if schedule.input else {"source": "aws.scheduler"}
    while True:
        await asyncio.sleep(every)
        await gateway.invoke(schedule.function, event)


class _Server(uvicorn.Server):
    """A uvicorn server that prints its URL and ends without a traceback on SIGINT and SIGTERM."""

    def __init__(self, gateway: application.Gateway) -> None:
        super().__init__(
            uvicorn.Config(
                gateway,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=5,
            )
        )

    async def serve_on(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        await self._serve(sockets=[listener])

    def _stop(self) -> None:
        self.force_exit = self.should_exit  # the second signal does not wait for requests
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
