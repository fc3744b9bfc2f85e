"""The agent in the field: every fact of the contract's last section, as the simulated phones show it."""

import asyncio
import json
import threading
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest

from local.fleet import outbox
from local.fleet.fleet import Fleet
from local.fleet.pace import Pace
from local.fleet.phone import UNITY

SILENT = [
    "ring",
    "wake",
    "reboot",
    "restart_app",
    "set_dnd",
    "grant_permissions",
    "exempt_unity_app",
    "apply_battery_whitelist",
    "list_packages",
    "remote_control",
]
REPORTS = ("/v1/devices/an-id/ack", "/v1/action-result", "/v1/remote-exec/ack", "/v1/apk/installation/update")


def reports(fake_server):
    return [request for path in REPORTS for request in fake_server.to(path)]


# --- how it answers


@pytest.mark.parametrize("action", SILENT)
def test_action_without_an_answer_runs_silently(fake_server, drive, message, after, action):
    async def story(device):
        device.receive(message(action, packages="[]", command="home"))
        await after(device)
        await device.report()
        assert device.ran["r-1"].action == action

    drive(story, "field")
    assert reports(fake_server) == []
    assert all("ping_request_id" not in request.body for request in fake_server.to("/v1/heartbeat"))


def test_ping_is_answered_by_an_immediate_heartbeat(fake_server, drive, message, after):
    async def story(device):
        device.receive(message("ping"))
        await after(device)

    drive(story, "field")
    [heartbeat] = fake_server.to("/v1/heartbeat")
    assert (heartbeat.body["is_ping_response"], heartbeat.body["ping_request_id"]) == (True, "r-1")
    assert reports(fake_server) == []


@pytest.mark.parametrize(("action", "kind"), [("launch_app", "LAUNCH_APP_ACK"), ("wifi_connect", "WIFI_CONNECT_ACK")])
@pytest.mark.parametrize("next_thing", ["heartbeat", "ping"])
def test_acknowledgment_waits_for_the_next_heartbeat(fake_server, drive, message, after, action, kind, next_thing):
    async def story(device):
        device.receive(message(action, package_name=UNITY, ssid="site", password="12345678"))
        await after(device)
        assert reports(fake_server) == []
        if next_thing == "ping":
            device.receive(message("ping", "r-2"))
            await after(device)
        else:
            await device.report()

    drive(story, "field")
    [report] = reports(fake_server)
    assert (report.body["correlation_id"], report.body["type"], report.body["status"]) == ("r-1", kind, "OK")


def test_queued_acknowledgment_is_retried_until_it_is_accepted(fake_server, drive, message):
    async def story(device):
        fake_server.answer = lambda request: (503, {}) if request.path.endswith("/ack") else fake_server.good(request)
        device.receive(message("launch_app", package_name=UNITY))
        await device.report()
        assert len(device.outbox) == 1
        fake_server.answer = fake_server.good
        device.outbox.all_due()
        await device.report()

    device = drive(story, "field")
    assert [request.body["correlation_id"] for request in reports(fake_server)] == ["r-1", "r-1"]
    assert len(device.outbox) == 0


@pytest.mark.parametrize("action", ["remote_exec_fcm", "remote_exec_shell"])
@pytest.mark.parametrize("lost", [False, True])
def test_remote_exec_is_answered_at_once_and_only_once(fake_server, drive, message, after, action, lost):
    async def story(device):
        fake_server.answer = lambda request: (
            (503, {}) if lost and "remote-exec" in request.path else fake_server.good(request)
        )
        device.receive(message(action, exec_id="e-1", type="ring", command="id"))
        await after(device)
        fake_server.answer = fake_server.good
        device.outbox.all_due()
        await device.report()

    drive(story, "field")
    [report] = reports(fake_server)
    assert (report.path, report.body["exec_id"], report.body["status"]) == ("/v1/remote-exec/ack", "e-1", "OK")
    assert report.headers["x-device-token"] == "token-1"


def test_remote_exec_answer_without_a_network_is_lost(fake_server, drive, message, after):
    async def story(device):
        device.receive(message("remote_exec_fcm", type="ring"))
        device.go_offline()
        await after(device)
        device.go_online()
        await device.report()
        await after(device)

    drive(story, "field")
    assert reports(fake_server) == []


def test_remote_exec_fcm_runs_actions_and_reports_their_results(fake_server, drive, message, after):
    async def story(device):
        device.receive(message("remote_exec_fcm", "r-1", type="launch_app", package_name="com.example.absent"))
        device.receive(message("remote_exec_fcm", "r-2", type="set_dnd", enable="true"))
        await after(device)

    drive(story, "field")
    assert {r.body["correlation_id"]: r.body["status"] for r in reports(fake_server)} == {"r-1": "FAILED", "r-2": "OK"}


@pytest.mark.parametrize(
    ("action", "command", "path"),
    [
        ("remote_control", "get_clipboard", "/v1/devices/an-id/clipboard"),
        ("list_packages", "", "/v1/devices/an-id/packages"),
    ],
)
def test_some_answers_are_sent_to_nonexistent_routes(fake_server, drive, message, after, action, command, path):
    async def story(device):
        device.receive(message(action, command=command))
        await after(device)

    drive(story, "field")
    assert len(fake_server.to(path)) == 1


def test_unknown_action_does_nothing(fake_server, drive, message, after):
    async def story(device):
        device.receive(message("start_stream"))
        await after(device)
        assert device.ran == {}

    drive(story, "field")
    assert reports(fake_server) == []


def test_remembered_request_ids_are_lost_with_the_process(drive, message):
    async def story(device):
        device.receive(message("ring"))
        device.receive(message("ring"))
        assert device._ledger.ran[("an-id", "r-1")] == 1
        device.restart()
        device.receive(message("ring"))
        assert device._ledger.ran[("an-id", "r-1")] == 2

    drive(story, "field")


# --- the shell on the phone


@pytest.mark.parametrize(
    ("ssid", "password", "executed"),
    [
        ("site", "pa$word", []),
        ("site", "x$(reboot)y", ["$(reboot)"]),
        ("`reboot`", "12345678", ["`reboot`"]),
        ("site", "first\nsecond", []),
    ],
)
def test_shell_expansion_in_wifi_parameters_disconnects_the_phone(
    fake_server, drive, message, ssid, password, executed
):
    async def story(device):
        device.receive(message("wifi_connect", ssid=ssid, password=password))
        assert not device.online
        assert device._ledger.shell_executions == executed
        await device.report()

    drive(story, "field")
    assert fake_server.to("/v1/heartbeat") == []


def test_backslashes_and_double_quotes_are_preserved(drive, message):
    async def story(device):
        device.receive(message("wifi_connect", ssid='the "site"', password="a\\b;c|d & e"))
        assert device.online

    drive(story, "field")


def test_package_names_reach_the_shell_unchanged(drive, message):
    async def story(device):
        packages = json.dumps(["io.unitynodes.unityapp", "com.example;reboot"])
        device.receive(message("apply_battery_whitelist", packages=packages))
        assert device._ledger.shell_executions == [";reboot"]

    drive(story, "field")


# --- installations

APK = b"PK" + b"x" * 1000


@pytest.fixture
def build(fake_server, storage_host):
    """The parameters of an install message; the server redirects the download to the storage host."""
    headers = {"location": f"{storage_host.url}/bucket/build.apk", "x-apk-sha256": sha256(APK).hexdigest()}
    storage_host.answer = lambda request: (200, APK)

    def answer(request):
        if request.path.startswith("/v1/apk/download"):
            return 302, b"", headers
        return fake_server.good(request)

    fake_server.answer = answer
    return {
        "download_url": f"{fake_server.url}/v1/apk/download/7?installation_id=5",
        "installation_id": "5",
        "package_name": "com.example.player",
        "version_code": "3",
        "version_name": "3.0",
        "file_size": str(len(APK)),
    }


@pytest.mark.parametrize("action", ["install_apk", "deploy_update"])
def test_installation_is_reported_step_by_step(fake_server, drive, message, after, build, action):
    async def story(device):
        device.receive(message(action, **build))
        await after(device)
        assert device.phone.version_code("com.example.player") == 3

    drive(story, "field")
    assert fake_server.statuses(5) == ["downloading", "downloading", "installing", "completed"]


@pytest.mark.parametrize("thing", ["heartbeat", "ping", "wake"])
def test_pending_installation_is_reported_completed_during_the_download(
    fake_server, storage_host, drive, message, after, build, thing
):
    reached, goes_on = threading.Event(), threading.Event()

    def slowly(request):
        reached.set()
        goes_on.wait(10)
        return 200, APK

    storage_host.answer = slowly

    async def story(device):
        device.phone.install_error = "INSTALL_FAILED_INSUFFICIENT_STORAGE"
        device.receive(message("install_apk", **build))
        await asyncio.to_thread(reached.wait, 10)
        if thing == "heartbeat":
            await device.report()
        else:
            device.receive(message(thing, "r-2"))
            while "completed" not in fake_server.statuses(5):
                await asyncio.sleep(0.01)
        goes_on.set()
        await after(device)
        assert device.phone.version_code("com.example.player") is None

    drive(story, "field")
    assert fake_server.statuses(5) == ["downloading", "completed", "downloading", "installing", "failed"]


def test_unaccepted_completion_is_reported_again_at_the_next_start(fake_server, drive, message, after, build):
    downloads = fake_server.answer

    async def story(device):
        device.phone.install_error = "INSTALL_FAILED_ABORTED"
        device.receive(message("install_apk", **build))
        await after(device)
        fake_server.answer = lambda request: (503, {}) if "installation" in request.path else downloads(request)
        await device.report()
        fake_server.answer = downloads
        await device.report()
        await device.report()

    drive(story, "field")
    assert fake_server.statuses(5)[-3:] == ["failed", "completed", "completed"]


def test_lost_installation_report_is_not_repeated(fake_server, drive, message, after, build):
    downloads = fake_server.answer
    fake_server.answer = lambda request: (503, {}) if "installation/update" in request.path else downloads(request)

    async def story(device):
        device.phone.install_error = "INSTALL_FAILED_ABORTED"
        device.receive(message("install_apk", **build))
        await after(device)
        device.stored.pending_installation = None
        fake_server.answer = downloads
        await device.report()

    drive(story, "field")
    assert fake_server.statuses(5) == ["downloading", "downloading", "installing", "failed"]


def test_new_agent_reports_its_completion_at_its_start(fake_server, drive, message, after, build):
    async def story(device):
        device.receive(message("install_apk", **{**build, "package_name": "com.nexmdm"}))
        await after(device)
        assert "completed" not in fake_server.statuses(5)
        await device.report()
        assert fake_server.to("/v1/heartbeat")[-1].body["app_version"] == "3.0"

    drive(story, "field")
    assert fake_server.statuses(5)[-1] == "completed"


def test_installation_without_device_owner_fails_before_it_is_pending(fake_server, drive, message, after, build):
    async def story(device):
        device.phone.is_device_owner = False
        device.receive(message("install_apk", **build))
        await after(device)
        await device.report()

    drive(story, "field")
    assert fake_server.statuses(5) == ["failed"]


def test_android_refuses_a_lower_version(fake_server, drive, message, after, build):
    async def story(device):
        device.phone.install("com.example.player", 9, "9.0")
        device.receive(message("install_apk", **build))
        await after(device)
        assert device.phone.version_code("com.example.player") == 9

    drive(story, "field")
    assert fake_server.to("/v1/apk/installation/update")[-1].body["error_message"] == "INSTALL_FAILED_VERSION_DOWNGRADE"


def test_agent_never_requests_an_update(fake_server, run):
    run(lambda fleet: fleet.ledger.accepted >= 20, count=2, profiles=("field",))
    assert fake_server.to("/v1/agent/update") == []
    assert fake_server.to("/v1/apk/download/latest") == []


# --- its HTTP client


def test_device_token_is_sent_to_the_storage_host(storage_host, drive, message, after, build):
    async def story(device):
        device.receive(message("install_apk", **build))
        await after(device)

    drive(story, "field")
    [request] = storage_host.requests
    assert request.headers["x-device-token"] == "token-1"


@pytest.mark.parametrize(("status", "method", "has_body"), [(301, "GET", False), (308, "POST", True)])
def test_301_turns_a_post_into_a_get_and_308_does_not(fake_server, drive, status, method, has_body):
    async def story(device):
        moved = {"location": f"{fake_server.url}/moved"}
        fake_server.answer = lambda request: (
            (status, {}, moved) if request.path == "/v1/heartbeat" else (200, {"ok": True})
        )
        await device.report()

    drive(story, "field")
    [request] = fake_server.to("/moved")
    assert (request.method, request.body is not None) == (method, has_body)


@pytest.mark.parametrize(
    ("status", "headers", "count"), [(408, {}, 2), (503, {"retry-after": "0"}, 2), (503, {"retry-after": "7"}, 1)]
)
def test_http_client_repeats_408_and_503_without_a_wait(fake_server, drive, status, headers, count):
    async def story(device):
        fake_server.answer = lambda request: (status, {}, headers)
        await device.report()

    drive(story, "field")
    assert len(fake_server.to("/v1/heartbeat")) == count


def test_each_queued_item_uses_a_connection_that_stays_open(fake_server, drive):
    async def story(device):
        device.go_offline()
        device.spend_offline(143 * 600, 600)
        device.go_online()
        await device.send_waiting()
        assert len(device.outbox) == 0

    drive(story, "field")
    assert len(fake_server.to("/v1/heartbeat")) == 143
    assert fake_server.most_connections >= 143


# --- refusals


def test_deleted_phone_retries_each_queued_item_forever(fake_server, drive):
    async def story(device):
        fake_server.answer = lambda request: (410, {"reason": "device_deleted"})
        device.go_offline()
        device.spend_offline(3 * 600, 600)
        device.go_online()
        await device.send_waiting()
        for _ in range(3):
            assert len(device.outbox) == 3
            await device.send_waiting()  # not due yet, because it backs off
            device.outbox.all_due()
            await device.send_waiting()
        assert device.credentials

    drive(story, "field")
    assert len(fake_server.to("/v1/heartbeat")) == 4 * 3


def test_five_consecutive_401s_wipe_the_credentials_and_stop_the_agent(fake_server, drive):
    async def story(device):
        fake_server.answer = lambda request: (401, {})
        device.go_offline()
        device.spend_offline(7 * 600, 600)
        device.go_online()
        await device.send_waiting()
        assert device.credentials is None
        before = len(fake_server.requests)
        await device.report()
        device.outbox.all_due()
        await device.send_waiting()
        assert len(fake_server.requests) == before

    device = drive(story, "field")
    assert len(fake_server.to("/v1/heartbeat")) == 5
    assert len(fake_server.to("/v1/register")) == 1
    assert device._ledger.wiped == 1


def test_success_resets_the_count_of_401s(fake_server, drive):
    async def story(device):
        for _ in range(3):
            fake_server.answer = lambda request: (401, {})
            for _ in range(4):
                await device.report()
                device.outbox.clear()
            fake_server.answer = fake_server.good
            await device.report()
        assert device.credentials

    drive(story, "field")


def test_five_401s_delete_the_hmac_keys(fake_server, drive, message, after):
    async def story(device):
        device.receive(message("ring", "r-1"))
        assert device.ran == {}
        fake_server.answer = lambda request: (401, {})
        for _ in range(5):
            device.outbox.all_due()
            await device.report()
        fake_server.answer = fake_server.good
        await device.configure({"server_url": fake_server.url, "admin_key": "another"})
        await after(device)
        device.receive(message("ring", "r-2"))
        assert "r-2" in device.ran

    drive(story, "field", keys=("the-key",))


# --- enrollment


def test_two_consecutive_broadcasts_upload_the_fcm_token_with_the_first_device_token(fake_server, drive, after):
    async def story(device):
        device.two_broadcasts = True
        await device.enroll("an-enrollment-token")
        await after(device)
        await device.report()

    drive(story, "field", enroll=False)
    assert [request.path for request in fake_server.requests] == [
        "/v1/register",
        "/v1/register",
        "/v1/devices/fcm-token",
        "/v1/heartbeat",
    ]
    assert fake_server.requests[2].headers["authorization"] == "Bearer token-1"
    assert fake_server.requests[3].headers["authorization"] == "Bearer token-2"


def test_refused_fcm_token_upload_is_not_repeated(fake_server, drive, after):
    async def story(device):
        fake_server.answer = lambda request: (401, {}) if "fcm-token" in request.path else fake_server.good(request)
        await device.enroll("an-enrollment-token")
        await after(device)
        await device.report()

    drive(story, "field", enroll=False)
    assert len(fake_server.to("/v1/devices/fcm-token")) == 1
    assert fake_server.to("/v1/heartbeat")[0].body["fcm_token"]


@pytest.mark.parametrize("missing", ["server_url", "admin_key"])
def test_broadcast_without_server_url_or_admin_key_does_nothing(fake_server, drive, missing):
    async def story(device):
        extras = {"server_url": fake_server.url, "admin_key": "a-token", "hmac_primary_key": "new"}
        del extras[missing]
        await device.configure(extras)
        assert device._inbox.keys == ()

    drive(story, "field", enroll=False)
    assert fake_server.requests == []


def test_broadcast_with_keys_registers_again(fake_server, drive, after):
    async def story(device):
        await device.configure({"server_url": fake_server.url, "admin_key": "another", "hmac_primary_key": "new"})
        await after(device)
        assert device._inbox.keys == ("new",)

    drive(story, "field")
    assert [request.headers["x-admin-key"] for request in fake_server.to("/v1/register")] == [
        "an-enrollment-token",
        "another",
    ]


def test_default_alias_is_device(fake_server, drive):
    async def story(device):
        await device.configure({"server_url": fake_server.url, "admin_key": "a-token"})

    drive(story, "field", enroll=False)
    assert fake_server.to("/v1/register")[0].body == {"alias": "Device"}


def test_phone_enrolled_by_qr_code_has_no_key_and_verifies_nothing(drive, message):
    async def story(device):
        device.receive({**message("ring"), "hmac": "forged"})
        assert "r-1" in device.ran

    drive(story, "field", by_qr_code=True, keys=("the-key",))


@pytest.mark.parametrize(
    ("alias", "arrives_as"),
    [("Hall & Bar", "Hall "), ("Hall #2", "Hall "), ("Hall+1", "Hall 1"), ("50%25", "50%"), ("Hall 1", "Hall 1")],
)
def test_alias_of_a_qr_code_is_not_encoded(fake_server, drive, alias, arrives_as):
    async def story(device):
        device.alias = alias
        await device.enroll("a-token")

    drive(story, "field", enroll=False, by_qr_code=True)
    [request] = fake_server.to("/v1/register")
    assert parse_qs(urlsplit(request.path).query)["alias"] == [arrives_as]
    assert request.headers["x-admin"] == "a-token"


# --- the content of its heartbeats


def test_heartbeats_report_whether_the_monitored_app_is_in_front(fake_server, drive):
    async def story(device):
        device.phone.has_unity = True
        device.phone.hides_processes = True
        for _ in range(20):
            await device.report()
            device.outbox.clear()

    drive(story, "field")
    bodies = [request.body for request in fake_server.to("/v1/heartbeat")]
    assert not any(body["unity_process_running"] for body in bodies)
    assert any(0 <= body["monitored_foreground_recent_s"] < 600 for body in bodies)
    assert all(body["app_versions"][UNITY]["installed"] for body in bodies)


def test_phone_without_the_app_reports_its_absence(fake_server, drive):
    async def story(device):
        device.phone.has_unity = False
        await device.report()

    drive(story, "field")
    [request] = fake_server.to("/v1/heartbeat")
    assert request.body["app_versions"][UNITY] == {"installed": False}
    assert request.body["unity_process_running"] is False


def test_agent_ignores_pending_commands_and_the_next_interval(fake_server, drive, message, after):
    async def story(device):
        pending = [message("ring", "r-7")]
        fake_server.answer = lambda request: (200, {"next_heartbeat_seconds": 1, "pending_commands": pending})
        await device.report()
        await after(device)
        assert device.ran == {}

    drive(story, "field")


def test_heartbeats_of_the_same_ten_seconds_are_queued_once(drive):
    async def story(device):
        device.go_offline()
        device.phone.clock_offset = 5 - device.phone.clock() % 10
        for _ in range(3):
            await device.report()
        assert len(device.outbox) == 1

    drive(story, "field")


def test_queue_has_the_limits_of_the_agent():
    assert (outbox.LONGEST_AGE, outbox.MOST_ITEMS, outbox.MOST_BYTES) == (24 * 3600, 500, 10 * 1024 * 1024)


def test_unknown_profile_is_an_error(fake_server):
    with pytest.raises(ValueError, match="field and reference"):
        Fleet(fake_server.url, 1, None, Pace(), ("newest",))
