"""The request bodies for each kind of webhook.

slack      https://api.slack.com/messaging/webhooks; Mattermost and Rocket.Chat accept it too
discord    https://discord.com/developers/docs/resources/webhook#execute-webhook
pagerduty  https://developer.pagerduty.com/docs/send-alert-event, one incident per alert rule
json       the message as data, signed: docs/operations.md
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from functions.notify.message import Message

LONGEST = {"slack": 3_000, "discord": 1_900}  # Discord rejects more than 2,000 characters, Slack truncates at 4,000
SIGNATURE = "X-NexMDM-Signature"
Bodies = Iterator[tuple[bytes, dict[str, str]]]


def of_host(url: str) -> Literal["slack", "discord"]:
    """The shape for a host: discord for Discord's hosts, slack for every other."""
    host = (urlsplit(url).hostname or "").removeprefix("canary.").removeprefix("ptb.")
    return "discord" if host in ("discord.com", "discordapp.com") else "slack"


def slack(message: Message, _key: str) -> Bodies:
    text = f"*{_escaped(message.subject)}*\n{_escaped(_cut(message, 'slack'))}"
    yield _json({"text": text}), {}


def discord(message: Message, _key: str) -> Bodies:
    # Escapes `[text](URL)`, which hides its target, because devices choose parts of the text, such as the agent's
    # version.
    message = msgspec.structs.replace(message, text=message.text.replace("](", "] ("))
    content = f"**{message.subject}**\n{_cut(message, 'discord')}"
    # An alias may contain @everyone.
    yield _json({"content": content, "allowed_mentions": {"parse": []}}), {}


def pagerduty(message: Message, key: str) -> Bodies:
    """One event per rule: `trigger` when alerts opened, `resolve` when the last one recovered. A message without groups
    (a CloudWatch alarm) triggers an incident for its subject."""
    for group in message.groups:
        event = {"routing_key": key, "dedup_key": f"{message.stack}:{group.rule}"[:255]}
        if group.notice == "opened":
            payload = {
                "summary": group.text[:1024],
                "source": message.stack,
                "severity": group.severity,
                "class": group.condition,
                "custom_details": {"devices": group.devices, "still_open": group.still_open, "rule": group.rule},
            }
            yield _json({**event, "event_action": "trigger", "payload": payload}), {}
        elif group.still_open == 0:
            yield _json({**event, "event_action": "resolve"}), {}
    if not message.groups:
        payload = {"summary": f"{message.subject}: {message.text}"[:1024], "source": message.stack, "severity": "error"}
        event = {"routing_key": key, "dedup_key": f"{message.stack}:{message.subject}"[:255]}
        yield _json({**event, "event_action": "trigger", "payload": payload}), {}


def signed_json(message: Message, key: str) -> Bodies:
    """The message as JSON; the signature covers the time and the body, so that a receiver can reject a replay."""
    body = msgspec.json.encode(message)
    yield body, {SIGNATURE: signature(key, int(time.time()), body)}


def signature(key: str, at: int, body: bytes) -> str:
    """`t=<unix seconds>,v1=<hex HMAC-SHA256(key, t + "." + body)>`"""
    digest = hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


SHAPES: dict[str, Callable[[Message, str], Bodies]] = {
    "slack": slack,
    "discord": discord,
    "pagerduty": pagerduty,
    "json": signed_json,
}


def _cut(message: Message, shape: str) -> str:
    room = LONGEST[shape] - len(message.subject)
    return message.text if len(message.text) <= room else f"{message.text[:room]} …"


def _escaped(text: str) -> str:
    """Text escaped for Slack, because an alias may contain <!channel>."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()
