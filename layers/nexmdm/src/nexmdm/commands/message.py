"""The FCM data message that the agent in the field reads, and its HMAC."""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

from nexmdm.commands.actions import SIGNED, as_strings
from nexmdm.runtime.errors import Invalid

MAX_DATA_BYTES = 4096  # FCM's limit on a message's payload


def build(dispatch: dict[str, Any], key: str | None, now: datetime | None = None) -> dict[str, str]:
    """The data of one message; `ts` and `hmac` are fresh each time, since the agent drops what is 300 s old.

    Args:
        dispatch: request_id, device_id, action, payload and secrets of a dispatch.
        key: the HMAC key that devices hold; without one the message carries no hmac and the agent checks none.
    """
    parameters = as_strings({**dispatch["payload"], **(dispatch["secrets"] or {})})
    request_id, action = dispatch["request_id"], dispatch["action"]
    # Older Android cannot parse an offset.
    ts = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    data = {
        **parameters,
        "action": action,
        "request_id": request_id,
        "correlation_id": request_id,
        "device_id": dispatch["device_id"],
        "ts": ts,
    }
    if action in SIGNED:
        data.setdefault("exec_id", request_id)
    if key:
        data["hmac"] = signature(data, key)
    return data


def signature(data: dict[str, str], key: str) -> str:
    """Hex HMAC-SHA256 over `request_id|device_id|action|ts` and the signed parameters, as the agent computes it."""
    text = "|".join(data[name] for name in ("request_id", "device_id", "action", "ts"))
    signed = sorted(name for name in SIGNED.get(data["action"], ()) if data.get(name))
    text += "".join(f"|{name}:{data[name]}" for name in signed)
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def check_size(dispatch: dict[str, Any]) -> None:
    """Refuse what FCM would refuse, before anything is stored.

    Raises:
        Invalid: the message has more than 4,096 bytes.
    """
    data = build(dispatch, key="any: every signature has the same size")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in data.items())
    if size > MAX_DATA_BYTES:
        raise Invalid("$.params", f"make a message of {size} bytes; FCM takes {MAX_DATA_BYTES}")
