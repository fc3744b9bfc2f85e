"""The verdict of the journey can fail: it finds each kind of lie, and accepts the truth."""

import asyncio

import httpx
import psycopg2
import pytest

from local.fleet import truth
from local.fleet.commands import Run
from local.fleet.time_travel import pass_time
from local.gateway.signature import KeyPair
from local.operator_api import Operator

KEYS = KeyPair("AKIAOFTHESUITE", "secret-of-the-suite")


@pytest.fixture
def ask(fake_server):
    """ask(do) returns the findings of `do(operator)`."""

    def asked(do):
        async def main():
            async with httpx.AsyncClient(base_url=fake_server.url) as http:
                return await do(Operator(http, KEYS))

        return asyncio.run(main())

    return asked


@pytest.fixture
def phone(drive):
    async def nothing(device):
        pass

    return drive(nothing, "field")


@pytest.mark.parametrize(
    ("listed", "network", "gone", "lie"),
    [
        ({"an-id": True}, True, [], None),
        ({"an-id": False}, False, [], None),
        ({"an-id": True}, False, [], "is shown as online but has no network"),
        ({"an-id": False}, True, [], "is shown as silent but has network"),
        ({}, True, [], "is not listed"),
        ({"an-id": True, "old": False}, True, ["old"], "old was deleted but is still listed"),
    ],
)
def test_lies_about_devices(fake_server, ask, phone, listed, network, gone, lie):
    items = [{"device_id": device_id, "online": online} for device_id, online in listed.items()]
    fake_server.answer = lambda request: (200, {"items": items, "next_cursor": None})
    if not network:
        phone._online.clear()
    found = ask(lambda operator: truth.lies_about_devices(operator, [phone], gone))
    assert (found == []) if lie is None else (len(found) == 1 and lie in found[0])


SENT = {"request_id": "r-1", "action": "launch_app", "state": "sent", "completed_at": None, "result": None}
ANSWERED = {**SENT, "answered": "with_heartbeat", "completed_at": "2026-01-01T00:00:00Z", "result": "OK"}
SILENT = {**SENT, "action": "ring", "answered": "never"}


@pytest.mark.parametrize(
    ("command", "run", "earlier", "lie"),
    [
        (ANSWERED, Run("launch_app", True), False, None),
        (SILENT, Run("ring", True), False, None),
        ({**ANSWERED, "result": "ERROR"}, Run("launch_app", False), False, None),
        (ANSWERED, None, False, "the phone never ran it"),
        (ANSWERED, Run("launch_app", False), False, "has the result 'OK', but it failed"),
        ({**ANSWERED, "result": "FAILED"}, Run("launch_app", True), False, "but it succeeded"),
        (ANSWERED, Run("launch_app", None), False, "is still running it"),
        ({**ANSWERED, "answered": "never"}, Run("ring", True), False, "never answers it"),
        ({**SILENT, "state": "expired"}, Run("ring", True), False, "is expired, but the phone ran it"),
        (SILENT, Run("ring", True), True, "its phone was replaced"),
        ({**SILENT, "state": "cancelled"}, Run("ring", True), True, None),
    ],
)
def test_lies_about_commands(fake_server, ask, phone, command, run, earlier, lie):
    fake_server.answer = lambda request: (200, command)
    if run:
        phone.ran["r-1"] = run
    known = {"r-1"} if earlier else ()
    found = ask(lambda operator: truth.lies_about_commands(operator, {"r-1": phone}, known))
    assert (found == []) if lie is None else (len(found) == 1 and lie in found[0])


@pytest.mark.parametrize(
    ("status", "installed", "lies"),
    [
        ("completed", 3, 0),
        ("failed", None, 0),
        ("failed", 2, 0),
        ("downloading", None, 0),
        ("unknown", 3, 0),
        ("completed", None, 1),
        ("completed", 2, 1),
        ("failed", 3, 1),
    ],
)
def test_lies_about_installations(phone, status, installed, lies):
    if installed:
        phone.phone.install("com.example.player", installed, f"{installed}.0")
    row = truth.Installation("an-id", "com.example.player", 3, status)
    assert len(truth.lies_about_installations([row], {"an-id": phone})) == lies


def test_time_is_moved_for_every_timestamp(url):
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO devices (id, alias) VALUES ('d', 'd')")
        cursor.execute(
            "INSERT INTO device_heartbeats (device_id, bucket, ts) SELECT 'd', t, t FROM generate_series("
            " date_bin('10 s', now(), 'epoch') - interval '2 hours', date_bin('10 s', now(), 'epoch'), '1 hour') AS t"
        )
        cursor.execute("INSERT INTO device_last_status (device_id, last_ts, last_seen_at) VALUES ('d', now(), now())")
    pass_time(url, 3600)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT round(extract(epoch FROM now() - last_seen_at) / 3600) FROM device_last_status),"
            " (SELECT array_agg(round(extract(epoch FROM now() - ts) / 3600) ORDER BY ts) FROM device_heartbeats),"
            " (SELECT round(extract(epoch FROM now() - created_at) / 3600) FROM devices)"
        )
        assert cursor.fetchone() == (1, [3, 2, 1], 1)
