"""What a device does with an FCM message: checks it as the agent does, runs it once, reports in the agent's way."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from local.fleet.body import timestamp
from local.fleet.ledger import Ledger

WINDOW_SECONDS = 300
SIGNED_PARAMETERS = {
    "remote_exec_shell": ("command",),
    "remote_exec_fcm": ("duration", "enable", "package_name", "type"),
}
# queue(path, body, header): how a report is sent, with the retries of everything else.
Queue = Callable[..., None]


class Commands:
    """keys: the HMAC keys of the device, primary and rotation; without one nothing is checked, as in the agent."""

    def __init__(
        self,
        queue: Queue,
        ping: Callable[[str], None],
        ledger: Ledger,
        keys: tuple[str, ...] = (),
        install: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        self._queue, self._ping, self._ledger, self._keys, self._install = queue, ping, ledger, keys, install
        self._seen: set[str] = set()

    def receive(self, device_id: str, data: dict[str, str]) -> None:
        request_id = data.get("request_id", "")
        self._ledger.messages += 1
        if not self._genuine(device_id, data):
            self._ledger.messages_refused += 1
        elif request_id in self._seen:
            self._ledger.messages_repeated += 1
        else:
            self._seen.add(request_id)
            self._ledger.ran[(device_id, request_id)] += 1
            self._run(device_id, request_id, data)

    def _genuine(self, device_id: str, data: dict[str, str]) -> bool:
        """The agent looks at the time only when it has a key, and hashes its own id, not the message's."""
        if not self._keys:
            return True
        try:
            sent = datetime.fromisoformat(data.get("ts", "")).timestamp()
        except ValueError:
            return False
        signed = signature_text(device_id, data).encode()
        expected = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in self._keys]
        given = data.get("hmac", "")
        return abs(time.time() - sent) <= WINDOW_SECONDS and any(hmac.compare_digest(given, e) for e in expected)

    def _run(self, device_id: str, request_id: str, data: dict[str, str]) -> None:
        action = data.get("action", "")
        match action:
            case "ping":
                self._ping(request_id)
            case "ring":
                self._acknowledge(device_id, request_id, "RING_STARTED")
                seconds = float(data.get("duration", "30"))
                stopped = ("RING_STOPPED", f"rang for {seconds:.0f} s")
                asyncio.get_running_loop().call_later(seconds, self._acknowledge, device_id, request_id, *stopped)
            case "launch_app":
                self._acknowledge(device_id, request_id, "LAUNCH_APP_ACK", "launched")
            case "wifi_connect":
                self._acknowledge(device_id, request_id, "WIFI_CONNECT_ACK", "connected")
            case "install_apk" if self._install:
                self._install(data)
            case "remote_exec_shell" | "remote_exec_fcm":
                self._report_execution(device_id, request_id, data)
            case _:
                self._report_result(device_id, request_id, action)

    def _acknowledge(self, device_id: str, request_id: str, kind: str, message: str | None = None) -> None:
        body: dict[str, Any] = {"correlation_id": request_id, "type": kind, "status": "OK"}
        self._queue(f"/v1/devices/{device_id}/ack", {**body, "message": message} if message else body)

    def _report_result(self, device_id: str, request_id: str, action: str) -> None:
        body = {
            "request_id": request_id,
            "device_id": device_id,
            "action": action,
            "outcome": "success",
            "message": "done by the simulated device",
            "finished_at": timestamp(time.time()),
        }
        self._queue("/v1/action-result", body)

    def _report_execution(self, device_id: str, request_id: str, data: dict[str, str]) -> None:
        body = {
            "exec_id": data.get("exec_id", request_id),
            "correlation_id": data.get("correlation_id", request_id),
            "device_id": device_id,
            "status": "OK",
            "exit_code": 0,
            "output": "simulated\n",
            "ts": int(time.time() * 1000),
        }
        self._queue("/v1/remote-exec/ack", body, header="X-Device-Token")


def signature_text(device_id: str, data: dict[str, str]) -> str:
    """request_id|device_id|action|ts, and `|key:value` for each signed parameter that is not empty, sorted by key."""
    action = data.get("action", "")
    parameters = [f"|{name}:{data[name]}" for name in SIGNED_PARAMETERS.get(action, ()) if data.get(name)]
    return f"{data.get('request_id', '')}|{device_id}|{action}|{data.get('ts', '')}" + "".join(parameters)
