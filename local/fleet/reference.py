"""An agent that follows docs/device.md exactly.

It stores the request_ids of commands persistently, runs commands listed in `pending_commands`, drains its queue in
batches, follows `next_heartbeat_seconds` and `Retry-After`, repeats each report until it is accepted, and does not
repeat rejected ones.
"""

import asyncio
import contextlib
import json
import time
from typing import ClassVar, Literal

from local.fleet import downloads
from local.fleet.device import Context, Device
from local.fleet.link import Link, Response
from local.fleet.outbox import Item, pause
from local.fleet.phone import timestamp
from local.fleet.sender import Sender
from local.fleet.storage import Body, Command, Report

MOST_IN_A_BATCH = 500
INSTALLATION = "/v1/apk/installation/update"
REFUSED_FOR_GOOD = (400, 403, 404, 422)
LATER = (429, 503)


class ReferenceDevice(Device):
    """A phone with the reference agent.

    Attributes:
        next_heartbeat_seconds: what the server announced last.
        deleted: an operator deleted the device; it waits to be enrolled.
    """

    profile: ClassVar[str] = "reference"

    def __init__(self, alias: str, link: Link, context: Context) -> None:
        super().__init__(alias, link, context)
        self._sender = Sender(link, self._ledger, self._pace.duplicate_share, self._rng)
        self._something_to_send = asyncio.Event()
        self._batch = MOST_IN_A_BATCH
        self.next_heartbeat_seconds: float | None = None
        self.deleted = False

    # --- lifecycle

    async def run(self) -> None:
        self.report_interrupted()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_heartbeats())
            tasks.create_task(self._send())

    async def enroll(self, token: str) -> Response | None:
        if not self.online:
            return None
        body = json.dumps({"alias": self.alias, "hardware_id": f"hardware-of-{self.alias}"}).encode()
        response = await self._link.send("POST", "/v1/register", body, {"Authorization": f"Bearer {token}"})
        if response is not None and response.is_success:
            known = self.keep_credentials(response)
            self.deleted = False
            self.queue("/v1/devices/fcm-token", {"device_id": known.device_id, "fcm_token": known.fcm_token})
        return response

    async def report(self) -> None:
        self.queue_heartbeat()
        await self.send_waiting()

    async def send_waiting(self) -> None:
        while self.credentials and self.online and await self._send_next():
            pass

    def restart(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.report_interrupted()
        self._something_to_send.set()

    async def _take_heartbeats(self) -> None:
        pace = self._pace
        await asyncio.sleep(self._rng.uniform(0, pace.interval))
        while True:
            if self.odd and self.odd.is_wiped():
                self.factory_reset()
            if self._rng.random() < pace.offline_share:
                self.go_offline(pace.interval * self._rng.uniform(*pace.offline_intervals))
            self.queue_heartbeat()
            announced = self.next_heartbeat_seconds
            seconds = pace.interval if announced is None else announced * pace.announced_scale
            await asyncio.sleep(seconds * self._rng.uniform(0.9, 1.1))

    async def _send(self) -> None:
        while True:
            await self._online.wait()
            await self.until_enrolled()
            if not await self._send_next():
                await self._wait_for_something()

    # --- sending

    def queue(self, path: str, body: Body, header: str = "Authorization", taken_at: float | None = None) -> Item:
        item = super().queue(path, body, header, taken_at)
        self._something_to_send.set()
        return item

    def go_online(self) -> None:
        super().go_online()
        self._something_to_send.set()

    async def _wait_for_something(self) -> None:
        self._something_to_send.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.outbox.next_due()):
                await self._something_to_send.wait()

    async def _send_next(self) -> bool:
        """Try due items; False if there are none. Several heartbeats are sent as one batch."""
        known = self.credentials
        batch = self.outbox.due_heartbeats(self._batch)
        if known is None or not self.online:
            return False
        if len(batch) > 1:
            response = await self._sender.send_batch(batch, known)
        elif item := self.outbox.due():
            batch, response = [item], await self._sender.send(item, known)
        else:
            return False
        self._settle(batch, response)
        return True

    def _settle(self, items: list[Item], response: Response | None) -> None:
        """Drop items that were accepted or rejected permanently; the rest wait as required by the server and the
        backoff."""
        status = response.status if response else None
        if response is not None and response.is_success:
            self._heed(response)
        elif status == 410:
            self.deleted = True
            self.outbox.clear()
            self.forget_credentials()
            return
        elif status == 413 and len(items) > 1:
            self._batch = max(1, len(items) // 2)
            return
        elif status not in (*REFUSED_FOR_GOOD, 413):
            self._wait(items, response.retry_after if response and status in LATER else 0.0)
            if self.count_refusal(response):
                self.forget_credentials()
                self._ledger.wiped += 1
            return
        for item in items:
            self.outbox.remove(item)
        self._refusals = 0

    def _wait(self, items: list[Item], at_least: float) -> None:
        for item in items:
            item.attempts += 1
            self._ledger.retries += 1
            seconds = at_least + pause(item.attempts, self._rng)
            item.not_before = time.monotonic() + seconds * self._pace.backoff_scale

    def _heed(self, response: Response) -> None:
        answer = response.json()
        self.next_heartbeat_seconds = answer.get("next_heartbeat_seconds", self.next_heartbeat_seconds)
        for data in answer.get("pending_commands") or ():
            self.receive(data)

    # --- commands

    def _handle(self, request_id: str, data: dict[str, str]) -> None:
        """Store the request_id, then run the command. A stored one is not run again."""
        if request_id in self.stored.commands:
            self._ledger.messages_repeated += 1
            self._report_again(request_id)
            return
        self.stored.commands[request_id] = Command(data)
        self.save()
        self._run(request_id, data)

    def _run(self, request_id: str, data: dict[str, str]) -> None:
        action = data.get("action", "")
        self.note(request_id, action, action != "install_apk")
        match action:
            case "ping":
                self._finish(request_id, ["ping"])
            case "ring":
                self._finish(request_id, [self._ack(request_id, "RING_STARTED"), self._ack(request_id, "RING_STOPPED")])
            case "launch_app":
                succeeded = self.phone.has(data.get("package_name", ""))
                self.finish(request_id, succeeded)
                self._finish(request_id, [self._ack(request_id, "LAUNCH_APP_ACK", succeeded)])
            case "wifi_connect":
                self._finish(request_id, [self._ack(request_id, "WIFI_CONNECT_ACK")])
            case "remote_exec_shell" | "remote_exec_fcm":
                self._finish(request_id, [self._execution(request_id, data)])
            case "install_apk":
                self.spawn(self._install(request_id, data))
            case _:
                if action == "reboot":
                    self.phone.reboot()
                self._finish(request_id, [self._result(request_id, action, succeeded=True)])

    def report_interrupted(self) -> None:
        """After a restart: commands that were stored but not finished may or may not have run, and are not run
        again."""
        for request_id, command in self.stored.commands.items():
            if command.reports is None and self.credentials:
                action = command.data.get("action", "")
                if request_id in self.ran:
                    self.finish(request_id, succeeded=False)
                self._finish(request_id, [self._failure(request_id, action, command.data)])

    def _finish(self, request_id: str, reports: list[Report | Literal["ping"]]) -> None:
        """Store a report, and send it until it is accepted."""
        self.stored.commands[request_id].reports = reports
        self.save()
        self._report_again(request_id)

    def _report_again(self, request_id: str) -> None:
        waiting = {item.content for item in self.outbox.all()}
        for report in self.stored.commands[request_id].reports or ():
            if report == "ping":
                if not any(f'"{request_id}"'.encode() in content for content in waiting):
                    self.queue_heartbeat(request_id)
            elif json.dumps(report.body).encode() not in waiting:
                self.queue(report.path, report.body, report.header)

    async def _install(self, request_id: str, data: dict[str, str]) -> None:
        number, known = int(data["installation_id"]), self.credentials
        if known is None:
            return
        self._report_installation(number, "downloading", download_progress=0)
        try:
            await downloads.in_ranges(
                self._link,
                self._ledger,
                known.device_token,
                data,
                lambda: self._report_installation(number, "downloading", download_progress=50),
            )
            self._report_installation(number, "installing")
            self.phone.install(data["package_name"], int(data["version_code"]), data["version_name"])
        except (downloads.DownloadError, ValueError) as error:
            self._ledger.installations_failed += 1
            self.finish(request_id, succeeded=False)
            self._finish(request_id, [self._installation(number, "failed", error_message=str(error)[:200])])
            return
        self._ledger.installed += 1
        self.finish(request_id, succeeded=True)
        self._finish(request_id, [self._installation(number, "completed", download_progress=100)])

    def _report_installation(self, number: int, status: str, **more: object) -> None:
        report = self._installation(number, status, **more)
        self.queue(report.path, report.body, report.header)

    # --- reports

    def _ack(self, request_id: str, kind: str, succeeded: bool = True) -> Report:
        body = {"request_id": request_id, "type": kind, "status": "OK" if succeeded else "ERROR"}
        device_id = self.credentials.device_id if self.credentials else ""
        return Report(f"/v1/devices/{device_id}/ack", body, "Authorization")

    def _result(self, request_id: str, action: str, succeeded: bool, message: str = "") -> Report:
        body = {
            "request_id": request_id,
            "action": action,
            "outcome": "success" if succeeded else "failed",
            "message": message or "done by the simulated device",
            "finished_at": timestamp(self.phone.clock()),
        }
        return Report("/v1/action-result", body, "Authorization")

    def _execution(self, request_id: str, data: dict[str, str], succeeded: bool = True) -> Report:
        body = {
            "exec_id": data.get("exec_id", request_id),
            "correlation_id": data.get("correlation_id", request_id),
            "device_id": self.credentials.device_id if self.credentials else "",
            "status": "OK" if succeeded else "FAILED",
            "exit_code": 0 if succeeded else 1,
            "output": "simulated\n",
            "ts": int(self.phone.clock() * 1000),
        }
        return Report("/v1/remote-exec/ack", body, "X-Device-Token")

    def _installation(self, number: int, status: str, **more: object) -> Report:
        body = {"installation_id": number, "status": status, **more}
        return Report(INSTALLATION, body, "X-Device-Token")

    def _failure(self, request_id: str, action: str, data: dict[str, str]) -> Report:
        """The report on a command that a restart interrupted, by the route for its action."""
        match action:
            case "install_apk":
                number = int(data["installation_id"])
                return self._installation(number, "failed", error_message="the agent was restarted")
            case "remote_exec_shell" | "remote_exec_fcm":
                return self._execution(request_id, data, succeeded=False)
            case "launch_app":
                return self._ack(request_id, "LAUNCH_APP_ACK", succeeded=False)
            case "wifi_connect":
                return self._ack(request_id, "WIFI_CONNECT_ACK", succeeded=False)
            case _:
                return self._result(request_id, action, succeeded=False, message="the agent was restarted")
