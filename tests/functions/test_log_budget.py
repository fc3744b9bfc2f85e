"""One request writes a bounded number of log records of bounded size, whatever it contains, because logs cost money."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from nexmdm.runtime import logs

from tests.support.api import Device, call, enroll

MOST_RECORDS = 5
MOST_BYTES = 8_000
LONG = "x" * 2_000


def items(**members: Any) -> list[dict[str, Any]]:
    """A full queue, with each report in a bucket of its own."""
    now = datetime.now(UTC)
    return [
        {"timestamp_utc": (now - timedelta(seconds=20 * n)).isoformat(), **{k: v(n) for k, v in members.items()}}
        for n in range(500)
    ]


QUEUES = {
    "foreign device_ids": items(device_id=lambda n: f"other-{n}"),
    "long foreign device_ids": items(device_id=lambda n: f"{n}{LONG}"[:200]),
    "unreadable items": [LONG] * 500,
    "values of a wrong type": items(
        battery=lambda n: {"pct": LONG[:500]}, network=lambda n: [n], fcm_token=lambda n: {}
    ),
    "unknown members": items(**{f"unknown_{n}": lambda n: "x" * 50 for n in range(20)}),
    "answers to pings": items(ping_request_id=lambda n: f"ping-{n}"),
}


@pytest.fixture
def phone(url: str) -> Device:
    return Device(*enroll("lobby"))


@pytest.fixture
def written() -> Iterator[Callable[[], list[str]]]:
    """A function that returns the log lines since its last call."""
    stream, handler = StringIO(), logs.logger().registered_handler
    before = handler.setStream(stream)

    def read() -> list[str]:
        lines = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return lines

    yield read
    handler.setStream(before)


@pytest.mark.parametrize("queue", QUEUES)
def test_full_queue_writes_few_log_records(phone: Device, written, queue: str):
    written()
    call("POST", "/v1/heartbeats", {"heartbeats": QUEUES[queue]}, token=phone.token)
    lines = written()
    assert lines
    assert len(lines) <= MOST_RECORDS
    assert sum(map(len, lines)) <= MOST_BYTES


def test_foreign_device_ids_are_one_record_with_their_count(phone: Device, written):
    call("POST", "/v1/heartbeats", {"heartbeats": QUEUES["foreign device_ids"]}, token=phone.token)
    (record,) = [json.loads(line) for line in written() if "not the token's" in line]
    assert (record["device_id"], record["claimed_count"]) == (phone.id, 500)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/heartbeat", {"device_id": LONG[:200], "fcm_token": LONG}),
        ("POST", "/v1/devices/fcm-token", {"device_id": LONG, "fcm_token": LONG}),
        ("POST", "/v1/devices/other/ack", {"request_id": LONG, "type": LONG}),
        ("POST", "/v1/action-result", {"request_id": LONG, "action": LONG, "outcome": LONG, "message": LONG}),
        ("POST", "/v1/remote-exec/ack", {"exec_id": LONG, "correlation_id": LONG, "status": LONG, "output": LONG}),
        ("POST", "/v1/apk/installation/update", {"installation_id": 1, "status": LONG, "error_message": LONG}),
        ("GET", "/v1/apk/download/latest", None),
        ("POST", "/v1/heartbeats", {"heartbeats": [LONG] * 400}),
        ("POST", "/v1/heartbeats", b"{" * 100_000),
    ],
)
def test_any_other_device_request_writes_few_log_records(phone: Device, written, method: str, path: str, body: Any):
    written()
    call(method, path, body, token=phone.token)
    lines = written()
    assert len(lines) <= MOST_RECORDS
    assert sum(map(len, lines)) <= MOST_BYTES
