"""Simulated releases: builds of the agent are published, rolled out to a tenth of the fleet, then to all, rolled back.

The builds are the signed samples of `tests/apks`. The local S3 is empty at each start, so builds that an earlier run
published are withdrawn first.
"""

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import httpx
import psycopg2
from nexmdm_cli.api import Body
from nexmdm_cli.resources import Build, DeclaredBuild, InstallingBuild, read

from local.operator_api import Operator
from local.postgres.embedded import ROOT

BUCKET = "nexmdm-local-apks"
SAMPLES = ROOT / "tests" / "apks"
PACKAGE = "com.nexmdm"


class Releases:
    """every: seconds between steps. tell: called with a line for each step."""

    def __init__(self, operator: Operator, every: float, tell: Callable[[str], None]) -> None:
        self._operator, self._every, self._tell = operator, every, tell
        self._signer = json.loads((SAMPLES / "fingerprints.json").read_text())["rsa"]

    async def run(self) -> None:
        """Run until cancelled. A step without a response is tried again, because every step is safe to repeat.

        A user of the stack may publish and promote builds too; if a step is then rejected, the simulated releases end,
        not the run.
        """
        try:
            await self._show()
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (409, 422):
                raise
            self._tell(f"the simulated releases end: {error.response.json()['detail']}")
        await asyncio.Event().wait()

    async def _show(self) -> None:
        first = await self.publish(1)
        await self.step(first, "promote", staged_rollout_percent=100)
        await self.step(first, "rollout", staged_rollout_percent=100, install=True)
        second = await self.publish(2)
        await self.step(second, "promote", staged_rollout_percent=0)
        await self.step(second, "rollout", staged_rollout_percent=10, install=True)
        await self.step(second, "rollout", staged_rollout_percent=100, install=True)
        await self.step(second, "rollback", reason="the end of the simulated release")

    async def publish(self, version: int) -> int:
        content = (SAMPLES / f"agent-{version}.apk").read_bytes()
        declaration = {
            "package_name": PACKAGE,
            "version_name": f"{version}.0",
            "version_code": version,
            "build_type": "release",
            "file_size": len(content),
            "sha256": sha256(content).hexdigest(),
            "signer_fingerprint": self._signer,
            "ci_run_id": "make-run",
        }
        declared = read(DeclaredBuild, await self._until_answered("/v1/apk/builds", declaration))
        if declared.state == "declared" and declared.upload_url:
            async with httpx.AsyncClient() as http:
                uploaded = await http.put(declared.upload_url, content=content, headers=declared.upload_headers)
                uploaded.raise_for_status()
        build = read(Build, await self._until_answered(f"/v1/apk/builds/{declared.build_id}/complete", None))
        self._tell(f"agent {build.version_name} is {build.state}: {build.file_size} bytes, signer verified")
        return build.build_id

    async def step(self, build_id: int, what: str, **body: Any) -> None:
        await asyncio.sleep(self._every)
        build = read(InstallingBuild, await self._until_answered(f"/v1/apk/builds/{build_id}/{what}", body))
        asked = f", {build.install.device_count} devices asked to install" if build.install else ""
        percent = f" {build.staged_rollout_percent} %" if what != "rollback" else ""
        self._tell(f"agent {build.version_name}: {what}{percent}{asked}")

    async def _until_answered(self, path: str, body: Body | None) -> object:
        while True:
            try:
                return await self._operator.call("POST", path, body)
            except httpx.TransportError:
                await asyncio.sleep(1)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 503:
                    raise
                await asyncio.sleep(1)


def withdraw_earlier(database_url: str) -> None:
    """Withdraw builds of earlier runs, whose files no longer exist, so that their versions can be declared again."""
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(_WITHDRAW, {"bucket": f"s3://{BUCKET}/%"})
    finally:
        connection.close()


_WITHDRAW = """
UPDATE apk_versions SET state = 'withdrawn', object_version = NULL, is_current = false,
    audit = audit || jsonb_build_object('event', 'withdraw', 'by', 'local.run', 'at', clock_timestamp())
WHERE storage_url LIKE %(bucket)s AND state IN ('declared', 'awaiting_signer', 'published')
"""
