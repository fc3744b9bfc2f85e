"""The life cycle of a fleet in a few minutes: `python -m local.fleet.journey --devices 50 --profile field`.

It covers enrollment, a command of every action, a rollout with failures, deletions, factory resets, and an hour
offline. After each part, every status that the server shows is compared with the phones; it exits with 1 if one is
false. Hours are simulated by making the database's contents older, so it needs its own empty database (DATABASE_URL, as
a superuser).
"""

import argparse
import asyncio
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import psycopg2.extras
from nexmdm_cli.resources import Params

from local import releases, s3, schema
from local.fcm import FakeFcm, serve
from local.fcm.account import service_account
from local.fleet import truth
from local.fleet.device import Device
from local.fleet.fleet import BOTH, Fleet
from local.fleet.pace import Pace
from local.fleet.phone import UNITY
from local.fleet.time_travel import pass_time
from local.gateway.application import key_pair
from local.gateway.supervisor import Supervisor
from local.operator_api import Operator

INTERVAL = 600.0
HMAC_KEY = "journey-command-key"
# One command for each action except remote_exec_shell, which is off by default, and install_apk, which a rollout sends.
ACTIONS: dict[str, Params] = {
    "ping": {},
    "ring": {"duration": 5},
    "wake": {},
    "launch_app": {"package_name": UNITY},
    "restart_app": {},
    "reboot": {},
    "set_dnd": {"enable": True},
    "wifi_connect": {"ssid": 'the "site" \\1', "password": "12345678", "security_type": "wpa2"},
    "grant_permissions": {},
    "exempt_unity_app": {},
    "apply_battery_whitelist": {"packages": [UNITY]},
    "remote_control": {"command": "home"},
    "remote_exec_fcm": {"type": "launch_app", "package_name": UNITY},
}
# Values that must not reach a phone's shell: each must be rejected.
REFUSED: list[tuple[str, Params]] = [
    ("wifi_connect", {"ssid": "$(reboot)", "password": "12345678", "security_type": "wpa2"}),
    ("wifi_connect", {"ssid": "site", "password": "pa`id`ss", "security_type": "wpa2"}),
    ("wifi_connect", {"ssid": "site", "password": "12345678\n", "security_type": "wpa2"}),
    ("apply_battery_whitelist", {"packages": ["com.example;reboot"]}),
]

Tell = Callable[[str], None]


class Journey:
    """Runs the parts with a fleet, an operator and their server. `lies` has the false statuses."""

    def __init__(self, fleet: Fleet, operator: Operator, database_url: str, tell: Tell) -> None:
        self._fleet, self._operator, self._url, self._tell = fleet, operator, database_url, tell
        self._sent: dict[str, Device] = {}
        self._earlier: set[str] = set()
        self._gone: list[str] = []
        self.lies: list[str] = []

    async def run(self) -> None:
        for part in (self._enroll, self._command, self._roll_out, self._hour_offline, self._delete, self._reset):
            await part()
            await self._check((part.__doc__ or "").splitlines()[0].rstrip("."))

    # --- the parts

    async def _enroll(self) -> None:
        """Enrollment."""
        tokens = await self._operator.enrollment_tokens([device.alias for device in self._fleet.devices])
        for device in self._fleet.devices:
            await device.enroll(tokens[device.alias])
        await self._all(lambda device: device.settled())
        await self._report()

    async def _command(self) -> None:
        """A command of every action."""
        devices = self._fleet.devices
        for number, (action, params) in enumerate(ACTIONS.items()):
            for device in devices[number % len(devices) :: len(ACTIONS)]:
                await self._send(device, action, params)
        for action, params in REFUSED:
            if await self._send(devices[0], action, params) != 422:
                self.lies.append(f"{action} {params} was not rejected")
        await self._all(lambda device: device.settled())
        await self._report()
        if executed := self._fleet.ledger.shell_executions:
            self.lies.append(f"the shell of a phone executed {executed}")

    async def _roll_out(self) -> None:
        """A rollout with failures."""
        for device in self._fleet.devices[::5]:
            device.phone.install_error = "INSTALL_FAILED_INSUFFICIENT_STORAGE"
        release = releases.Releases(self._operator, 0, self._tell)
        build_id = await release.publish(1)
        await release.step(build_id, "promote", staged_rollout_percent=100)
        await release.step(build_id, "rollout", staged_rollout_percent=100, install=True)
        # Phones wake during the installation, and the existing agent then reports it as completed too early.
        for device in self._fleet.devices[::2]:
            await self._send(device, "wake", {})
        await self._all(lambda device: device.settled())
        await self._report()
        await self._report()

    async def _hour_offline(self) -> None:
        """An hour offline."""
        offline, others = (
            self._fleet.devices[1::5],
            [d for d in self._fleet.devices if d not in self._fleet.devices[1::5]],
        )
        for device in offline:
            device.go_offline()
            await self._send(device, "launch_app", {"package_name": UNITY})
        for _ in range(6):
            await asyncio.to_thread(pass_time, self._url, INTERVAL)
            await self._report(others)
        self.lies += await truth.lies_about_devices(self._operator, self._fleet.devices, self._gone)
        for device in offline:
            device.spend_offline(3600, INTERVAL)
            device.go_online()
        await self._all(lambda device: device.settled())
        await self._report()

    async def _delete(self) -> None:
        """Deletions; 25 hours later."""
        deleted = self._fleet.devices[2::10]
        for device in deleted:
            known = device.credentials
            if known:
                await self._operator.call("DELETE", f"/v1/devices/{known.device_id}")
                self._gone.append(known.device_id)
                await self._send(device, "ping", {})
        await self._report(deleted)
        for device in deleted:
            if device.profile == "field" and device.credentials is None:
                self.lies.append(f"{device.alias} was just deleted but got 401 instead of 410")
        await asyncio.to_thread(pass_time, self._url, 25 * 3600)
        for _ in range(6):  # one report each: five 401s end it
            for device in deleted:
                device.outbox.all_due()
            await self._report(deleted)
        self.lies += [f"{d.alias} was deleted a day ago but has not stopped" for d in deleted if d.credentials]
        await self._report()

    async def _reset(self) -> None:
        """Factory resets and new enrollments."""
        again = [*self._fleet.devices[3::10], *self._fleet.devices[2::10]]
        for device in self._fleet.devices[3::10]:
            device.go_offline()
            await self._send(device, "reboot", {})  # waits for a phone that will be replaced
            device.factory_reset()
            device.go_online()
        tokens = await self._operator.enrollment_tokens([device.alias for device in again])
        # A deleted device becomes a new one; one that is taken over stays, and its open commands are cancelled.
        resets = self._fleet.devices[3::10]
        self._earlier |= {request_id for request_id, device in self._sent.items() if device in resets}
        for device in again:
            await device.enroll(tokens[device.alias])
        await self._all(lambda device: device.settled())
        await self._report()

    # --- common steps

    async def _check(self, part: str) -> None:
        before = len(self.lies)
        enrolled = [device for device in self._fleet.devices if device.credentials]
        devices = {device.credentials.device_id: device for device in enrolled if device.credentials}
        self.lies += await truth.lies_about_devices(self._operator, enrolled, self._gone)
        self.lies += await truth.lies_about_commands(self._operator, self._sent, self._earlier)
        rows = await asyncio.to_thread(_installations, self._url)
        self.lies += truth.lies_about_installations(rows, devices)
        if errors := self._fleet.ledger.server_errors:
            self.lies.append(f"{errors} requests of phones got 5xx")
        self.lies = list(dict.fromkeys(self.lies))
        statuses = ", ".join(
            f"{count} {status}" for status, count in sorted(Counter(row.status for row in rows).items())
        )
        self._tell(
            f"{part}: {len(devices)} devices, {len(self._sent)} commands, installations: {statuses or 'none'};"
            f" {len(self.lies) - before} lies"
        )

    async def _report(self, devices: Sequence[Device] | None = None) -> None:
        """Let each phone send its next heartbeat, with its queue."""
        await self._all(lambda device: device.report(), devices)
        await self._all(lambda device: device.settled(), devices)

    async def _all(self, do: Callable[[Device], Awaitable[Any]], devices: Sequence[Device] | None = None) -> None:
        await asyncio.gather(*[do(device) for device in (devices or self._fleet.devices) if device.credentials])

    async def _send(self, device: Device, action: str, params: Params) -> int:
        known, request_id = device.credentials, f"journey-{uuid.uuid4().hex[:12]}"
        body = {"action": action, "params": params, "request_id": request_id}
        try:
            await self._operator.call("POST", f"/v1/devices/{known.device_id if known else ''}/commands", body)
        except httpx.HTTPStatusError as error:
            return error.response.status_code
        self._sent[request_id] = device
        return 202


def _installations(database_url: str) -> list[truth.Installation]:
    with (
        closing(psycopg2.connect(database_url)) as connection,
        connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
    ):
        cursor.execute(_INSTALLATIONS)
        return [truth.Installation(**row) for row in cursor.fetchall()]


_INSTALLATIONS = """
SELECT i.device_id, v.package_name, v.version_code, i.status
FROM apk_installations i JOIN apk_versions v ON v.id = i.apk_version_id
JOIN devices d ON d.id = i.device_id
WHERE d.deleted_at IS NULL AND i.initiated_at > coalesce(d.taken_over_at, '-infinity')
"""


async def travel(devices: int, profiles: Sequence[str], database_url: str, tell: Tell) -> list[str]:
    """Run the whole journey with its own gateway; return the false statuses."""
    with tempfile.TemporaryDirectory(prefix="nexmdm-journey-") as folder, s3.running() as storage:
        s3.make_bucket(storage, releases.BUCKET)
        fake_fcm = FakeFcm()
        _, fcm = await serve(fake_fcm)
        account = Path(folder) / "account.json"
        account.write_text(service_account(fcm))
        os.environ.update(
            DATABASE_URL=database_url,
            FCM_ENDPOINT=fcm,
            FCM_SERVICE_ACCOUNT=str(account),
            COMMAND_HMAC_KEY=HMAC_KEY,
            APK_BUCKET=releases.BUCKET,
            AWS_ENDPOINT_URL_S3=storage,
            AWS_REGION=s3.REGION,
        )
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "AKIALOCALOPERATOR")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local-operator-secret")
        gateway = Supervisor(
            ["--environments", "2", "--log", os.devnull, "--every", "fcm_dispatch=1"],
            Path(folder) / "gateway.log",
            tell,
        )
        url = await gateway.start(0)
        try:
            async with httpx.AsyncClient(base_url=url, timeout=40) as http:
                keys = key_pair()
                if keys is None:
                    raise ValueError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                operator = Operator(http, keys)
                pace = Pace(INTERVAL, backoff_scale=0.001, duplicate_share=0.05, offline_share=0)
                fleet = Fleet(
                    url, devices, operator.enrollment_tokens, pace, profiles, hmac_keys=(HMAC_KEY,), attended=False
                )
                fake_fcm.on_delivery = lambda delivery: fleet.deliver(delivery.token, delivery.data)
                journey = Journey(fleet, operator, database_url, tell)
                await journey.run()
                await fleet.close()
                return journey.lies
        finally:
            await gateway.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.fleet.journey", description="The life of a fleet.")
    parser.add_argument("--devices", type=int, default=50, metavar="N")
    parser.add_argument("--profile", choices=[*BOTH, "both"], default="both")
    options = parser.parse_args()
    profiles = BOTH if options.profile == "both" else (options.profile,)
    url = os.environ.get("DATABASE_URL")
    if url is None:
        sys.exit(
            "local.fleet.journey: DATABASE_URL must name a separate, empty database, because its timestamps are changed"
        )
    schema.migrate(url)
    lies = asyncio.run(travel(options.devices, profiles, url, lambda text: print(text, flush=True)))
    print(*(f"LIE: {lie}" for lie in lies), sep="\n" if lies else "", flush=True)
    print(f"{len(lies)} false statuses" if lies else "good: no status was false", flush=True)
    sys.exit(1 if lies else 0)


if __name__ == "__main__":
    main()
