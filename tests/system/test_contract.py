"""A device's life as agent and operator see it, over HTTP, through the gateway in processes of its own."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from tests.support import agent
from tests.support.gateway import KEYS, gateway
from tests.support.relay import relay


@pytest.fixture
def api(url) -> Iterator[httpx.Client]:
    with gateway(url) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def operator(api: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response:
    """A call that is signed as `aws` or `curl --aws-sigv4` would."""
    content = b"" if body is None else json.dumps(body).encode()
    address = str(api.base_url.join(path))
    request = AWSRequest(method=method, url=address, data=content, headers={"content-type": "application/json"})
    SigV4Auth(KEYS, "execute-api", "eu-west-1").add_auth(request)
    return api.request(method, address, content=content, headers=dict(request.headers.items()))


def agent_posts(api: httpx.Client, path: str, body: Any, **headers: str) -> httpx.Response:
    """Send it as OkHttp does: the content type has a charset."""
    content = json.dumps(body).encode() if body is not None else b""
    return api.post(path, content=content, headers={"Content-Type": "application/json; charset=utf-8", **headers})


def test_device_from_enrollment_to_deletion(api):
    # An operator creates a token; the agent, started by ADB, registers with it in the header of the old admin key.
    made = operator(api, "POST", "/v1/enroll-tokens", {"aliases": ["lobby"], "note": "ground floor"})
    assert made.status_code == 201
    (token,) = made.json()["items"]
    registered = agent_posts(api, "/v1/register", {"alias": "lobby"}, **{"X-Admin-Key": token["token"]})
    assert registered.status_code == 200, registered.text
    device_id, device_token = registered.json()["device_id"], registered.json()["device_token"]
    bearer = {"Authorization": f"Bearer {device_token}"}
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", device_id)

    # The first heartbeat, the same one sent twice, and the FCM token.
    body = agent.heartbeat(device_id=device_id)
    first, again = (agent_posts(api, "/v1/heartbeat", body, **bearer) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == {
        "ok": True,
        "status": "created",
        "next_heartbeat_seconds": 600,
        "pending_commands": [],
    }
    assert again.json()["status"] == "duplicate"
    address = {"device_id": device_id, "fcm_token": "fcm:lobby"}
    assert agent_posts(api, "/v1/devices/fcm-token", address, **bearer).json()["ok"] is True

    # After an outage the device drains its queue; an invalid item does not affect valid ones.
    queue = [agent.heartbeat(agent.an_hour_ago() + timedelta(minutes=n)) for n in range(5)]
    drained = agent_posts(api, "/v1/heartbeats", {"heartbeats": [*queue, "no report"]}, **bearer)
    assert [result["status"] for result in drained.json()["results"]] == ["created"] * 5 + ["rejected"]

    # The operator views the fleet, the device and its history, and renames the device.
    page = operator(api, "GET", "/v1/devices?online=true&limit=10").json()
    (listed,) = page["items"]
    assert (listed["device_id"], listed["alias"], listed["online"], page["next_cursor"]) == (
        device_id,
        "lobby",
        True,
        None,
    )
    assert {name: listed[name] for name in agent.COLUMNS} == agent.COLUMNS
    assert operator(api, "GET", f"/v1/devices/{device_id}").json() == listed
    history = operator(api, "GET", f"/v1/devices/{device_id}/heartbeats").json()["items"]
    assert len(history) == 6
    assert operator(api, "GET", "/v1/fleet/summary").json()["online"] == 1
    assert operator(api, "PATCH", f"/v1/devices/{device_id}", {"alias": "hall"}).status_code == 200

    # After its deletion the device gets 410 with the reason it knows, and its alias is free again.
    assert operator(api, "DELETE", f"/v1/devices/{device_id}").status_code == 204
    gone = agent_posts(api, "/v1/heartbeat", agent.heartbeat(), **bearer)
    assert gone.status_code == 410
    assert gone.json()["reason"] == "device_deleted"
    (token,) = operator(api, "POST", "/v1/enroll-tokens", {"aliases": ["hall"]}).json()["items"]

    # The next device is enrolled by QR code: the alias is in the query, and there is no body.
    scanned = api.post("/v1/register", params={"alias": "hall"}, headers={"X-Admin": token["token"]})
    assert scanned.status_code == 200
    assert scanned.json()["device_id"] != device_id


def test_agent_gets_the_documented_errors(api):
    assert agent_posts(api, "/v1/heartbeat", agent.heartbeat()).status_code == 403
    refused = agent_posts(api, "/v1/heartbeat", agent.heartbeat(), Authorization="Bearer wrong")
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert "detail" in refused.json()
    assert agent_posts(api, "/v1/heartbeat", ["no report"], Authorization="Bearer wrong").status_code == 422
    large = api.post("/v1/heartbeat", content=b" " * 2_000_000, headers={"Authorization": "Bearer wrong"})
    assert large.status_code == 413
    assert agent_posts(api, "/v1/register", {"alias": "x"}, **{"X-Admin-Key": "wrong"}).status_code == 401


def test_operator_routes_require_a_signature(api):
    for method, path in (("GET", "/v1/devices"), ("POST", "/v1/enroll-tokens"), ("DELETE", "/v1/devices/x")):
        unsigned = api.request(method, path)
        assert unsigned.status_code == 403
        assert unsigned.json() == {"message": "Forbidden"}


def test_outage_returns_503_with_a_retry_after(url):
    with relay(url) as line, gateway(line.url) as address, httpx.Client(base_url=address, timeout=30) as api:
        bearer = {"Authorization": "Bearer of somebody"}
        assert agent_posts(api, "/v1/heartbeat", agent.heartbeat(), **bearer).status_code == 401
        port = line.port
        line.close()
        for _ in range(6):  # the agent enrolls again after five 401s
            refused = agent_posts(api, "/v1/heartbeat", agent.heartbeat(), **bearer)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        with relay(url, port):
            assert agent_posts(api, "/v1/heartbeat", agent.heartbeat(), **bearer).status_code == 401
