"""The existing agent, with its actual behaviour.

Each detail is one that docs/device.md describes: commands that it never answers, acknowledgements that it only queues,
installations that it reports as completed too early, one connection per queued item, stopping after five 401s. It reads
neither `next_heartbeat_seconds` nor `pending_commands`, and never asks for an update.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import ClassVar

from local.fleet import shell
from local.fleet.device import Context, Device
from local.fleet.field_installer import FieldInstaller
from local.fleet.link import FieldLink, Response
from local.fleet.outbox import Item, pause
from local.fleet.sender import Sender
from local.fleet.storage import Body

COALESCE_SECONDS = 10
ACK = "/v1/devices/{device_id}/ack"


class FieldDevice(Device):
    """A phone with the existing agent.

    Attributes:
        by_qr_code: it is configured by its QR form, which carries the alias unencoded and no HMAC key.
        two_broadcasts: it is configured by two broadcasts in a row.
    """

    profile: ClassVar[str] = "field"

    def __init__(self, alias: str, link: FieldLink, context: Context, twin: bool = False) -> None:
        super().__init__(alias, link, context, twin)
        self._connections = link
        self.by_qr_code = self._rng.random() < 0.5
        self.two_broadcasts = self._rng.random() < self._pace.two_broadcasts_share
        self._sender = Sender(link, self._ledger, self._pace.duplicate_share, self._rng)
        self._installer = FieldInstaller(self, link, self._ledger, self.fire_and_forget)
        self._seen: set[str] = set()
        self._draining = asyncio.Lock()
        if self.by_qr_code or self.credentials is None:
            self._inbox.keys = ()

    # --- configuration

    async def run(self) -> None:
        await self.until_enrolled()
        await asyncio.sleep(self._rng.uniform(0, self._pace.interval))
        while True:
            if self.odd and self.odd.is_wiped():
                self.factory_reset()
            await self.until_enrolled()
            if self._rng.random() < self._pace.offline_share:
                self.go_offline(self._pace.interval * self._rng.uniform(*self._pace.offline_intervals))
            self.spawn(self.start_service(heartbeat=True))
            await asyncio.sleep(self._pace.interval * self._rng.uniform(0.9, 1.1))

    async def enroll(self, token: str) -> Response | None:
        extras = {"server_url": "simulated", "admin_key": token, "alias": self.alias}
        if not self.by_qr_code:
            names = ("hmac_primary_key", "hmac_rotation_key")
            extras |= dict(zip(names, self._context.hmac_keys, strict=False))
        return await self.configure(extras)

    async def configure(self, extras: dict[str, str]) -> Response | None:
        """Apply the QR form's fields or the broadcast's extras. Without server_url and admin_key nothing happens.

        With two broadcasts in a row the upload of the FCM token begins after the first registration, with its device
        token, and arrives after the second one.
        """
        if "server_url" not in extras or "admin_key" not in extras:
            return None
        token, alias = extras["admin_key"], extras.get("alias", "Device")
        first = await self._register(token, alias)
        if first is None or not first.is_success:
            return first
        known = self.keep_credentials(first)
        if self.two_broadcasts:
            second = await self._register(token, alias)
            if second is not None and second.is_success:
                self.keep_credentials(second)
        keys = [extras[name] for name in ("hmac_primary_key", "hmac_rotation_key") if extras.get(name)]
        self._inbox.keys = tuple(keys) or self._inbox.keys
        body = {"device_id": known.device_id, "fcm_token": known.fcm_token}
        self.spawn(self.fire_and_forget("/v1/devices/fcm-token", body, "Authorization", known.device_token))
        return first

    async def _register(self, token: str, alias: str) -> Response | None:
        if not self.online:
            return None
        if self.by_qr_code:
            return await self._link.send("POST", f"/v1/register?alias={alias}", b"", {"X-Admin": token})
        body = json.dumps({"alias": alias}).encode()
        return await self._link.send("POST", "/v1/register", body, {"X-Admin-Key": token})

    # --- the service that is started by every heartbeat, ping and wake

    async def report(self) -> None:
        await self.start_service(heartbeat=True)

    async def start_service(self, heartbeat: bool, ping_request_id: str | None = None) -> None:
        """Report the pending installation, regardless of its result; then send a heartbeat and the whole queue."""
        if self.credentials is None:
            return
        await self._installer.report_pending()
        if heartbeat and self.queue_heartbeat(ping_request_id):
            self.outbox.coalesce(COALESCE_SECONDS)
            await self.send_waiting()

    async def send_waiting(self) -> None:
        """Try due items one after the other, each over a new connection. Responses are never closed."""
        async with self._draining:
            for item in self.outbox.all():
                known = self.credentials
                if known is None or not self.online:
                    break
                if item.not_before <= time.monotonic():
                    response = await self._sender.send(item, known)
                    self._settle(item, response)
                    if self.count_refusal(response):
                        self._wipe()
            await self._connections.collect_garbage()

    def go_online(self) -> None:
        super().go_online()
        self.spawn(self.send_waiting())

    def restart(self) -> None:
        self._seen.clear()

    def _settle(self, item: Item, response: Response | None) -> None:
        """Retry after everything that is not 2xx, even 410 and 422, until the outbox drops the item."""
        if response is not None and response.is_success:
            self.outbox.remove(item)
            return
        item.attempts += 1
        self._ledger.retries += 1
        item.not_before = time.monotonic() + pause(item.attempts, self._rng) * self._pace.backoff_scale

    def _wipe(self) -> None:
        self.forget_credentials()
        self._inbox.keys = ()
        self._ledger.wiped += 1

    async def fire_and_forget(
        self, path: str, body: Body, header: str = "X-Device-Token", device_token: str | None = None
    ) -> Response | None:
        """Send it once. Without a network, or if it is rejected, it is lost."""
        known = self.credentials
        if known is None or not self.online:
            return None
        response = await self._connections.post(
            path, json.dumps(body).encode(), device_token or known.device_token, header
        )
        if self.count_refusal(response):
            self._wipe()
        return response

    # --- commands

    def _handle(self, request_id: str, data: dict[str, str]) -> None:
        if request_id in self._seen:
            self._ledger.messages_repeated += 1
            return
        self._seen.add(request_id)
        action = data.get("action", "")
        run = self._ANSWERED.get(action) or self._SILENT.get(action)
        if run:
            self.note(request_id, action)
            run(self, request_id, data)

    def _ping(self, request_id: str, data: dict[str, str]) -> None:
        self.spawn(self.start_service(heartbeat=True, ping_request_id=request_id))

    def _wake(self, request_id: str, data: dict[str, str]) -> None:
        self.spawn(self.start_service(heartbeat=False))

    def _grant_permissions(self, request_id: str, data: dict[str, str]) -> None:
        self.spawn(self.start_service(heartbeat=True))

    def _nothing_to_see(self, request_id: str, data: dict[str, str]) -> None:
        pass

    def _restart(self, request_id: str, data: dict[str, str]) -> None:
        if data["action"] == "reboot":
            self.phone.reboot()
        self.restart()

    def _list_packages(self, request_id: str, data: dict[str, str]) -> None:
        """Send the list to a route that no server ever had."""
        self.spawn(self.fire_and_forget(self._own_path("packages"), {"packages": []}))

    def _remote_control(self, request_id: str, data: dict[str, str]) -> None:
        if data.get("command") == "get_clipboard":
            self.spawn(self.fire_and_forget(self._own_path("clipboard"), {"text": "simulated"}))

    def _exempt_packages(self, request_id: str, data: dict[str, str]) -> None:
        for package in json.loads(data.get("packages", "[]")):
            self._shell(shell.unquoted(package))

    def _launch_app(self, request_id: str, data: dict[str, str]) -> None:
        installed = self.phone.has(data.get("package_name", ""))
        message = "Successfully launched" if installed else "App not installed or no launch intent"
        self._acknowledge(request_id, "LAUNCH_APP_ACK", installed, message)

    def _wifi_connect(self, request_id: str, data: dict[str, str]) -> None:
        """Join the network through a shell: if the shell expands the values, the phone is cut off."""
        words = [shell.quoted(data.get(name, "")) for name in ("ssid", "password")]
        arrived = [self._shell(word) for word in words]
        self._acknowledge(request_id, "WIFI_CONNECT_ACK", True, "Connected")
        if arrived != [data.get("ssid", ""), data.get("password", "")]:
            self.phone.cut_off = True

    def _install(self, request_id: str, data: dict[str, str]) -> None:
        self.ran[request_id].succeeded = None
        self.spawn(self._installer.install(request_id, data))

    def _remote_exec(self, request_id: str, data: dict[str, str]) -> None:
        """Answer at once, and only once."""
        succeeded = data.get("type") != "launch_app" or self.phone.has(data.get("package_name", ""))
        self.finish(request_id, succeeded)
        body = {
            "exec_id": data.get("exec_id", request_id),
            "correlation_id": data.get("correlation_id", request_id),
            "device_id": self.credentials.device_id if self.credentials else "",
            "status": "OK" if succeeded else "FAILED",
            "exit_code": 0 if succeeded else 1,
            "output": "simulated\n",
            "ts": int(self.phone.clock() * 1000),
        }
        self.spawn(self.fire_and_forget("/v1/remote-exec/ack", body))

    def _acknowledge(self, request_id: str, kind: str, succeeded: bool, message: str) -> None:
        """Only queue the answer, which is sent with the next heartbeat."""
        self.finish(request_id, succeeded)
        status = "OK" if succeeded else "ERROR"
        self.queue(ACK, {"correlation_id": request_id, "type": kind, "status": status, "message": message})

    def _shell(self, word: shell.Word) -> str:
        self._ledger.shell_executions += word.executed
        return word.value

    def _own_path(self, what: str) -> str:
        return f"/v1/devices/{self.credentials.device_id if self.credentials else ''}/{what}"

    _Handler = Callable[["FieldDevice", str, dict[str, str]], None]
    _ANSWERED: ClassVar[dict[str, _Handler]] = {
        "ping": _ping,
        "launch_app": _launch_app,
        "wifi_connect": _wifi_connect,
        "install_apk": _install,
        "deploy_update": _install,
        "remote_exec_fcm": _remote_exec,
        "remote_exec_shell": _remote_exec,
    }
    _SILENT: ClassVar[dict[str, _Handler]] = {
        "wake": _wake,
        "ring": _nothing_to_see,
        "reboot": _restart,
        "restart_app": _restart,
        "set_dnd": _nothing_to_see,
        "grant_permissions": _grant_permissions,
        "exempt_unity_app": _nothing_to_see,
        "apply_battery_whitelist": _exempt_packages,
        "list_packages": _list_packages,
        "remote_control": _remote_control,
    }
