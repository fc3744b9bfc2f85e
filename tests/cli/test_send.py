import json
import secrets

import pytest

from tests.cli.relay import relay


@pytest.fixture(scope="module")
def phones(stack):
    return {alias: stack.enroll(alias) for alias in ("send-a", "send-b", "send-c")}


@pytest.fixture(autouse=True)
def phone(phones, stack):
    """The first phone. All phones answer, and FCM accepts every message."""
    stack.fake_fcm.forget()
    for phone in phones.values():
        phone.answer = "success"
    return phones["send-a"]


def test_command_to_one_device_is_followed_until_it_answers(run, data, phone):
    row = data("send", "ring", "duration=7", "--to", "send-a")
    # An agent does not answer a ring, so the command does not wait for one.
    assert (row["state"], row["params"]) == ("sent", {"duration": 7})
    result = run("send", "ping", "--to", phone.device_id)
    assert "success" in result.stdout
    assert "answered: success" in result.stderr


def test_action_without_an_answer_is_done_when_it_is_sent(run, data, phone):
    phone.answer = None
    done = run("send", "reboot", "--to", "send-a")
    assert "sent; the agent does not report the result of this action" in done.stdout
    assert data("send", "reboot", "--to", "send-a")["completed_at"] is None


def test_answer_that_waits_for_a_heartbeat_is_fetched_by_a_ping(run, stack, phone, monkeypatch):
    monkeypatch.setattr("nexmdm_cli.following.PINGS_AFTER", (0.0,))
    phone.answer = None
    arguments = ("send", "launch_app", "package_name=com.example.kiosk", "--to", "send-a", "--timeout", "2")
    waiting = run(*arguments, code=1).stderr
    assert "comes with its next heartbeat" in waiting
    sent = [request.data["action"] for request in stack.fake_fcm.requests() if request.token == phone.address]
    assert sent == ["launch_app", "ping"]


def test_until_answered_option_sets_the_delivery(data):
    row = data("send", "ping", "--to", "send-a", "--until-answered")
    assert row["delivery"] == "until_answered"
    assert data("commands", "result", row["request_id"])["result"] == "success"


def test_failure_on_the_device_is_a_failure(run, phone):
    phone.answer = "FAILED"
    assert "The device answered FAILED" in run("send", "ping", "--to", "send-a", code=1).stderr


def test_command_without_an_answer_is_reported_as_unsettled(run, data, phone):
    phone.answer = None
    unsettled = run("send", "ping", "--to", "send-a", "--timeout", "0.3", "--json", code=1)
    assert json.loads(unsettled.stdout)["state"] == "sent"
    assert "waiting for the device's answer" in unsettled.stderr
    assert "commands show" in unsettled.stderr
    assert data("send", "ping", "--to", "send-a", "--until-sent")["completed_at"] is None
    assert data("send", "ping", "--to", "send-a", "--no-wait")["completed_at"] is None


def test_refused_and_unknown_sends_are_reported(run, stack, phone):
    stack.fake_fcm.behave(phone.address, "400")
    assert "is failed" in run("send", "ping", "--to", "send-a", code=1).stderr
    stack.fake_fcm.behave(phone.address, "503")
    unknown = run("send", "ping", "--to", "send-a", "--timeout", "0.3", code=1).stderr
    assert "FCM may have it" in unknown
    assert "resend" in unknown


def test_send_accepts_several_devices_or_a_filter(run, data, stack):
    batch = data("send", "wake", "--to", "send-a", "--to", "send-b")
    assert (batch["device_count"], batch["states"]) == (2, {"sent": 2})
    assert "2 named devices" in run("commands", "show", batch["request_id"]).stdout
    wide = ("send", "wake", "--alias-prefix", "send-")
    asked = run(*wide, code=2)
    assert "Send wake to 3 devices (send-a, send-b, send-c)?" in asked.stderr
    assert "--yes" in asked.stderr
    assert data(*wide, "--yes")["states"] == {"sent": 3}
    silent = data("send", "wake", "--silent", "--yes", "--no-wait")
    assert silent["selector"] == {"filter": {"online": False}}
    assert "online no" in run("commands", "show", silent["request_id"]).stdout
    stack.fake_fcm.behave("fcm:send-b", "400")
    failed = run(*wide, "--yes", code=1)
    assert "1 failed" in failed.stderr
    assert "commands list --batch" in failed.stderr


def test_send_accepts_parameters(data, run, operator, stack):
    (operator / "password").write_text("of-the-file\n")
    row = data("send", "wifi_connect", "ssid=a=b", "password=@password", "--to", "send-a")
    assert row["params"] == {"ssid": "a=b", "password": "***"}
    assert "of-the-file" not in json.dumps(row)
    assert stack.fake_fcm.posts(row["request_id"])[0].data["password"] == "of-the-file"
    listed = data("send", "apply_battery_whitelist", 'packages:=["com.a.b"]', "--to", "send-a")
    assert listed["params"] == {"packages": ["com.a.b"]}
    typed = run("send", "wifi_connect", "ssid=x", "password=@-", "--to", "send-a", "--json", answer="typed-in-full\n")
    assert stack.fake_fcm.posts(json.loads(typed.stdout)["request_id"])[0].data["password"] == "typed-in-full"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ping",), 2, "--to"),
        (("ping", "--all", "--online"), 2, "--all"),
        (("ping", "--to", "send-a", "--all"), 2, "either"),
        (("ping", "lobby", "--to", "send-a"), 2, "NAME=VALUE"),
        (("ring", "duration:=x", "--to", "send-a"), 2, "duration"),
        (("ring", "duration:=NaN", "--to", "send-a"), 2, "duration"),
        (("ring", "duration:=1e999", "--to", "send-a"), 2, "duration"),
        (("ring", f"duration:={'[' * 100_000}", "--to", "send-a"), 2, "nested too deeply"),
        (("ping", "--to", "send-a", "--timeout", "nan"), 2, "--timeout"),
        (("wifi_connect", "ssid=@nowhere", "--to", "send-a"), 2, "ssid"),
        (("ping", "--to", "send-"), 3, "There are send-a, send-b, send-c."),
        (("ping", "--alias-prefix", "nobodys", "--yes"), 3, "No device matches."),
        (("ring", "duration=500", "--to", "send-a"), 4, "$.params.duration"),
        (("fly", "--to", "send-a"), 4, "$.action"),
        (("ping", "--to", "send-a", "--request-id", "a b"), 4, "Idempotency-Key"),
    ],
)
def test_invalid_send_is_named(run, arguments, code, said):
    failed = run("send", *arguments, code=code)
    assert said in failed.stderr
    assert failed.stdout == ""


def test_given_request_id_is_sent_once(data, run, stack):
    request_id = secrets.token_hex(4)
    for _ in range(2):
        assert data("send", "ping", "--to", "send-a", "--request-id", request_id)["result"] == "success"
    assert len(stack.fake_fcm.posts(request_id)) == 1
    assert (
        "belongs to another command" in run("send", "wake", "--to", "send-a", "--request-id", request_id, code=4).stderr
    )


@pytest.mark.parametrize("to", [("--to", "send-c"), ("--to", "send-c", "--to", "send-b")])
def test_lost_response_creates_no_second_command(data, stack, phones, to):
    """The relay drops the first two responses; the command continues with the key that it began with."""
    known = len(data("commands", "list", "--device", "send-c"))
    with relay(stack.url, lose=2) as line:
        row = data("send", "ping", *to, "--url", line.url)
        assert line.posts == 3
    assert len(data("commands", "list", "--device", "send-c")) == known + 1
    assert len([r for r in stack.fake_fcm.requests() if r.token == phones["send-c"].address]) == 1
    assert row["request_id"]


def test_command_explains_how_to_continue_when_every_response_is_lost(run, stack, monkeypatch, phone):
    monkeypatch.setattr("nexmdm_cli.api.TRIES", 2)
    with relay(stack.url, lose=99) as line:
        lost = run("send", "ping", "--to", "send-a", "--url", line.url, code=6).stderr
    key = lost.split("Repeat it with the id ")[1].split()[0]
    assert "--request-id" in lost
    again = run("send", "ping", "--to", "send-a", "--request-id", key)
    assert "success" in again.stdout
    assert len(stack.fake_fcm.posts(key)) == 1


def test_completion_offers_the_actions_of_the_api():
    from nexmdm.commands.actions import ACTIONS
    from nexmdm_cli import send

    assert list(send.actions()) == list(ACTIONS)
    assert send.complete_action("re") == [
        "restart_app",
        "reboot",
        "remote_control",
        "remote_exec_fcm",
        "remote_exec_shell",
    ]
