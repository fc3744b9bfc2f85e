"""How an agent handles a message from FCM: it checks the signature and records the commands that it ran."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from local.fleet.ledger import Ledger

WINDOW_SECONDS = 300
SIGNED_PARAMETERS = {
    "remote_exec_shell": ("command",),
    "remote_exec_fcm": ("duration", "enable", "package_name", "type"),
}


@dataclass
class Run:
    """One command that a phone ran. succeeded: None while it is running."""

    action: str
    succeeded: bool | None = None


class Inbox:
    """Receives messages and passes on the genuine ones.

    Args:
        keys: the HMAC keys of the device, primary and rotation; without a key nothing is checked, as in the agent.
        handle: called with the request_id and the data of a genuine message.
    """

    def __init__(self, ledger: Ledger, keys: tuple[str, ...], handle: Callable[[str, dict[str, str]], None]) -> None:
        self._ledger, self._handle = ledger, handle
        self.keys = keys

    def receive(self, device_id: str, data: dict[str, str]) -> None:
        self._ledger.messages += 1
        if self._is_genuine(device_id, data):
            self._handle(data.get("request_id", ""), data)
        else:
            self._ledger.messages_refused += 1

    def _is_genuine(self, device_id: str, data: dict[str, str]) -> bool:
        """Check a message. The agent checks the time only if it has a key, and uses its own id, not the message's."""
        if not self.keys:
            return True
        try:
            sent = datetime.fromisoformat(data.get("ts", "")).timestamp()
        except ValueError:
            return False
        signed = signature_text(device_id, data).encode()
        expected = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in self.keys]
        given = data.get("hmac", "")
        return abs(time.time() - sent) <= WINDOW_SECONDS and any(hmac.compare_digest(given, e) for e in expected)


def signature_text(device_id: str, data: dict[str, str]) -> str:
    """request_id|device_id|action|ts, and `|key:value` for each signed parameter that is not empty, sorted by key."""
    action = data.get("action", "")
    parameters = [f"|{name}:{data[name]}" for name in SIGNED_PARAMETERS.get(action, ()) if data.get(name)]
    return f"{data.get('request_id', '')}|{device_id}|{action}|{data.get('ts', '')}" + "".join(parameters)
