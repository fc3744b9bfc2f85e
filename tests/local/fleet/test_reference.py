"""The reference agent does what docs/device.md asks of a new agent."""

import json
from hashlib import sha256

import pytest


def batches(fake_server):
    return [len(request.body["heartbeats"]) for request in fake_server.to("/v1/heartbeats")]


def results(fake_server):
    return {request.body["request_id"]: request.body["outcome"] for request in fake_server.to("/v1/action-result")}


def test_registration_names_the_hardware(fake_server, drive):
    async def story(device):
        pass

    drive(story, "reference")
    [request] = fake_server.to("/v1/register")
    assert request.headers["authorization"] == "Bearer an-enrollment-token"
    assert request.body == {"alias": "sim-0001", "hardware_id": "hardware-of-sim-0001"}


# --- commands


@pytest.mark.parametrize("action", ["wake", "reboot", "set_dnd", "restart_app"])
def test_every_command_is_reported(fake_server, drive, message, action):
    async def story(device):
        device.receive(message(action))
        await device.send_waiting()

    drive(story, "reference")
    assert results(fake_server) == {"r-1": "success"}


def test_reports_use_the_route_of_their_kind(fake_server, drive, message):
    async def story(device):
        for number, action in enumerate(["ping", "ring", "launch_app", "wifi_connect", "remote_exec_shell"]):
            device.receive(message(action, f"r-{number}"))
        await device.send_waiting()

    drive(story, "reference")
    assert fake_server.to("/v1/heartbeat")[0].body["ping_request_id"] == "r-0"
    acks = [(r.body["request_id"], r.body["type"], r.body["status"]) for r in fake_server.to("/v1/devices/an-id/ack")]
    assert acks == [
        ("r-1", "RING_STARTED", "OK"),
        ("r-1", "RING_STOPPED", "OK"),
        ("r-2", "LAUNCH_APP_ACK", "ERROR"),
        ("r-3", "WIFI_CONNECT_ACK", "OK"),
    ]
    [execution] = fake_server.to("/v1/remote-exec/ack")
    assert (execution.body["exec_id"], execution.headers["x-device-token"]) == ("r-4", "token-1")


def test_request_id_survives_a_restart_and_is_reported_again(fake_server, drive, message, tmp_path):
    keep = tmp_path / "fleet.json"

    async def first(device):
        device.receive(message("reboot"))
        await device.send_waiting()

    async def second(device):
        device.receive(message("reboot"))
        await device.send_waiting()
        assert device.ran == {}

    drive(first, "reference", keep=keep)
    drive(second, "reference", enroll=False, keep=keep)
    assert [request.body["request_id"] for request in fake_server.to("/v1/action-result")] == ["r-1", "r-1"]


def test_restart_between_storing_and_running_a_command_is_reported_as_a_failure(fake_server, drive, message, tmp_path):
    keep = tmp_path / "fleet.json"

    async def first(device):
        device._run = lambda request_id, data: None  # as if the process ended here
        device.receive(message("reboot"))

    async def second(device):
        device.restart()
        device.receive(message("reboot"))
        await device.send_waiting()
        assert device.ran == {}

    drive(first, "reference", keep=keep)
    drive(second, "reference", enroll=False, keep=keep)
    assert results(fake_server) == {"r-1": "failed"}


def test_pending_commands_are_run_once(fake_server, drive, message):
    async def story(device):
        listed = [message("reboot", "r-1"), message("wake", "r-2")]
        fake_server.answer = lambda request: (
            (200, {"pending_commands": listed}) if request.path == "/v1/heartbeat" else fake_server.good(request)
        )
        await device.report()
        await device.report()
        assert {request_id: run.succeeded for request_id, run in device.ran.items()} == {"r-1": True, "r-2": True}
        assert set(device._ledger.ran.values()) == {1}

    drive(story, "reference")
    assert results(fake_server) == {"r-1": "success", "r-2": "success"}


def test_pending_ping_is_answered_once_while_its_answer_is_queued(fake_server, drive, message):
    async def story(device):
        device.go_offline()
        device.go_online()
        fake_server.answer = lambda request: (503, {})
        device.receive(message("ping"))
        await device.send_waiting()
        device.receive(message("ping"))
        assert len(device.outbox) == 1

    drive(story, "reference")


def test_report_is_repeated_until_it_is_accepted(fake_server, drive, message):
    async def story(device):
        fake_server.answer = lambda request: (500, {})
        device.receive(message("reboot"))
        for _ in range(3):
            device.outbox.all_due()
            await device.send_waiting()
        fake_server.answer = fake_server.good
        device.outbox.all_due()
        await device.send_waiting()
        assert len(device.outbox) == 0

    drive(story, "reference")
    assert len(fake_server.to("/v1/action-result")) == 4


# --- sending


def test_queue_is_drained_in_one_batch_oldest_first(fake_server, drive):
    async def story(device):
        device.go_offline()
        device.spend_offline(143 * 600, 600)
        device.go_online()
        await device.send_waiting()

    drive(story, "reference")
    assert batches(fake_server) == [143]
    times = [heartbeat["timestamp_utc"] for heartbeat in fake_server.to("/v1/heartbeats")[0].body["heartbeats"]]
    assert times == sorted(times)


def test_announced_interval_is_used(fake_server, drive):
    async def story(device):
        fake_server.answer = lambda request: (200, {"next_heartbeat_seconds": 77})
        await device.report()
        assert device.next_heartbeat_seconds == 77

    drive(story, "reference")


def test_heartbeats_follow_the_announced_interval(fake_server, run):
    def answer(request):
        status, document = fake_server.good(request)
        return status, {**document, "next_heartbeat_seconds": 60}

    fake_server.answer = answer
    run(lambda fleet: fleet.ledger.accepted >= 10, profiles=("reference",))  # 60 s are 5 ms at this pace


def test_retry_after_is_respected(fake_server, drive):
    async def story(device):
        fake_server.answer = lambda request: (503, {}, {"retry-after": "90"})
        await device.report()
        assert device.outbox.next_due() >= 91

    drive(story, "reference")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_permanently_refused_item_is_dropped(fake_server, drive, status):
    async def story(device):
        fake_server.answer = lambda request: (status, {})
        await device.report()
        assert len(device.outbox) == 0
        assert device.credentials

    drive(story, "reference")


@pytest.mark.parametrize("status", [500, 502, 504])
def test_item_with_an_unknown_outcome_is_sent_again(fake_server, drive, status):
    async def story(device):
        fake_server.answer = lambda request: (status, {})
        await device.report()
        assert len(device.outbox) == 1

    drive(story, "reference")


def test_batch_that_is_too_large_is_split(fake_server, drive):
    def answer(request):
        if request.path == "/v1/heartbeats" and len(request.body["heartbeats"]) > 50:
            return 413, {}
        return fake_server.good(request)

    async def story(device):
        fake_server.answer = answer
        device.go_offline()
        device.spend_offline(143 * 600, 600)
        device.go_online()
        await device.send_waiting()
        assert len(device.outbox) == 0

    drive(story, "reference")
    assert max(batches(fake_server)[2:]) <= 50


def test_deleted_device_stops_and_waits_for_enrollment(fake_server, drive):
    async def story(device):
        fake_server.answer = lambda request: (410, {"reason": "device_deleted"})
        await device.report()
        before = len(fake_server.requests)
        await device.report()
        assert (device.deleted, device.credentials, len(fake_server.requests)) == (True, None, before)
        fake_server.answer = fake_server.good
        await device.enroll("a-fresh-token")
        await device.report()
        assert not device.deleted

    drive(story, "reference")


def test_device_is_enrolled_again_after_five_401s(fake_server, run):
    def answer(request):
        if request.headers.get("authorization") == "Bearer token-1":
            return 401, {}
        return fake_server.good(request)

    fake_server.answer = answer
    fleet = run(lambda fleet: fleet.ledger.accepted, profiles=("reference",))
    assert len(fake_server.to("/v1/register")) == 2
    assert fleet.ledger.wiped == 1
    assert len([r for r in fake_server.requests if r.headers.get("authorization") == "Bearer token-1"]) == 5


def test_device_token_is_not_sent_to_the_storage_host(fake_server, storage_host, drive, message, after):
    content = b"PK" + b"x" * 998
    headers = {"location": f"{storage_host.url}/build.apk", "x-apk-sha256": sha256(content).hexdigest()}

    def ranged(request):
        start, end = request.headers["range"].removeprefix("bytes=").split("-")
        return 206, content[int(start) : int(end or len(content)) + 1]

    storage_host.answer = ranged
    fake_server.answer = lambda request: (
        (302, b"", headers) if "download" in request.path else fake_server.good(request)
    )

    async def story(device):
        parameters = {"installation_id": "5", "package_name": "com.nexmdm", "version_code": "3", "version_name": "3.0"}
        url = {"download_url": f"{fake_server.url}/v1/apk/download/7", "file_size": "1000"}
        device.receive(message("install_apk", **parameters, **url))
        await after(device)
        await device.send_waiting()

    drive(story, "reference")
    assert len(storage_host.requests) == 2
    assert not any("x-device-token" in request.headers for request in storage_host.requests)
    assert fake_server.statuses(5) == ["downloading", "downloading", "installing", "completed"]


def test_old_keep_file_is_still_read(fake_server, drive, tmp_path):
    keep = tmp_path / "fleet.json"
    keep.write_text(json.dumps({"sim-0001": {"device_id": "an-id", "device_token": "old", "fcm_token": "f"}}))

    async def story(device):
        await device.report()

    drive(story, "reference", enroll=False, keep=keep)
    assert fake_server.to("/v1/heartbeat")[0].headers["authorization"] == "Bearer old"
