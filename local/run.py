"""The whole system locally with a simulated fleet: `python -m local.run --devices 20`, or `make run`.

PostgreSQL, migrations, S3, a fake FCM, the gateway, the fleet, an operator who sends commands, alerts, a console.
Data and the devices' credentials stay in `.nexmdm/`. Ctrl-C stops everything; a run with `--minutes` ends by itself.
In both cases the exit code is 1 if the database's rows do not match the distinct buckets that the fleet sent, if a
response was 5xx, or if a command was sent or run twice.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nexmdm_cli import console as web_console
from rich.console import Console

from local import alarms, operator_api, releases, s3, schema, simulation
from local.fcm.account import service_account
from local.fcm.fake import FakeFcm
from local.fcm.server import serve
from local.gateway.application import required_key_pair
from local.gateway.signature import KeyPair
from local.gateway.supervisor import GatewayFailed, Supervisor
from local.postgres import embedded
from local.view import View

# Used if the environment has none. They are valid only for the local gateway and devices.
LOCAL_KEYS = KeyPair("AKIALOCALOPERATOR", "local-operator-secret")
LOCAL_HMAC_KEY = "local-command-key"
console = Console()


def main() -> None:
    options = _options()
    _default_settings(options)
    options.state.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(options.state):
            with _step("PostgreSQL"):
                os.environ["DATABASE_URL"] = embedded.url()
            with _step("migrations"):
                schema.migrate(os.environ["DATABASE_URL"])
            with _step("S3 and the alarms' topic"), contextlib.ExitStack() as started:
                url = started.enter_context(s3.running())
                _use_s3(url)
                os.environ.update(ALERT_TOPIC_ARN=alarms.make_topic(url), AWS_ENDPOINT_URL_SNS=url)
                running = started.pop_all()
            with running:
                sys.exit(asyncio.run(_run(options)))
    except KeyboardInterrupt:
        sys.exit(130)
    except (schema.SchemaError, GatewayFailed, RuntimeError, OSError) as error:
        sys.exit(f"local.run: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description="Run the whole system with a fleet.")
    parser.add_argument("--devices", type=int, default=20, metavar="N")
    parser.add_argument("--interval", type=float, default=5, help="seconds between heartbeats of a device (default: 5)")
    parser.add_argument("--commands", type=float, default=2, help="seconds between commands (default: 2)")
    parser.add_argument("--minutes", type=float, default=os.environ.get("DURATION"), help="end after this long")
    parser.add_argument("--port", type=int, default=8000, help="of the gateway (default: 8000, or a free one)")
    parser.add_argument("--state", type=Path, default=embedded.STATE, metavar="DIR", help="of logs and credentials")
    parser.add_argument("--environments", type=int, default=4, help="processes per function (default: 4)")
    parser.add_argument("--sweep", type=float, default=5, help="seconds between sweeps of commands (default: 5)")
    parser.add_argument("--watch", type=float, default=10, help="seconds between evaluations of alerts (default: 10)")
    parser.add_argument(
        "--misbehave",
        type=float,
        nargs="?",
        const=0.3,
        default=0,
        metavar="SHARE",
        help="let the fake FCM misbehave for a share of the messages (0.3 by default)",
    )
    return parser.parse_args()


def _default_settings(options: argparse.Namespace) -> None:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", LOCAL_KEYS.key_id)
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", LOCAL_KEYS.secret)
    os.environ.setdefault("COMMAND_HMAC_KEY", LOCAL_HMAC_KEY)
    os.environ.setdefault("HEARTBEAT_INTERVAL_SECONDS", str(max(10, round(options.interval))))
    # A run is short, so the recovery of an alert is notified soon.
    os.environ.setdefault("ALERT_COOLDOWN_SECONDS", "30")


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Allow one run at a time, because two fleets would take over each other's devices. Logs are only of this run."""
    with open(state / "run.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another run uses {state}") from None
        for log in ("functions.log", "gateway.log"):  # they grow by megabytes per hour
            (state / log).unlink(missing_ok=True)
        yield


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
    view = View(f"NexMDM · {options.devices} devices", console)
    fake_fcm = FakeFcm(options.misbehave)
    with _step("fake FCM"):
        await _start_fake_fcm(fake_fcm, options.state / "fcm-account.json")
    arguments = ["--environments", str(options.environments), "--log", str(options.state / "functions.log")]
    gateway = Supervisor(
        [*arguments, "--every", f"fcm_dispatch={options.sweep}", "--every", f"watch={options.watch}"],
        options.state / "gateway.log",
        view.tell,
    )
    try:
        with _step("gateway"):
            url = await gateway.start(_port(options.port))
        async with web_console.running(url, operator_api.signed(required_key_pair())) as opened:
            view.console_address = opened.file.as_uri()
            addresses = f"{url}\nconsole: {opened.url}\nagain: {view.console_address}"
            console.print(f"{addresses}\nlogs in {options.state}; Ctrl-C stops", highlight=False, soft_wrap=True)
            with _announced(options.state / "stack.json", url):
                return await simulation.run(options, url, fake_fcm, view, stop)
    finally:
        await gateway.stop()


@contextlib.contextmanager
def _announced(file: Path, url: str) -> Iterator[None]:
    """Write the file from which `nexmdm` finds this run. A key pair from the environment is not copied to it."""
    stack = {"url": url, "region": s3.REGION, "pid": os.getpid()}
    if os.environ["AWS_ACCESS_KEY_ID"] == LOCAL_KEYS.key_id:
        stack |= {"access_key_id": LOCAL_KEYS.key_id, "secret_access_key": LOCAL_KEYS.secret}
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as written:
        json.dump(stack, written)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _use_s3(url: str) -> None:
    s3.make_bucket(url, releases.BUCKET)
    os.environ.update(APK_BUCKET=releases.BUCKET, AWS_ENDPOINT_URL_S3=url, AWS_REGION=s3.REGION)
    releases.withdraw_earlier(os.environ["DATABASE_URL"])


async def _start_fake_fcm(fake_fcm: FakeFcm, account: Path) -> None:
    """Start the fake FCM, which the functions find through their settings."""
    _, url = await serve(fake_fcm)
    account.write_text(service_account(url))
    os.environ["FCM_ENDPOINT"] = url
    os.environ["FCM_SERVICE_ACCOUNT"] = str(account)


def _port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            console.print(f"(port {wanted} is in use, taking another)", end=" ", highlight=False)
            return 0
    return wanted


if __name__ == "__main__":
    main()
