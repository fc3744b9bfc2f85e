"""The fake's behaviours: FCM's responses, and faults on the socket."""

import json
import random
import uuid
from dataclasses import dataclass

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

# kind: (HTTP status, Google's status, FCM's errorCode or None)
ERRORS: dict[str, tuple[int, str, str | None]] = {
    "400": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "401": (401, "UNAUTHENTICATED", None),
    "403": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
    "404": (404, "NOT_FOUND", "UNREGISTERED"),
    "404-no-details": (404, "NOT_FOUND", None),
    "429": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    "500": (500, "INTERNAL", "INTERNAL"),
    "503": (503, "UNAVAILABLE", "UNAVAILABLE"),
}
# half: half a response. nothing: the stream ends without one. silence: neither, until the caller gives up.
FAULTS = ("half", "nothing", "reset", "silence")
KINDS = ("200", *ERRORS, "502", "redirect", *FAULTS)
# After these FCM may or may not have accepted the message.
AMBIGUOUS = ("500", "502", "503", *FAULTS)


@dataclass(frozen=True)
class Behaviour:
    """kind: one of KINDS. delivered: whether the device gets the message; by default only after 200 and half a
    response.

    retry_after: seconds, for 429 and 503. times: the number of messages that it applies to; None for all.
    """

    kind: str = "200"
    delivered: bool | None = None
    retry_after: int | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"behaviour: {self.kind!r} is not one of {', '.join(KINDS)}")

    @property
    def delivers(self) -> bool:
        return self.kind in ("200", "half") if self.delivered is None else self.delivered


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json; charset=UTF-8"


def reply(behaviour: Behaviour, project: str) -> Reply | None:
    """The response; None for a fault, except for half a response, which is half of a good one."""
    kind = behaviour.kind
    headers = (("Retry-After", str(behaviour.retry_after)),) if behaviour.retry_after is not None else ()
    if kind in ("200", "half"):
        return json_reply(200, {"name": f"projects/{project}/messages/0:{uuid.uuid4().int % 10**16:016}%31bd1c96"})
    if kind in ERRORS:
        return _error(*ERRORS[kind], headers)
    if kind == "502":
        return Reply(502, b"<html><title>502 Bad Gateway</title><h1>Bad Gateway</h1></html>", headers, "text/html")
    if kind == "redirect":
        return Reply(307, b"", (("Location", f"/v1/projects/{project}/messages:send"),))
    return None


def at_random(rng: random.Random, share: float) -> Behaviour:
    """With probability `share` a transient fault, delivered or not where FCM leaves that open; otherwise good.

    Errors that end a device's registration are excluded, because the fleet would eventually have none left.
    """
    if rng.random() >= share:
        return Behaviour()
    kind = rng.choice(["401", "429", "redirect", *AMBIGUOUS])
    retry_after = rng.choice([None, 1, 3]) if kind in ("429", "503") else None
    return Behaviour(kind, rng.random() < 0.5 if kind in AMBIGUOUS else False, retry_after)


def json_reply(status: int, document: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers)


def _error(code: int, status: str, error_code: str | None, headers: tuple[tuple[str, str], ...]) -> Reply:
    details = [{"@type": FCM_ERROR, "errorCode": error_code}] if error_code else []
    message = f"The fake responds with {status}."
    error = {"code": code, "message": message, "status": status, "details": details}
    return json_reply(code, {"error": error}, headers)
