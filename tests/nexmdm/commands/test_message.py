"""The signatures of a message. The vectors are also in docs/device.md, for authors of agents."""

import hashlib
import hmac
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nexmdm.commands import actions, message
from nexmdm.runtime.errors import Invalid

KEY = "an example key"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "7d0f3a52-0000-4000-8000-000000000001"


def data(action: str, **payload: object) -> dict[str, str]:
    content = message.Content(request_id="r-1", device_id=DEVICE, action=action, payload=payload)
    return message.build(content, KEY, NOW)


def test_sig_is_computed_as_specified():
    """The computation is repeated here from the specification, independently of the code."""
    signed = data("launch_app", package_name="com.example.kiosk", intent_uri="intent:#Intent;S.name=ä;end")
    sig = signed.pop("sig")
    signed.pop("hmac")
    text = b"13:nexmdm.sig.v1,"
    for name in sorted(signed):
        for part in (name.encode(), signed[name].encode()):
            text += str(len(part)).encode() + b":" + part + b","
    assert hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest() == sig


@pytest.mark.parametrize("name", ["action", "request_id", "correlation_id", "device_id", "ts", "ssid", "password"])
def test_sig_covers_every_field(name: str):
    signed = data("wifi_connect", ssid="kiosks", password="correct horse")
    assert message.full_signature({**signed, name: "x"}, KEY) != signed["sig"]
    assert message.full_signature({**signed, "extra": ""}, KEY) != signed["sig"]


def test_moving_text_between_fields_changes_sig():
    assert message.canonical({"a": "b", "c": "d"}) != message.canonical({"a": "b,1:c", "": "d"})
    assert message.canonical({"a": "b,c,d"}) != message.canonical({"a": "b", "c": "d"})
    assert message.canonical({"a": "1:b,"}) != message.canonical({"a": "", "1": "b"})


def test_documented_vectors_are_correct():
    text = Path("docs/device.md").read_text()
    expected = {
        "ping": data("ping"),
        "wifi_connect": data("wifi_connect", ssid="Café", password="correct horse"),
    }
    for action, fields in expected.items():
        assert fields["hmac"] in text, (action, fields)
        assert fields["sig"] in text, (action, fields)
    assert message.canonical(expected["ping"]).decode() in re.sub(r"\n +", "", text)


@pytest.mark.parametrize("name", ["type", "package_name", "enable", "duration", "exec_id"])
def test_remote_exec_fcm_refuses_the_separator_in_signed_parameters(name: str):
    given = {"type": "launch_app", "package_name": "com.example.kiosk", name: "a|b"}
    with pytest.raises(Invalid):
        actions.parameters("remote_exec_fcm", given)


def test_shell_command_may_contain_the_separator():
    assert actions.parameters("remote_exec_shell", {"command": "ps | wc -l"}) == {"command": "ps | wc -l"}
