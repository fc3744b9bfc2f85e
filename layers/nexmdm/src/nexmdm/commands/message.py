"""The FCM data message for an agent, with its two signatures. docs/device.md specifies both."""

import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from nexmdm.commands.actions import Params, as_strings, signed_names
from nexmdm.runtime.errors import Invalid

MAX_DATA_BYTES = 4096  # FCM's limit on a message's payload
SIGNATURES = ("hmac", "sig")
_SIG_VERSION = "nexmdm.sig.v1"


class Content(Struct, kw_only=True):
    """The content of a dispatch's message. `secrets` are the parameters that are stored separately."""

    request_id: str
    device_id: str
    action: str
    payload: Params
    secrets: Params | None = None


def build(content: Content, key: str | None, now: datetime | None = None) -> dict[str, str]:
    """The data of one message. `ts` and the signatures are new each time, because the agent drops messages after 300 s.

    Args:
        key: the HMAC key that devices hold; without one the message is not signed and the agent does not check it.
    """
    parameters = as_strings({**content.payload, **(content.secrets or {})})
    request_id, action = content.request_id, content.action
    # Older Android cannot parse an offset.
    ts = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    data = {
        **parameters,
        "action": action,
        "request_id": request_id,
        "correlation_id": request_id,
        "device_id": content.device_id,
        "ts": ts,
    }
    if signed_names(action):
        data.setdefault("exec_id", request_id)
    if key:
        data["hmac"] = signature(data, key)
        data["sig"] = full_signature(data, key)
    return data


def signature(data: dict[str, str], key: str) -> str:
    """`hmac` as the existing agent computes it: over `request_id|device_id|action|ts` and the signed parameters.

    It is hex HMAC-SHA256 and does not cover the other parameters; `sig` does.
    """
    text = "|".join(data[name] for name in ("request_id", "device_id", "action", "ts"))
    signed = sorted(name for name in signed_names(data["action"]) if data.get(name))
    text += "".join(f"|{name}:{data[name]}" for name in signed)
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def full_signature(data: dict[str, str], key: str) -> str:
    """`sig`: hex HMAC-SHA256 over every field except the signatures themselves."""
    return hmac.new(key.encode(), canonical(data), hashlib.sha256).hexdigest()


def canonical(data: dict[str, str]) -> bytes:
    """The bytes that `sig` covers: a version, then name and value of each field, sorted by the names' UTF-8 bytes.

    Each string is written as its length in bytes, a colon, its UTF-8 bytes and a comma, so that no two messages have
    the same encoding.
    """
    return b"".join(b"%d:%s," % (len(text), text) for text in _texts(data))


def _texts(data: dict[str, str]) -> Iterator[bytes]:
    yield _SIG_VERSION.encode()
    for name in sorted(data.keys() - set(SIGNATURES), key=str.encode):
        yield name.encode()
        yield data[name].encode()


def check_size(content: Content) -> None:
    """Reject a message that FCM would reject, before anything is stored.

    Raises:
        Invalid: the message has more than 4,096 bytes.
    """
    data = build(content, key="any: every signature has the same size")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in data.items())
    if size > MAX_DATA_BYTES:
        raise Invalid("$.params", f"result in a message of {size} bytes; FCM accepts at most {MAX_DATA_BYTES}")
