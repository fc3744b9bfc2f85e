"""A stack as a device and an operator use it, over HTTP only: STACK_URL, or a gateway of its own (`make e2e`).

The operator signs with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (`eval "$(aws configure
export-credentials --format env)"`), in AWS_REGION. The enrolled device is deleted afterwards; nothing else changes.
"""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.fcm import FakeFcm, running
from local.fcm.account import service_account
from tests.support.api import ROOT

LOCAL_KEY = {"AWS_ACCESS_KEY_ID": "AKIAOFTHESUITE", "AWS_SECRET_ACCESS_KEY": "secret-of-the-suite"}


@pytest.fixture(scope="module")
def stack(server: str, template: str) -> Iterator[str]:
    """STACK_URL, or a gateway of this test's own with a fake FCM."""
    given = os.environ.get("STACK_URL")
    if given:
        yield given.rstrip("/")
        return
    from tests.support.databases import url_of
    from tests.support.postgres import run_sql

    name = f"e2e_{uuid.uuid4().hex[:12]}"
    run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    fake_fcm = FakeFcm()
    with running(fake_fcm) as fcm:
        variables = {
            **LOCAL_KEY,
            "DATABASE_URL": url_of(server, name),
            "FCM_ENDPOINT": fcm,
            "FCM_SERVICE_ACCOUNT": service_account(fcm),
        }
        gateway = subprocess.Popen(
            [sys.executable, "-m", "local.gateway", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield re.search(r"http://\S+", gateway.stdout.readline())[0]
        finally:
            gateway.terminate()
            gateway.wait(10)
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def http(stack: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack, timeout=35) as client:
        yield client


@pytest.fixture(scope="module")
def operator(http: httpx.Client):
    """operator("POST", "/v1/...", body) makes a signed call."""
    own = {**LOCAL_KEY, **({} if not os.environ.get("STACK_URL") else os.environ)}
    credentials = Credentials(own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"], own.get("AWS_SESSION_TOKEN"))

    def call(method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        content = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method, str(http.base_url.join(path)), data=content)
        request.headers["Content-Type"] = "application/json"
        for name, value in headers.items():
            request.headers[name.replace("_", "-")] = value
        SigV4Auth(credentials, "execute-api", os.environ.get("AWS_REGION", "eu-west-1")).add_auth(request)
        return awake(lambda: http.request(method, path, content=content, headers=dict(request.headers)))

    return call


def awake(send) -> httpx.Response:
    """Retry while a paused database resumes, during which the stack answers 503 with Retry-After."""
    for _ in range(12):
        answer = send()
        if answer.status_code != 503:
            break
        time.sleep(float(answer.headers.get("retry-after", 5)))
    return answer


@pytest.fixture(scope="module")
def device(http, operator) -> Iterator[dict[str, str]]:
    """A device enrolled in the usual way: {device_id, device_token}."""
    alias = f"e2e-{uuid.uuid4().hex[:8]}"
    made = operator("POST", "/v1/enroll-tokens", {"aliases": [alias], "expires_in_sec": 300})
    assert made.status_code == 201, made.text
    token = made.json()["items"][0]["token"]
    registered = http.post("/v1/register", json={"alias": alias}, headers={"X-Admin-Key": token})
    assert registered.status_code == 200, registered.text
    again = http.post("/v1/register", json={"alias": "another"}, headers={"X-Admin-Key": token})
    assert again.status_code == 401
    yield registered.json()
    gone = operator("DELETE", f"/v1/devices/{registered.json()['device_id']}")
    assert gone.status_code == 204
    late = http.post("/v1/heartbeat", json={}, headers=bearer(registered.json()))
    assert late.status_code == 410


def bearer(device: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {device['device_token']}"}


def test_unsigned_operator_call_is_refused(http):
    assert http.get("/v1/devices").status_code == 403


def test_unknown_device_token_returns_401(http):
    answer = awake(lambda: http.post("/v1/heartbeat", json={}, headers={"Authorization": "Bearer nobody's"}))
    assert answer.status_code == 401


def test_heartbeat_is_visible_to_the_operator(http, operator, device):
    body = {"battery": {"pct": 85.0, "charging": True}, "app_version": "e2e", "network": {"transport": "wifi"}}
    answer = http.post("/v1/heartbeat", json=body, headers=bearer(device))
    assert answer.status_code == 200, answer.text
    assert answer.json()["ok"] is True
    seen = operator("GET", f"/v1/devices/{device['device_id']}").json()
    assert seen["online"] is True
    listed = operator("GET", f"/v1/devices/{device['device_id']}/heartbeats").json()["items"]
    assert listed[0]["battery_pct"] == 85
    alerts = operator("GET", f"/v1/alerts?condition=low_battery&device_id={device['device_id']}").json()
    assert alerts == {"items": [], "next_cursor": None}


def test_command_reaches_the_device_once_and_is_settled(http, operator, device):
    """The device has no FCM token, so the command waits and the heartbeat's response delivers it."""
    request_id = f"e2e-{uuid.uuid4().hex[:12]}"
    path, command = f"/v1/devices/{device['device_id']}/commands", {"action": "ping", "request_id": request_id}
    accepted = operator("POST", path, command)
    assert accepted.status_code == 202, accepted.text
    repeated = operator("POST", path, command)
    assert (repeated.status_code, repeated.headers.get("idempotency-replayed")) == (200, "true")
    assert operator("POST", path, {**command, "action": "reboot"}).status_code == 422
    beat = http.post("/v1/heartbeat", json={"uptime_s": 1}, headers=bearer(device)).json()
    assert request_id in [pending["request_id"] for pending in beat["pending_commands"]]
    ack = {"correlation_id": request_id, "type": "PING_ACK", "status": "OK"}
    assert http.post(f"/v1/devices/{device['device_id']}/ack", json=ack, headers=bearer(device)).status_code == 200
    settled = operator("GET", f"/v1/commands/{request_id}").json()
    assert (settled["state"], settled["result"]) == ("sent", "OK")


def test_invalid_body_returns_a_problem_document(http, device):
    answer = http.post("/v1/heartbeat", content=b"\x00", headers=bearer(device))
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_unknown_route_returns_404(http):
    assert http.get("/v1/nothing").status_code == 404
