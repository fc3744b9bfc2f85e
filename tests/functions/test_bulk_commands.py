"""One command for many devices: the selector is evaluated once, and one device's failure does not affect the others."""

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from local.fcm import Behaviour, FakeFcm
from tests.support.api import call
from tests.support.commands import enrolled, sweep


def many(request_id: str = "b-1", action: str = "ping", **body):
    return call("POST", "/v1/commands", {"action": action, "request_id": request_id, **body})


@pytest.fixture
def fleet(fake_fcm: FakeFcm) -> list[str]:
    return [enrolled(f"kiosk-{n}", f"fcm:{n}")[0] for n in range(5)]


def test_bulk_command_makes_and_sends_a_dispatch_for_each_device(fake_fcm: FakeFcm, fleet: list[str]):
    answer = many(device_ids=fleet)

    assert answer.status == 202
    assert answer.json["device_count"] == 5
    assert answer.json["states"] == {"sent": 5}
    assert {post.data["request_id"] for post in fake_fcm.requests()} == {f"b-1:{device_id}" for device_id in fleet}
    assert call("GET", "/v1/commands/b-1").json == answer.json
    assert call("GET", f"/v1/commands/b-1:{fleet[0]}").json["state"] == "sent"
    assert len(call("GET", "/v1/commands", query={"batch": "b-1", "limit": 2}).json["items"]) == 2


def test_failure_of_one_device_does_not_affect_the_others(fake_fcm: FakeFcm, fleet: list[str]):
    fake_fcm.behave("fcm:0", Behaviour("400"))
    fake_fcm.behave("fcm:1", Behaviour("silence"))
    fake_fcm.behave("fcm:2", Behaviour("429"))
    states = many(device_ids=fleet).json["states"]
    assert states == {"failed": 1, "unknown": 1, "retry_wait": 1, "sent": 2}


def test_repeated_bulk_command_reads_the_batch_and_not_the_filter(fake_fcm: FakeFcm, fleet: list[str]):
    chosen = {"alias_prefix": "kiosk-"}
    first = many(filter=chosen)
    enrolled("kiosk-new", "fcm:new")
    again = many(filter=chosen)

    assert (first.status, again.status) == (202, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == first.json
    assert len(fake_fcm.requests()) == 5


@pytest.mark.parametrize("other", [{"action": "wake"}, {"filter": {"all": True}}, {"ttl_seconds": 60}])
def test_reused_key_for_another_bulk_command_is_refused(fleet: list[str], other: dict):
    many(filter={"alias_prefix": "kiosk-"})
    many(**{"filter": {"alias_prefix": "kiosk-"}, **other}).problem(422)


def test_order_of_device_ids_does_not_matter(fleet: list[str]):
    many(device_ids=fleet)
    assert many(device_ids=[*reversed(fleet), fleet[0]]).status == 200


def test_bulk_command_accepts_each_filter(fake_fcm: FakeFcm, fleet: list[str], db: Database):
    db.execute(
        "INSERT INTO device_last_status (device_id, last_ts, last_seen_at, agent_version)"
        " VALUES (%(a)s, now(), now(), '1.0'), (%(b)s, now(), now() - interval '1 day', '2.0')",
        {"a": fleet[0], "b": fleet[1]},
    )
    counts = {
        "online": many("b-1", filter={"online": True}).json["device_count"],
        "silent": many("b-2", filter={"online": False}).json["device_count"],
        "version": many("b-3", filter={"agent_version": "2.0"}).json["device_count"],
        "both": many("b-4", filter={"online": True, "alias_prefix": "kiosk-0"}).json["device_count"],
        "all": many("b-5", filter={"all": True}).json["device_count"],
    }
    assert counts == {"online": 1, "silent": 4, "version": 1, "both": 1, "all": 5}


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"filter": {}},
        {"filter": {"colour": "red"}},
        {"filter": {"all": False}},
        {"filter": {"all": True, "online": True}},
        {"filter": {"alias_prefix": "nobody-"}},
        {"device_ids": []},
        {"device_ids": ["no-such-device"]},
        {"device_ids": ["x"], "filter": {"all": True}},
    ],
)
def test_invalid_selector_stores_nothing(fleet: list[str], db: Database, selector: dict):
    many(**selector).problem(422)
    assert db.execute("SELECT count(*) AS n FROM command_batches") == [{"n": 0}]


def test_unknown_device_id_is_named_and_nothing_is_sent(fake_fcm: FakeFcm, fleet: list[str]):
    document = many(device_ids=[*fleet, "ghost"]).problem(422, "$.device_ids")
    assert "ghost" in document["detail"]
    assert fake_fcm.requests() == []


def test_bulk_and_single_commands_share_request_ids(fleet: list[str]):
    many("same", device_ids=fleet)
    single = f"/v1/devices/{fleet[0]}/commands"
    call("POST", single, {"action": "ping", "request_id": "same"}).problem(422)
    call("POST", single, {"action": "ping", "request_id": "other"})
    many("other", device_ids=fleet).problem(422)


def test_sweep_sends_what_the_call_had_no_time_for(fake_fcm: FakeFcm, fleet: list[str], monkeypatch):
    monkeypatch.setenv("BULK_INLINE_SECONDS", "0")
    settings.load.cache_clear()
    assert many(device_ids=fleet).json["states"] == {"accepted": 5}
    assert sweep()["sent"] == 5
    assert call("GET", "/v1/commands/b-1").json["states"] == {"sent": 5}


def test_batch_is_cancelled_as_a_whole(fake_fcm: FakeFcm, fleet: list[str], monkeypatch):
    monkeypatch.setenv("BULK_INLINE_SECONDS", "0")
    settings.load.cache_clear()
    many(device_ids=fleet)
    assert call("POST", "/v1/commands/b-1/cancel").json["states"] == {"cancelled": 5}
    sweep()
    assert fake_fcm.requests() == []


def test_10_000_devices_take_one_statement(fake_fcm: FakeFcm, db: Database, monkeypatch):
    monkeypatch.setenv("BULK_INLINE_SECONDS", "0")
    settings.load.cache_clear()
    db.execute("INSERT INTO devices (id, alias) SELECT 'd' || n, 'd' || n FROM generate_series(1, 10000) AS n")
    assert many(filter={"all": True}).json["states"] == {"accepted": 10_000}
    assert many("b-2", device_ids=[f"d{n}" for n in range(1, 10_001)]).json["device_count"] == 10_000
