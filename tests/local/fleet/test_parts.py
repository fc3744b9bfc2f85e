"""A whole fleet, and the parts that both profiles share."""

import hashlib
import hmac
import json
import random
import time
from collections import Counter

import pytest
from nexmdm.commands import message as server_message

from local.fleet import outbox
from local.fleet.commands import Inbox
from local.fleet.ledger import Ledger, route
from local.fleet.outbox import Item, Outbox
from local.fleet.pace import Pace
from local.fleet.phone import Phone, timestamp

PROFILES = ["field", "reference"]


def test_each_profile_is_half_of_the_fleet(fake_server, run):
    fleet = run(lambda fleet: len(fleet.device_ids) == 6, count=6)
    assert [device.profile for device in fleet.devices] == PROFILES * 3


def test_registration_has_the_headers_of_the_agent_in_the_field(fake_server, run):
    run(lambda fleet: len(fake_server.to("/v1/devices/fcm-token")) == 12, count=12, profiles=("field",))
    registrations = fake_server.to("/v1/register")
    by_adb = [r for r in registrations if "x-admin-key" in r.headers]
    by_qr_code = [r for r in registrations if "x-admin" in r.headers]
    assert by_adb
    assert by_qr_code
    for request in by_adb:
        assert (request.path, list(request.body)) == ("/v1/register", ["alias"])
        assert request.headers["x-admin-key"] == f"enroll-{request.body['alias']}"
    for request in by_qr_code:
        alias = request.headers["x-admin"].removeprefix("enroll-")
        assert (request.path, request.body) == (f"/v1/register?alias={alias}", None)


def test_heartbeat_matches_that_of_the_agent(fake_server, run):
    run(lambda fleet: len(fake_server.to("/v1/heartbeat")) >= 40, profiles=("field",))
    request = fake_server.to("/v1/heartbeat")[0]
    assert request.headers["authorization"].startswith("Bearer token-")
    required = {"device_id", "alias", "app_version", "timestamp_utc", "app_versions", "speedtest_running_signals"}
    assert required | {"battery", "system", "memory", "network"} <= request.body.keys()
    bodies = [request.body for request in fake_server.to("/v1/heartbeat")]
    assert "null" not in json.dumps(bodies)
    assert {type(body["battery"]["pct"]) for body in bodies} == {int, float}
    assert all(float(body["battery"]["pct"]).is_integer() for body in bodies)
    assert all(body["timestamp_utc"].endswith("Z") for body in bodies)


def test_field_agent_retries_every_failure_with_the_same_content(fake_server, drive):
    async def story(device):
        for status in (500, 503, 422, 410):
            fake_server.answer = lambda request, status=status: (status, {})
            await device.send_waiting() if len(device.outbox) else await device.report()
            device.outbox.all_due()
        fake_server.answer = fake_server.good
        await device.send_waiting()

    ledger = drive(story, "field")._ledger
    assert len(fake_server.to("/v1/heartbeat")) == 5
    assert len({json.dumps(request.body) for request in fake_server.to("/v1/heartbeat")}) == 1
    assert (ledger.accepted, ledger.server_errors, ledger.rejected) == (1, 2, 2)
    assert ledger.refusals == {("/v1/heartbeat", 422): 1, ("/v1/heartbeat", 410): 1}


@pytest.mark.parametrize("profile", PROFILES)
def test_refused_phone_of_an_attended_fleet_is_enrolled_again(fake_server, run, profile):
    def answer(request):
        if request.headers.get("authorization") == "Bearer token-1":
            return 401, {}
        return fake_server.good(request)

    fake_server.answer = answer
    pace = Pace(
        0.05, announced_scale=1e-4, backoff_scale=0.001, duplicate_share=0, offline_share=0, two_broadcasts_share=0
    )
    fleet = run(lambda fleet: fleet.ledger.accepted, pace=pace, profiles=(profile,))
    assert len(fake_server.to("/v1/register")) == 2
    assert fleet.ledger.wiped == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_lost_enrollment_response_is_requested_again_with_the_same_token(fake_server, run, profile):
    answers = iter([503, 503])

    def answer(request):
        status = next(answers, 200)
        return fake_server.good(request) if status == 200 else (status, {})

    fake_server.answer = answer
    run(
        lambda fleet: fleet.device_ids, pace=Pace(600, backoff_scale=0.001, two_broadcasts_share=0), profiles=(profile,)
    )
    names = ("x-admin-key", "x-admin", "authorization")
    tokens = {r.headers[name] for r in fake_server.to("/v1/register") for name in names if name in r.headers}
    assert len(fake_server.to("/v1/register")) == 3
    assert len(tokens) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_some_heartbeats_are_sent_twice_concurrently(fake_server, run, profile):
    pace = Pace(interval=0.05, duplicate_share=1, offline_share=0)
    run(lambda fleet: fleet.ledger.accepted >= 6 and fleet.ledger.duplicated >= 3, pace=pace, profiles=(profile,))
    # On a busy machine, a queue may be sent among them.
    bodies = Counter(json.dumps(request.body) for request in fake_server.to("/v1/heartbeat"))
    assert max(bodies.values()) == 2


@pytest.mark.parametrize("profile", PROFILES)
def test_queued_items_are_sent_before_the_end(fake_server, run, profile):
    left = []
    fake_server.answer = lambda request: fake_server.good(request) if request.path != "/v1/heartbeat" else (503, {})

    async def after(fleet):
        fake_server.answer = fake_server.good
        left.append(await fleet.drain(10))

    fleet = run(lambda fleet: len(fake_server.to("/v1/heartbeat")) > 3, after=after, profiles=(profile,))
    assert left == [0]
    assert fleet.ledger.accepted
    assert fleet.ledger.uncertain_buckets == 0


def test_credentials_are_kept_between_runs(fake_server, run, tmp_path):
    keep = tmp_path / "state" / "fleet.json"
    run(lambda fleet: len(fleet.device_ids) == 3, count=3, keep=keep)
    registrations = len(fake_server.to("/v1/register"))
    run(lambda fleet: fleet.ledger.accepted, count=3, keep=keep)
    assert len(fake_server.to("/v1/register")) == registrations
    assert keep.stat().st_mode & 0o077 == 0


def test_messages_wait_for_the_network_for_their_time_to_live(drive, message):
    async def story(device):
        device.go_offline()
        device.receive(message("wake", "r-old"))
        device.spend_offline(3600, 600)
        device.receive(message("wake", "r-new"))
        assert device.ran == {}
        device.go_online()
        assert list(device.ran) == ["r-new"]

    drive(story, "field")


def test_hour_offline_yields_six_heartbeats_with_their_own_times(fake_server, drive):
    async def story(device):
        device.go_offline()
        device.spend_offline(3600, 600)
        device.go_online()
        await device.send_waiting()

    drive(story, "field")
    times = [request.body["timestamp_utc"] for request in fake_server.to("/v1/heartbeat")]
    uptimes = [float(request.body["system"]["uptime_seconds"]) for request in fake_server.to("/v1/heartbeat")]
    assert (len(times), times, uptimes) == (6, sorted(times), sorted(uptimes))


def test_factory_reset_leaves_nothing(drive, message):
    async def story(device):
        device.phone.install("com.example.player", 3, "3.0")
        device.receive(message("wake"))
        await device.report()
        device.factory_reset()
        assert (device.credentials, device.stored.commands, len(device.outbox)) == (None, {}, 0)
        assert device.phone.version_code("com.example.player") is None

    drive(story, "reference")


# --- its parts


def test_outbox_has_the_limits_of_the_agent(monkeypatch):
    box = Outbox()
    ack = Item("/v1/action-result", b"{}")
    heartbeats = [Item("/v1/heartbeat", b"x" * 100, taken_at=1.0) for _ in range(outbox.MOST_ITEMS)]
    assert box.add(ack) == []
    dropped = [item for heartbeat in heartbeats for item in box.add(heartbeat)]
    assert dropped == heartbeats[:1]
    assert len(box) == outbox.MOST_ITEMS
    assert box.due() is ack
    large = Item("/v1/heartbeat", b"x" * outbox.MOST_BYTES, taken_at=1.0)
    assert large in box.add(large)
    monkeypatch.setattr(outbox, "LONGEST_AGE", -1)
    assert ack in box.add(Item("/v1/heartbeat", b"", taken_at=1.0))


def test_routes_are_counted_without_ids():
    device = "/v1/devices/0f2d9a36-3c1e-4f1c-9a51-2f6a7bd0a6b1/ack"
    paths = ["/v1/register?alias=a", device, "/v1/apk/download/12?installation_id=3", "/v1/heartbeat"]
    assert [route(path) for path in paths] == [
        "/v1/register",
        "/v1/devices/{id}/ack",
        "/v1/apk/download/{id}",
        "/v1/heartbeat",
    ]


def test_pauses_double_up_to_five_minutes():
    rng = random.Random(1)
    for attempts, seconds in [(1, 2), (2, 4), (5, 32), (8, 256), (9, 300), (40, 300)]:
        assert seconds <= outbox.pause(attempts, rng) <= seconds * 1.25


def test_ledger_counts_buckets_once_and_lost_responses_separately():
    ledger = Ledger(bucket_seconds=10, started=1000.0)
    assert ledger.since == 1010
    now = ledger.since = ledger.bucket(time.time())
    for taken_at in (now, now + 9.9, now + 10):
        ledger.heartbeat_uncertain("a", taken_at)
        ledger.heartbeat_accepted("a", taken_at, duplicate=taken_at == now + 9.9)
    ledger.heartbeat_uncertain("b", now)
    ledger.heartbeat_accepted("c", now - 10, duplicate=False)
    assert (ledger.distinct_buckets, ledger.uncertain_buckets) == (2, 1)
    assert (ledger.accepted, ledger.deduplicated) == (4, 1)


# --- messages


KEY = "the-key"


def message(action, request_id="r-1", key=KEY, seconds=0, signed="", **parameters):
    ts = timestamp(time.time() + seconds)
    text = f"{request_id}|an-id|{action}|{ts}{signed}"
    mac = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {"action": action, "request_id": request_id, "ts": ts, "hmac": mac, "device_id": "an-id", **parameters}


def received(*messages, keys=(KEY,)):
    """What an inbox passes on of these messages, and its ledger."""
    handled, ledger = [], Ledger()
    inbox = Inbox(ledger, keys, lambda request_id, data: handled.append(request_id))
    for data in messages:
        inbox.receive("an-id", data)
    return handled, ledger


def test_genuine_messages_are_passed_on():
    shell = message("remote_exec_shell", "r-4", signed="|command:id", command="id", exec_id="e", correlation_id="c")
    handled, _ = received(message("ping", "r-1"), message("ring", "r-2", duration="5"), shell)
    assert handled == ["r-1", "r-2", "r-4"]


@pytest.mark.parametrize(
    "data",
    [
        lambda: message("reboot", key="another"),
        lambda: message("reboot", seconds=-310),
        lambda: message("reboot", seconds=310),
        lambda: {**message("reboot"), "action": "wake"},
        lambda: {**message("reboot"), "ts": "yesterday"},
        lambda: message("remote_exec_shell", command="id"),
        lambda: {**message("reboot"), "hmac": ""},
    ],
)
def test_forged_and_stale_messages_are_dropped(data):
    handled, ledger = received(data())
    assert handled == []
    assert ledger.messages_refused == 1


def test_either_key_is_accepted_and_without_a_key_nothing_is_verified():
    assert received(message("reboot"), keys=("new", KEY))[0]
    assert received({"action": "reboot", "request_id": "r"}, keys=())[0]


def test_messages_of_the_server_pass_the_check_of_the_device():
    parameters = {"type": "set_dnd", "enable": True, "duration": None}
    for action, payload in [("ring", {"duration": 5}), ("remote_exec_fcm", parameters)]:
        content = server_message.Content(request_id="r", device_id="an-id", action=action, payload=payload)
        data = server_message.build(content, KEY)
        _, ledger = received(data)
        assert (ledger.messages_refused, ledger.messages) == (0, 1), data


def test_phone_answers_a_ping():
    body = Phone("a", random.Random(1)).heartbeat("an-id", "a-token", 0, ping_request_id="r-1")
    assert (body["is_ping_response"], body["ping_request_id"], body["fcm_token"]) == (True, "r-1", "a-token")
