"""The odd fleet sends odd values as declared, and its verdict can fail."""

import copy
import json
import random
import time

import psycopg2
import pytest

from local.fleet import odd
from local.fleet.fleet import Fleet
from local.fleet.ledger import Ledger
from local.fleet.pace import Pace
from local.fleet.phone import Phone

ODD = Pace(interval=0.02, announced_scale=1e-5, backoff_scale=0.001, duplicate_share=0, offline_share=0, odd_share=0.5)


@pytest.mark.parametrize("name", odd.VALUES)
def test_odd_value_changes_the_heartbeat_and_leaves_an_object(name):
    body = Phone("a", random.Random(1)).heartbeat("an-id", "a-token", 0)
    before = copy.deepcopy(body)
    odd.VALUES[name](body)
    assert json.dumps(body) != json.dumps(before)
    assert isinstance(json.loads(json.dumps(body)), dict)


def test_one_report_in_ten_is_odd():
    one = odd.Odd(random.Random(1), 0.1)
    for _ in range(2000):
        one.change({"battery": {}, "system": {}, "memory": {}, "network": {}, "app_versions": {}}, heartbeat=True)
    assert 150 < len(one.used) < 250
    assert len(set(one.used)) == len(odd.VALUES)


def test_command_reports_contain_odd_values():
    one = odd.Odd(random.Random(1), 1)
    ack, plain = {"correlation_id": "r", "message": "m"}, {"ts": 1}
    one.change(plain, heartbeat=False)
    assert plain == {"ts": 1}
    one.change(ack, heartbeat=False)
    assert ack != {"correlation_id": "r", "message": "m"}


def test_phones_are_wiped_lose_their_clocks_and_get_twins(fake_server, run):
    fleet = run(
        lambda fleet: fleet.ledger.registered > 24 and fleet.ledger.accepted > 300, count=12, pace=ODD, odd=True
    )
    assert len(fleet.twins) == 2
    assert sum(device.odd.wiped for device in fleet.devices) > 3
    bodies = [request.body for request in fake_server.to("/v1/heartbeat") if request.body]
    times = [body["timestamp_utc"] for body in bodies if isinstance(body.get("timestamp_utc"), str)]
    assert any(text < "2020" for text in times if text[:1].isdigit())
    tokens = {}
    for body in bodies:
        tokens.setdefault(body.get("fcm_token"), set()).add(body.get("alias"))
    assert any(len(aliases) > 1 for token, aliases in tokens.items() if token)


def test_twin_reports_as_its_device(fake_server, run):
    fleet = run(lambda fleet: fleet.ledger.accepted > 40, count=1, pace=ODD, odd=True)
    [device], [twin] = fleet.devices, fleet.twins
    assert twin.credentials == device.credentials
    assert twin.phone is not device.phone


@pytest.fixture
def seen(url):
    """The id of a device that the database received a report from 100 seconds ago."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO devices (id, alias) VALUES ('d-1', 'd-1')")
        cursor.execute(
            "INSERT INTO device_last_status (device_id, last_ts, last_seen_at)"
            " VALUES ('d-1', now() - interval '100 s', now() - interval '100 s')"
        )
    return "d-1"


@pytest.mark.parametrize(
    ("ago", "online", "refused", "used", "failure"),
    [
        (200, True, False, True, None),
        (50, True, False, True, "did not see"),
        (200, False, False, True, "offline"),
        (200, True, True, True, "1 requests to /v1/heartbeat got 422"),
        (200, True, False, False, "nothing was proved"),
    ],
)
def test_verdict_names_each_failure(url, seen, ago, online, refused, used, failure):
    ledger = Ledger()
    ledger.heartbeat_accepted(seen, time.time(), duplicate=False, sent_at=time.time() - ago)
    if refused:
        ledger.answered("/v1/heartbeat", 422, 0.1)
    one = odd.Odd(random.Random(1), 1)
    if used:
        one.change({"battery": {}}, heartbeat=True)
    judged = odd.judge(ledger, [one], [seen], {seen: online}, url)
    failures = list(judged.failures())
    assert (failures == []) if failure is None else (failure in failures[0])


@pytest.mark.parametrize(
    ("taken_ago", "sent_ago", "duplicate", "visible"),
    [
        (300, 1, True, False),
        (300, 1, False, True),
        (5, 1, True, True),
        (-3600, 1, True, True),
        (12, 1, True, False),
    ],
    ids=["looks like a repeat", "a new bucket", "newer, in the last bucket", "a clock that is ahead", "overtaken"],
)
def test_only_a_report_that_looks_like_a_repeat_need_not_be_seen(monkeypatch, taken_ago, sent_ago, duplicate, visible):
    ledger, now = Ledger(), time.time()
    for taken, sent, answered, known in (
        (now - 11, now - 11, now - 10, False),
        (now - taken_ago, now - sent_ago, now, duplicate),
    ):
        monkeypatch.setattr("time.time", lambda answered=answered: answered)
        ledger.heartbeat_accepted("d-1", taken, known, sent)
    assert ledger.last_visible("d-1") == (now - sent_ago if visible else now - 11)


def test_report_that_was_never_answered_may_have_overtaken_a_later_one():
    ledger, now = Ledger(), time.time()
    ledger.heartbeat_accepted("d-1", now - 20, duplicate=False, sent_at=now - 20)
    ledger.heartbeat_uncertain("d-1", now - 2, sent_at=now - 2)
    ledger.heartbeat_accepted("d-1", now - 1, duplicate=True, sent_at=now - 1)
    assert ledger.last_visible("d-1") == now - 20


def test_normal_fleet_sends_no_odd_values(fake_server):
    fleet = Fleet(fake_server.url, 3, None, Pace())
    assert [device.odd for device in fleet.devices] == [None] * 3
    assert fleet.twins == []
