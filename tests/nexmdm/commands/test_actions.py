"""The parameters of actions. None of them reaches a shell on the phone, except the command of remote_exec_shell."""

import re
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from nexmdm.commands import actions
from nexmdm.commands.states import Answered
from nexmdm.runtime.errors import Invalid

NEVER_IN_A_SHELL = "the agent hands it to an Android API"
PACKAGE = "names of packages are interpolated into `cmd deviceidle` and `cmd appops`: only Android's own pattern passes"
QUOTED = "is put between double quotes with backslash and quote escaped: $, ` and line breaks are refused"

# Each text parameter of each action, with the reason why it cannot run anything on the phone.
TEXTS = {
    ("install_apk", "download_url"): NEVER_IN_A_SHELL,
    ("install_apk", "package_name"): NEVER_IN_A_SHELL,
    ("install_apk", "version_name"): NEVER_IN_A_SHELL,
    ("launch_app", "package_name"): NEVER_IN_A_SHELL,
    ("launch_app", "intent_uri"): NEVER_IN_A_SHELL,
    ("remote_control", "command"): "is one of a list",
    ("remote_control", "text"): NEVER_IN_A_SHELL,
    ("apply_battery_whitelist", "packages"): PACKAGE,
    ("wifi_connect", "ssid"): QUOTED,
    ("wifi_connect", "password"): QUOTED,
    ("wifi_connect", "security_type"): "is one of a list, and only compared",
    ("remote_exec_fcm", "type"): "is one of a list",
    ("remote_exec_fcm", "exec_id"): "comes back in the answer alone",
    ("remote_exec_fcm", "package_name"): NEVER_IN_A_SHELL,
    ("remote_exec_fcm", "intent_uri"): NEVER_IN_A_SHELL,
    ("remote_exec_shell", "exec_id"): "comes back in the answer alone",
    ("remote_exec_shell", "command"): "is what an operator runs; off unless REMOTE_EXEC_SHELL_ENABLED is set",
}
INJECTIONS = [
    "com.a;reboot",
    "com.a$(reboot)",
    "com.a`reboot`",
    "com.a\nreboot",
    "com.a.b\n",
    "com.a && reboot",
    "com.a|reboot",
]


def is_text(hint: Any) -> bool:
    return hint is str or any(is_text(part) for part in get_args(hint) if get_origin(hint) is not None)


def test_every_text_parameter_is_listed_with_its_reason():
    found = set()
    for action in actions.ACTIONS.values():
        hints = get_type_hints(action.parameters)
        for field in msgspec.structs.fields(action.parameters):
            literal = all(isinstance(value, str) for value in get_args(hints[field.name])) and get_args(
                hints[field.name]
            )
            if is_text(hints[field.name]) or literal:
                found.add((action.name, field.name))
    assert found == set(TEXTS)


@pytest.mark.parametrize("text", INJECTIONS)
def test_package_name_follows_androids_pattern(text: str):
    with pytest.raises(Invalid, match="Android package name"):
        actions.parameters("apply_battery_whitelist", {"packages": ["com.good", text]})
    for action in ("launch_app", "remote_exec_fcm"):
        with pytest.raises(Invalid):
            actions.parameters(action, {"type": "launch_app", "package_name": text})


@pytest.mark.parametrize("name", ["ssid", "password"])
@pytest.mark.parametrize("text", ["kiosk$(id)s", "kio`id`sks", "kio\nsks-a", "kio\rsks-a", "price$$$$"])
def test_wifi_texts_with_shell_characters_are_refused_with_the_reason(name: str, text: str):
    with pytest.raises(Invalid, match="cut the phone off") as refused:
        actions.parameters("wifi_connect", {"ssid": "kiosks", "password": "correct horse", name: text})
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("ssid", "password", "good"),
    [
        ("kiosks", "1234567", False),
        ("kiosks", "12345678", True),
        ("kiosks", "x" * 63, True),
        ("kiosks", "x" * 64, False),
        ("kiosks", "aB" * 32, True),
        ("kiosks", "g" * 64, False),
        ("kiosks", "a" * 65, False),
        ("kiosks", "", False),
        ("kiosks", None, True),
        ("kiosks", 'quote" \\ back', True),
        ("é" * 16, "12345678", True),
        ("é" * 17, "12345678", False),
    ],
)
def test_wifi_parameters_have_the_limits_of_the_standard(ssid: str, password: str | None, good: bool):
    given = {"ssid": ssid, "password": password}
    if good:
        assert actions.parameters("wifi_connect", given)["ssid"] == ssid
    else:
        with pytest.raises(Invalid):
            actions.parameters("wifi_connect", given)


def test_security_type_is_one_that_the_agent_knows():
    given = {"ssid": "kiosks", "password": "12345678"}
    assert actions.parameters("wifi_connect", {**given, "security_type": "WPA3"})["security_type"] == "wpa3"
    with pytest.raises(Invalid, match="wpa2"):
        actions.parameters("wifi_connect", {**given, "security_type": "WPA9"})


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"type": "launch_app", "package_name": "com.a.b", "intent_uri": "intent:#Intent;end"}, None),
        ({"type": "launch_app"}, "package_name"),
        ({"type": "clear_app_data", "package_name": "com.a.b"}, None),
        ({"type": "clear_app_data", "package_name": "com.a.b", "intent_uri": "x"}, "intent_uri"),
        ({"type": "set_dnd", "enable": True}, None),
        ({"type": "set_dnd"}, "enable"),
        ({"type": "ring", "duration": 10}, None),
        ({"type": "ring", "enable": True}, "enable"),
        ({"type": "reboot"}, None),
        ({"type": "format"}, "type"),
    ],
)
def test_remote_exec_fcm_accepts_the_parameters_of_its_type(given: dict[str, Any], wrong: str | None):
    if wrong is None:
        assert actions.parameters("remote_exec_fcm", given) == given
    else:
        with pytest.raises(Invalid, match=re.escape(f"$.params.{wrong}")):
            actions.parameters("remote_exec_fcm", given)


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("list_packages", {}),
        ("start_stream", {}),
        ("remote_control", {"command": "get_clipboard"}),
        ("remote_control", {"command": "start_stream"}),
    ],
)
def test_command_whose_result_has_no_destination_is_refused(action: str, params: dict[str, Any]):
    with pytest.raises(Invalid):
        actions.parameters(action, params)


def test_actions_declare_when_the_agent_answers():
    by = {answered: {a.name for a in actions.ACTIONS.values() if a.answered is answered} for answered in Answered}
    assert by[Answered.AT_ONCE] == {"ping", "install_apk", "remote_exec_fcm", "remote_exec_shell"}
    assert by[Answered.WITH_HEARTBEAT] == {"launch_app", "wifi_connect"}
    repeated = {action.name for action in actions.ACTIONS.values() if action.repeat is not None}
    assert repeated == {"ping", "install_apk", "launch_app", "wifi_connect"}
