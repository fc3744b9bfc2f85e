"""The response that CloudFormation waits for: one PUT of JSON to the event's ResponseURL.

The event is untrusted input, so the response is sent only to https URLs at hosts of AWS. (It passes through S3's
gateway endpoint, whose policy in template.yaml allows CloudFormation's bucket.)
"""

import json
import re
import threading
import time
import urllib.request
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from nexmdm.runtime import settings
from nexmdm.runtime.errors import Named

# What CloudFormation sends: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
Event: TypeAlias = dict[str, Any]
TRIES = 5
AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")


class NoAnswer(Named):
    """The event's ResponseURL does not belong to CloudFormation; nothing was sent."""


class Answer:
    """The response, sent only once, by the first caller. Its URL is presigned and is not logged."""

    def __init__(self, event: Event, physical_id: str) -> None:
        """Raises:
        NoAnswer: the event's URL is not at a host of AWS.
        """
        if not _may_be_told(event["ResponseURL"]):
            raise NoAnswer("ResponseURL is not an https URL of AWS")
        self._event = event
        self._physical_id = event.get("PhysicalResourceId") or physical_id
        self._given = threading.Lock()

    def succeeded(self, data: dict[str, object]) -> None:
        self._put({"Status": "SUCCESS", "Data": data})

    def failed(self, reason: str) -> None:
        self._put({"Status": "FAILED", "Reason": reason})

    def _put(self, answer: dict[str, object]) -> None:
        if not self._given.acquire(blocking=False):
            return
        body = {
            **answer,
            "PhysicalResourceId": self._physical_id,
            **{name: self._event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        }
        # S3 signed the URL without a content type, so none may be sent.
        request = urllib.request.Request(  # noqa: S310 (CloudFormation gives the address)
            self._event["ResponseURL"], data=json.dumps(body).encode(), method="PUT", headers={"Content-Type": ""}
        )
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                    return
            except OSError:
                if not left:
                    raise
            time.sleep(0.2 * (TRIES - left))


def _may_be_told(url: str) -> bool:
    """Whether the URL is https at the default port of an AWS host, or at the host and port in RESPONSE_HOST."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme in ("http", "https") and parts.netloc == settings.response_host():
        return True
    return (
        parts.scheme == "https"
        and port in (None, 443)
        and parts.username is None
        and re.fullmatch(r"[a-z0-9.-]+", host) is not None
        and host.endswith(AWS_HOSTS)
    )
