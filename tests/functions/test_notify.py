"""What is posted to a webhook, in which format, and that its URL is never revealed."""

import hashlib
import hmac
import json
import socket

import pytest
from nexmdm.runtime import settings
from nexmdm.runtime.settings import SettingsError

from functions.notify import shapes
from functions.notify import webhook as posting
from functions.notify.handler import handler
from tests.support import samples
from tests.support.api import CONTEXT
from tests.support.webhook import SECRET_PATH, Webhook


def told(subject: str | None, message: str) -> dict:
    return {"Records": [{"Sns": {"Subject": subject, "Message": message}}]}


def configure(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.load.cache_clear()


def test_alerts_are_posted_in_the_format_of_slack(webhook: Webhook):
    assert handler(samples.load("notify"), CONTEXT) == {"posted": 1}
    [body] = webhook.posted
    assert body.keys() == {"text"}
    title, *lines = body["text"].splitlines()
    assert title == "*nexmdm-prod alerts: 3 new, 1 recovered*"
    assert lines[1:] == ["Low battery: kiosk-7 (9 %)", "Recovered (app down): kiosk-3"]
    assert webhook.asked == [f"POST {SECRET_PATH}"]


def test_cloudwatch_alarm_is_posted_in_words(webhook: Webhook):
    handler(samples.load("notify-alarm"), CONTEXT)
    assert webhook.posted[0]["text"].splitlines() == [
        "*ALARM: nexmdm-prod-DispatchesUnknown-1A2B3C*",
        "There are commands with an unknown outcome: docs/operations.md#dispatchesunknown",
        "Threshold Crossed: 1 datapoint [2.0 (01/01/26 00:00:00)] was greater than the threshold (0.0).",
        "EU (Ireland) 2026-01-01T00:05:12.345+0000",
    ]


def test_recovered_alarm_has_no_datapoints(webhook: Webhook):
    event = samples.load("notify-alarm")
    sns = event["Records"][0]["Sns"]
    sns["Message"] = json.dumps({**json.loads(sns["Message"]), "NewStateValue": "OK"})
    handler(event, CONTEXT)
    assert "Threshold Crossed" not in webhook.posted[0]["text"]
    assert webhook.posted[0]["text"].startswith("*OK: nexmdm-prod-Dispatches")


@pytest.mark.parametrize("message", ["[1]", "{}", '"text"', "12", "not JSON"])
def test_any_other_message_is_posted_unchanged(webhook: Webhook, message: str):
    handler(told(None, message), CONTEXT)
    assert webhook.posted == [{"text": f"*NexMDM*\n{message}"}]


def test_discord_message_mentions_no_user(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, WEBHOOK_SHAPE="discord")
    webhook.shape = "discord"
    handler(told("1 new", "Silent: @everyone"), CONTEXT)
    assert webhook.posted == [{"content": "**1 new**\nSilent: @everyone", "allowed_mentions": {"parse": []}}]


def test_discord_links_show_their_target(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, WEBHOOK_SHAPE="discord")
    webhook.shape = "discord"
    handler(told("1 new", "Silent: [the console](https://evil.example)"), CONTEXT)
    assert webhook.posted[0]["content"].endswith("Silent: [the console] (https://evil.example)")


def test_alias_is_escaped_for_slack(webhook: Webhook):
    handler(told("1 new", "Silent: <!channel> & <https://x|y>"), CONTEXT)
    assert webhook.posted[0]["text"].endswith("Silent: &lt;!channel&gt; &amp; &lt;https://x|y&gt;")


@pytest.mark.parametrize(("shape", "most"), [("slack", 4_000), ("discord", 2_000)])
def test_long_message_is_cut_to_the_limit_of_the_webhook(webhook: Webhook, monkeypatch, shape: str, most: int):
    configure(monkeypatch, WEBHOOK_SHAPE=shape)
    webhook.shape = shape
    handler(told("s", "x" * 10_000), CONTEXT)
    text = next(iter(webhook.posted[0].values()))
    assert most * 0.7 < len(text) <= most
    assert text.endswith(" …")


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://canary.discordapp.com/api/webhooks/1/x", "discord"),
        ("https://chat.example/hooks/discord.com", "slack"),
    ],
)
def test_webhook_host_determines_the_format(url: str, shape: str):
    assert shapes.of_host(url) == shape


@pytest.mark.parametrize("status", [429, 500, 503, 404, 302])
def test_refused_post_fails_the_invocation_without_the_url(webhook: Webhook, status: int):
    """Lambda retries the invocation. A redirect is not followed and does not count as success."""
    webhook.answer = status
    with pytest.raises(posting.NotPosted, match=f"^The webhook answered {status}$"):
        handler(told("s", "m"), CONTEXT)
    assert webhook.asked == [f"POST {SECRET_PATH}"]


def test_silent_webhook_fails_the_invocation_without_the_url(webhook: Webhook, monkeypatch, capfd):
    webhook.answer = None
    monkeypatch.setattr(posting, "TIMEOUT", posting.urllib3.Timeout(connect=5, read=0.2))
    posting._pool.cache_clear()
    with pytest.raises(posting.NotPosted, match="ReadTimeoutError") as raised:
        handler(told("s", "m"), CONTEXT)
    posting._pool.cache_clear()
    assert len(webhook.posted) == 1
    assert_url_not_revealed(raised, capfd)


@pytest.mark.parametrize(
    "wrong", ["no canary", "ftp://canary/x", "https://canary[1/x", "https://u:canary@host/x", "canary\nhttps://h/x"]
)
def test_invalid_webhook_url_is_named_and_not_quoted(webhook: Webhook, monkeypatch, capfd, wrong: str):
    configure(monkeypatch, WEBHOOK_URL=wrong)
    with pytest.raises(SettingsError, match="WEBHOOK_URL is wrong") as raised:
        handler(told("s", "m"), CONTEXT)
    printed = capfd.readouterr()
    assert "canary" not in str(raised.value) + printed.out + printed.err


def test_unreachable_webhook_url_is_not_revealed(webhook: Webhook, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    configure(monkeypatch, WEBHOOK_URL=f"http://127.0.0.1:{port}/services/secret")
    with pytest.raises(posting.NotPosted) as raised:
        handler(told("s", "m"), CONTEXT)
    assert_url_not_revealed(raised, capfd)


def assert_url_not_revealed(raised: pytest.ExceptionInfo, capfd: pytest.CaptureFixture[str]) -> None:
    """Lambda logs the text of an error and of the errors in its chain."""
    printed = capfd.readouterr()
    for text in (str(raised.value), printed.out, printed.err):
        assert "secret" not in text
        assert "127.0.0.1" not in text
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_missing_webhook_url_names_the_setting(url: str):
    settings.load.cache_clear()
    with pytest.raises(settings.SettingsError, match=r"^WEBHOOK_URL and NOTIFICATION_ROUTES are not set"):
        handler(told("s", "m"), CONTEXT)


# --- named routes

GROUP = {
    "condition": "low_battery",
    "rule": "tills",
    "notice": "opened",
    "severity": "critical",
    "devices": 2,
    "still_open": 2,
    "text": "Low battery [tills]: 2 devices: a (9 %), b (8 %)",
}


def routed(*groups: dict, routes: tuple[str, ...] = ("ops",)) -> dict:
    """A notification of the watch, as SNS passes it to the function."""
    notification = {"claim_id": "c", "stack": "nexmdm-prod", "subject": "s", "text": "t", "routes": routes}
    value = json.dumps({**notification, "groups": groups})
    attributes = {"notification": {"Type": "String", "Value": value}}
    return {"Records": [{"Sns": {"Subject": "s", "Message": "t", "MessageAttributes": attributes}}]}


@pytest.fixture
def route(webhook: Webhook, monkeypatch: pytest.MonkeyPatch):
    def route(shape: str, key: str | None = None, name: str = "ops") -> None:
        webhook.shape = shape
        monkeypatch.delenv("WEBHOOK_URL", raising=False)
        configure(monkeypatch, NOTIFICATION_ROUTES=json.dumps({name: {"url": webhook.url, "shape": shape, "key": key}}))

    return route


def test_pagerduty_gets_an_incident_per_rule_and_its_resolution(webhook: Webhook, route):
    route("pagerduty", "routing-key")
    handler(routed(GROUP), CONTEXT)
    handler(routed({**GROUP, "notice": "recovered", "still_open": 1}), CONTEXT)
    handler(routed({**GROUP, "notice": "recovered", "still_open": 0}), CONTEXT)
    trigger, resolve = webhook.posted
    assert trigger == {
        "routing_key": "routing-key",
        "event_action": "trigger",
        "dedup_key": "nexmdm-prod:tills",
        "payload": {
            "summary": GROUP["text"],
            "source": "nexmdm-prod",
            "severity": "critical",
            "class": "low_battery",
            "custom_details": {"devices": 2, "still_open": 2, "rule": "tills"},
        },
    }
    assert resolve == {"routing_key": "routing-key", "event_action": "resolve", "dedup_key": "nexmdm-prod:tills"}


def test_json_signature_covers_time_and_body(webhook: Webhook, route):
    route("json", "the key")
    handler(routed(GROUP), CONTEXT)
    [(headers, body)] = webhook.received
    sent = dict(part.split("=", 1) for part in headers["X-NexMDM-Signature"].split(","))
    expected = hmac.new(b"the key", f"{sent['t']}.".encode() + body, hashlib.sha256).hexdigest()
    assert sent["v1"] == expected
    assert json.loads(body)["groups"] == [GROUP]


def test_signature_matches_the_documented_vector():
    assert shapes.signature("secret", 1_767_225_600, b'{"text":"t"}') == (
        "t=1767225600,v1=efe445bc881e0f614a5e7377d6048a45c82620f146f97c1589077323ae773f74"  # as in docs/operations.md
    )


def test_missing_route_fails_after_the_others_were_posted(webhook: Webhook, route):
    route("slack")
    with pytest.raises(posting.NotPosted, match="no route 'typo'"):
        handler(routed(GROUP, routes=("typo", "ops")), CONTEXT)
    assert [body["text"] for body in webhook.posted] == ["*s*\nt"]


def test_notification_without_routes_goes_only_to_the_webhook_url(webhook: Webhook, route):
    route("slack")
    assert handler(routed(GROUP, routes=()), CONTEXT) == {"posted": 0}


@pytest.mark.parametrize(
    "setting",
    [
        "no json",
        "[]",
        '{"ops": {"url": "https://canary.example/secret", "shape": "email"}}',
        '{"ops": {"url": "canary.example/secret", "shape": "slack"}}',
        '{"ops": {"url": "https://canary.example/secret", "shape": "pagerduty"}}',
    ],
)
def test_unreadable_routes_are_named_by_form_without_a_url(webhook: Webhook, monkeypatch, setting: str):
    configure(monkeypatch, NOTIFICATION_ROUTES=setting)
    with pytest.raises(settings.SettingsError, match=r"^NOTIFICATION_ROUTES is wrong") as raised:
        handler(routed(GROUP), CONTEXT)
    assert "canary" not in str(raised.value)
