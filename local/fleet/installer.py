"""How a device installs a build: fetches it in two ranges, as over a network that broke once, and says how it goes."""

from collections.abc import Callable
from hashlib import sha256

import httpx

from local.fleet.ledger import Ledger

REPORT = "/v1/apk/installation/update"


class Installer:
    """queue(path, body, header): how a report is sent."""

    def __init__(self, http: httpx.AsyncClient, queue: Callable[..., None], ledger: Ledger) -> None:
        self._http, self._queue, self._ledger = http, queue, ledger

    async def install(self, device_token: str, data: dict[str, str]) -> None:
        """data: of an install_apk message."""
        installation_id = int(data["installation_id"])
        self._report(installation_id, "downloading", download_progress=0)
        try:
            await self._fetch(device_token, data, installation_id)
        except (httpx.HTTPError, ValueError) as error:
            self._ledger.installations_failed += 1
            self._report(installation_id, "failed", error_message=str(error)[:200])
            return
        self._report(installation_id, "installing")
        self._report(installation_id, "completed", download_progress=100)
        self._ledger.installed += 1

    async def _fetch(self, device_token: str, data: dict[str, str], installation_id: int) -> None:
        answer = await self._http.get(data["download_url"], headers={"X-Device-Token": device_token})
        if answer.status_code != 302:
            raise ValueError(f"the download was answered {answer.status_code}")
        size, address = int(data["file_size"]), answer.headers["location"]
        first = await self._range(address, f"bytes=0-{size // 2 - 1}")
        self._report(installation_id, "downloading", download_progress=50)
        rest = await self._range(address, f"bytes={size // 2}-")
        if sha256(first + rest).hexdigest() != answer.headers["x-apk-sha256"]:
            self._ledger.corrupt += 1
            raise ValueError("the bytes are not those of the build")

    async def _range(self, address: str, wanted: str) -> bytes:
        answer = await self._http.get(address, headers={"Range": wanted})
        if answer.status_code != 206:
            raise ValueError(f"{wanted} was answered {answer.status_code}")
        return answer.content

    def _report(self, installation_id: int, status: str, **more: object) -> None:
        self._queue(REPORT, {"installation_id": installation_id, "status": status, **more}, header="X-Device-Token")
