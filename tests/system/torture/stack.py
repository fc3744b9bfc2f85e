"""The whole system under attack: a gateway process, a fake FCM, and a relay in front of PostgreSQL."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from local.fcm import FakeFcm, running
from local.fcm.account import service_account
from local.gateway.signature import KeyPair
from local.operator_api import signed
from tests.local.processes import listening
from tests.support.api import ROOT
from tests.support.fcm import HMAC_KEY
from tests.support.relay import Relay, relay

KEYS = KeyPair("AKIAOFTHESUITE", "a/secret+of=the+suite")
BUCKET_SECONDS = 1


@dataclass
class Stack:
    """database: its own URL; the functions use that of `line`. environments: processes per function. log: the output of
    the functions. errors: the gateway's own output."""

    url: str
    database: str
    line: Relay
    fake_fcm: FakeFcm
    environments: int
    log: Path
    errors: Path
    process: psutil.Process

    def environment_processes(self) -> set[int]:
        return {child.pid for child in self.process.children(recursive=True)}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=40)

    def operator(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=40, auth=signed(KEYS))


@contextmanager
def standing(database: str, environments: int = 2, *arguments: str, **variables: str) -> Iterator[Stack]:
    """A stack in front of a database at the latest revision; `arguments` are the gateway's."""
    fake_fcm = FakeFcm()
    with running(fake_fcm) as fcm, relay(database) as line, tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder) / "functions.log", Path(folder) / "gateway.log"
        options = ["--port", "0", "--environments", str(environments), "--log", str(log), *arguments]
        environment = {**os.environ, **_environment(line, fcm), **variables}
        with (
            errors.open("wb") as stderr,
            listening("-m", "local.gateway", *options, cwd=ROOT, env=environment, stderr=stderr) as (process, url),
        ):
            yield Stack(url, database, line, fake_fcm, environments, log, errors, psutil.Process(process.pid))
        line.close()


def _environment(line: Relay, fcm: str) -> dict[str, Any]:
    return {
        "DATABASE_URL": line.url,
        "AWS_ACCESS_KEY_ID": KEYS.key_id,
        "AWS_SECRET_ACCESS_KEY": KEYS.secret,
        "FCM_ENDPOINT": fcm,
        "FCM_SERVICE_ACCOUNT": service_account(fcm),
        "FCM_TIMEOUT_SECONDS": "1",
        "COMMAND_HMAC_KEY": HMAC_KEY,
        "HEARTBEAT_BUCKET_SECONDS": str(BUCKET_SECONDS),
        "SSL_CERT_FILE": "",  # saves firebase-admin a quarter of a second
        "SSL_CERT_DIR": os.devnull,
    }
