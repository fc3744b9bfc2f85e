"""How the existing agent installs a build and reports about it."""

from collections.abc import Awaitable, Callable

from local.fleet import downloads
from local.fleet.device import Device
from local.fleet.ledger import Ledger
from local.fleet.link import FieldLink, Response
from local.fleet.phone import AGENT
from local.fleet.storage import Body

Send = Callable[[str, Body], Awaitable[Response | None]]
REPORT = "/v1/apk/installation/update"


class FieldInstaller:
    """Records the installation before the download. The next start of the service reports it as completed, even in the
    middle of the download or before a rejected installation, until one such report is accepted. A lost report is not
    repeated.

    Args:
        send: sends a report once.
    """

    def __init__(self, device: Device, link: FieldLink, ledger: Ledger, send: Send) -> None:
        self._device, self._link, self._ledger, self._send = device, link, ledger, send

    async def report_pending(self) -> None:
        stored = self._device.stored
        if stored.pending_installation is not None:
            reported = await self._report(stored.pending_installation, "completed", 100)
            if reported:
                self._note(None)

    async def install(self, request_id: str, data: dict[str, str]) -> None:
        """data: of an install_apk message."""
        number, phone, known = int(data["installation_id"]), self._device.phone, self._device.credentials
        if known is None:
            return
        if not phone.is_device_owner:
            await self._fail(request_id, data, "Not enrolled as Device Owner", 0)
            return
        self._note(number)
        await self._report(number, "downloading", 0)
        try:
            await downloads.by_redirect(self._link, self._ledger, known.device_token, data)
        except downloads.DownloadError as error:
            await self._fail(request_id, data, str(error), 0)
            return
        await self._report(number, "downloading", 100)
        await self._report(number, "installing", 100)
        try:
            phone.install(data["package_name"], int(data["version_code"]), data["version_name"])
        except ValueError as error:
            await self._fail(request_id, data, str(error), 100)
            return
        self._device.finish(request_id, True)
        self._ledger.installed += 1
        if data["package_name"] == AGENT:
            self._device.restart()  # the new version's process starts and reports what is pending
        else:
            await self._report(number, "completed", 100)

    async def _fail(self, request_id: str, data: dict[str, str], message: str, progress: int) -> None:
        self._device.finish(request_id, False)
        self._ledger.installations_failed += 1
        await self._report(int(data["installation_id"]), "failed", progress, message)

    async def _report(self, number: int, status: str, progress: int, message: str | None = None) -> bool:
        body = {"installation_id": number, "status": status, "download_progress": progress}
        if message:
            body["error_message"] = message
        response = await self._send(REPORT, body)
        return response is not None and response.is_success

    def _note(self, number: int | None) -> None:
        self._device.stored.pending_installation = number
        self._device.save()
