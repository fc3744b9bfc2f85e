"""The answer that CloudFormation waits for: one PUT of JSON to the event's ResponseURL.

The way there is S3's gateway endpoint, whose policy in template.yaml lets functions into CloudFormation's bucket.
"""

import json
import threading
import time
import urllib.request
from typing import Any

TRIES = 5


class Answer:
    """Given once, whoever is first; the address is presigned and is not logged."""

    def __init__(self, event: dict[str, Any], physical_id: str) -> None:
        self._event = event
        self._physical_id = event.get("PhysicalResourceId") or physical_id
        self._given = threading.Lock()

    def succeeded(self, data: dict[str, Any]) -> None:
        self._put({"Status": "SUCCESS", "Data": data})

    def failed(self, reason: str) -> None:
        self._put({"Status": "FAILED", "Reason": reason})

    def _put(self, answer: dict[str, Any]) -> None:
        if not self._given.acquire(blocking=False):
            return
        body = {
            **answer,
            "PhysicalResourceId": self._physical_id,
            **{name: self._event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        }
        # S3 signed the address without a content type, so none may be sent.
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
