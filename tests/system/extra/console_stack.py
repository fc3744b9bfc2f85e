"""The system behind the console in these tests: gateway, PostgreSQL, fake FCM, S3 and simulated devices."""

import asyncio
import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
from botocore.credentials import Credentials
from nexmdm_cli.signing import Signed

from local import s3
from local.fcm import FakeFcm, running
from local.fcm.account import service_account
from local.fleet.fleet import Fleet
from local.fleet.pace import Pace
from tests.cli.console_stack import KEYS, Console, console
from tests.local.processes import listening
from tests.support.builds import SIGNERS, declaration, sample
from tests.support.databases import url_of
from tests.support.postgres import run_sql

BUCKET = "nexmdm-test-apks"
# Every heartbeat arrives quickly, because these tests are about the page.
# The server announces 600 seconds, but an installation counts only after a heartbeat that reports the new version.
PACE = Pace(interval=1.0, announced_scale=1 / 600, backoff_scale=0.1, duplicate_share=0, offline_share=0)


class Stack(NamedTuple):
    """database_url, api: of the system. console: in front of it. double: the fake FCM."""

    database_url: str
    api: httpx.Client
    console: Console
    fake_fcm: FakeFcm

    @property
    def address(self) -> str:
        return self.console.file.as_uri()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API as an operator does at a terminal."""
        answer = self.api.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def register(self, alias: str) -> tuple[str, str]:
        """Register a new device that has not called yet; return its id and its token."""
        made = self.call("POST", "/v1/enroll-tokens", {"aliases": [alias]})
        headers = {"X-Admin-Key": made["items"][0]["token"]}
        answer = self.api.post("/v1/register", json={"alias": alias}, headers=headers, auth=None)
        return answer.json()["device_id"], answer.json()["device_token"]

    def publish(self, version: int) -> int:
        """Publish a build of the agent; return its id."""
        content = sample(f"agent-{version}")
        self.call("PUT", "/v1/apk/packages/com.nexmdm/signers", {"fingerprints": [SIGNERS["rsa"]]})
        declared = self.call("POST", "/v1/apk/builds", declaration(content, version))
        if declared["upload_url"]:  # a published build has none
            httpx.put(declared["upload_url"], content=content, headers=declared["upload_headers"]).raise_for_status()
        return self.call("POST", f"/v1/apk/builds/{declared['build_id']}/complete")["build_id"]


@contextlib.contextmanager
def stack(server: str, template: str) -> Iterator[Stack]:
    name = f"console_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    database_url, fake_fcm = url_of(server, name), FakeFcm()
    with s3.running() as bucket, running(fake_fcm) as fcm:
        httpx.post(
            f"{bucket}/moto-api/reset"
        ).raise_for_status()  # moto keeps what earlier tests of this process stored
        s3.make_bucket(bucket, BUCKET)
        variables = {
            **KEYS,
            "DATABASE_URL": database_url,
            "FCM_ENDPOINT": fcm,
            "FCM_SERVICE_ACCOUNT": service_account(fcm),
            "APK_BUCKET": BUCKET,
            "AWS_ENDPOINT_URL_S3": bucket,
            "AWS_REGION": s3.REGION,
        }
        arguments = ("-m", "local.gateway", "--port", "0", "--every", "fcm_dispatch=1", "--log", os.devnull)
        with listening(*arguments, env={**os.environ, **variables}) as (_, url), console(url) as started:
            auth = Signed(Credentials(*KEYS.values()), s3.REGION)
            with httpx.Client(base_url=url, auth=auth, timeout=35) as api:
                yield Stack(database_url, api, started, fake_fcm)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def devices(stack: Stack, tokens: dict[str, str], server_url: str) -> Iterator[Fleet]:
    """Simulate devices with these enrollment tokens, {alias: token}: they report, and run the commands of FCM."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def tokens_for(aliases: list[str]) -> dict[str, str]:
        return {alias: tokens[alias] for alias in aliases}

    async def make() -> Fleet:
        return Fleet(server_url, len(tokens), tokens_for, PACE)

    fleet = asyncio.run_coroutine_threadsafe(make(), loop).result()
    living = asyncio.run_coroutine_threadsafe(fleet.run(), loop)
    stack.fake_fcm.on_delivery = lambda got: loop.call_soon_threadsafe(fleet.deliver, got.token, got.data)
    try:
        yield fleet
    finally:
        stack.fake_fcm.on_delivery = None
        living.cancel()
        asyncio.run_coroutine_threadsafe(fleet.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def many(stack: Stack, count: int) -> None:
    """Add devices as `count` registrations and heartbeats would have left them."""
    run_sql(stack.database_url, _DEVICES.format(count=count), _STATUSES)


_DEVICES = """
INSERT INTO devices (id, alias, token_id, model, manufacturer, android_version)
SELECT gen_random_uuid()::text, 'many-' || lpad(n::text, 5, '0'), 'many ' || n, 'SM-T225', 'samsung', '13'
FROM generate_series(1, {count}) AS n
"""
_STATUSES = """
INSERT INTO device_last_status (device_id, last_ts, last_seen_at, status, battery_pct, temp_c, network_type,
    unity_running, agent_version)
SELECT id, clock_timestamp(), clock_timestamp(), 'ok', 5 + right(alias, 2)::integer % 95, 30.5, 'wifi',
    right(alias, 2) <> '07', '2.4.' || right(alias, 1)
FROM devices WHERE alias LIKE 'many-%'
"""
