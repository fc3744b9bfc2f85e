"""A stack for tests of the command: the gateway on a socket, PostgreSQL, S3, a fake FCM, and phones that answer.

with running(server, template) as stack:
    phone = stack.enroll("lobby")          # FCM reaches it, and it answers commands
    phone.answer = None                   # from now on it does not answer
"""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from local import s3
from local.fcm import FakeFcm
from local.fcm import running as fcm_running
from local.fcm.account import service_account
from local.fcm.fake import Delivery
from local.gateway.signature import KeyPair
from local.operator_api import signed
from tests.support.api import ROOT
from tests.support.databases import url_of
from tests.support.postgres import run_sql

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHESUITE", "AWS_SECRET_ACCESS_KEY": "secret-of-the-suite"}
BUCKET = "nexmdm-cli-apks"


class Phone:
    """`answer` is the outcome that it reports for commands; None means that it does not answer."""

    def __init__(self, http: httpx.Client, alias: str, device_id: str, token: str) -> None:
        self.alias, self.device_id, self.answer = alias, device_id, "success"
        self.address = f"fcm:{quote(alias)}"
        self._http, self._headers = http, {"Authorization": f"Bearer {token}"}
        self.report("/v1/devices/fcm-token", {"fcm_token": self.address})

    def heartbeat(self, **fields: Any) -> None:
        self.report("/v1/heartbeat", fields)

    def report(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(path, json=body, headers=self._headers).raise_for_status()

    def receive(self, data: dict[str, str]) -> None:
        if self.answer is not None:
            result = {"request_id": data["request_id"], "action": data["action"], "outcome": self.answer}
            self.report("/v1/action-result", {**result, "finished_at": data["ts"]})


class Stack:
    """`database` is the URL of its database, for rows that no route can create."""

    def __init__(self, url: str, fake_fcm: FakeFcm, database: str) -> None:
        self.url, self.fake_fcm, self.database = url, fake_fcm, database
        self._http = httpx.Client(base_url=url, timeout=35)
        self._auth = signed(KeyPair(*KEYS.values()))
        self._phones: dict[str, Phone] = {}
        self._answering = ThreadPoolExecutor(4)
        fake_fcm.on_delivery = self._deliver

    def enroll(self, alias: str) -> Phone:
        made = self._http.post("/v1/enroll-tokens", json={"aliases": [alias]}, auth=self._auth).raise_for_status()
        token = made.json()["items"][0]["token"]
        answer = self._http.post("/v1/register", json={"alias": alias}, headers={"X-Admin-Key": token})
        phone = Phone(self._http, alias, *(answer.raise_for_status().json()[n] for n in ("device_id", "device_token")))
        self._phones[phone.address] = phone
        return phone

    def close(self) -> None:
        self._answering.shutdown()
        self._http.close()

    def _deliver(self, delivery: Delivery) -> None:
        """Deliver a message. The fake calls this in its event loop, which must not wait for the response."""
        if phone := self._phones.get(delivery.token):
            self._answering.submit(phone.receive, delivery.data)


@contextmanager
def running(server: str, template: str) -> Iterator[Stack]:
    name = f"cli_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    fake_fcm = FakeFcm()
    with ExitStack() as started:
        started.callback(run_sql, server, f"DROP DATABASE {name} WITH (FORCE)")
        store, fcm = started.enter_context(s3.running()), started.enter_context(fcm_running(fake_fcm))
        s3.make_bucket(store, BUCKET)
        variables = {
            **KEYS,
            "AWS_REGION": s3.REGION,
            "AWS_ENDPOINT_URL_S3": store,
            "APK_BUCKET": BUCKET,
            "DATABASE_URL": url_of(server, name),
            "FCM_ENDPOINT": fcm,
            "FCM_SERVICE_ACCOUNT": service_account(fcm),
            "FCM_TIMEOUT_SECONDS": "1",
        }
        # stderr is discarded: the log output of the functions does not concern these tests.
        often = ["--every", "fcm_dispatch=0.3", "--every", "watch=0.5"]
        gateway = subprocess.Popen(
            [sys.executable, "-m", "local.gateway", "--port", "0", *often, "--log", os.devnull],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.callback(gateway.stdout.close)
        started.callback(gateway.wait, 10)
        started.callback(gateway.terminate)
        stack = Stack(re.search(r"http://\S+", gateway.stdout.readline())[0], fake_fcm, url_of(server, name))
        started.callback(stack.close)
        yield stack
