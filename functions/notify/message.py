"""Messages from the topic: a notification of the watch, a CloudWatch alarm, or any other text."""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from functions.notify import alarm

# A message of SNS: https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html
Notification: TypeAlias = dict[str, Any]


class Group(Struct):
    """The changes of one alert rule; see nexmdm.alerts.notifications."""

    condition: str
    rule: str
    notice: Literal["opened", "recovered"]
    severity: Literal["info", "warning", "critical"]
    devices: int
    still_open: int
    text: str


class Message(Struct, kw_only=True):
    """routes: names from NOTIFICATION_ROUTES; empty for WEBHOOK_URL."""

    subject: str
    text: str
    stack: str = "nexmdm"
    routes: list[str] = []
    groups: list[Group] = []


def of(sns: Notification) -> Message:
    """The message of one SNS record."""
    attribute = (sns.get("MessageAttributes") or {}).get("notification")
    if attribute:
        return msgspec.json.decode(attribute["Value"], type=Message)
    title, text = alarm.in_words(sns["Message"]) or (sns.get("Subject") or "NexMDM", sns["Message"])
    return Message(subject=title, text=text)
