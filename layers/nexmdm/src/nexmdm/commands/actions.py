"""The actions that the agent knows, with their parameters. What is not listed here cannot be sent."""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from nexmdm.runtime import validation
from nexmdm.runtime.errors import Invalid

Package = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=2000)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
Pixels = Annotated[int, Meta(ge=0, le=100_000)]


class Parameters(Struct, forbid_unknown_fields=True, omit_defaults=False, kw_only=True):
    """Parameters of one action. Defaults are applied before the payload is hashed."""


class NoParameters(Parameters):
    pass


class Ring(Parameters):
    duration: Annotated[int, Meta(ge=5, le=120)] = 30


class InstallApk(Parameters):
    download_url: Annotated[str, Meta(pattern="^https?://", max_length=2000)]
    installation_id: Annotated[int, Meta(ge=1)]
    package_name: Package | None = None
    version_name: Annotated[str, Meta(max_length=200)] | None = None
    version_code: Annotated[int, Meta(ge=0)] | None = None
    file_size: Annotated[int, Meta(ge=0)] | None = None
    apk_id: Annotated[int, Meta(ge=1)] | None = None


class LaunchApp(Parameters):
    package_name: Package
    intent_uri: Text | None = None


class RemoteControl(Parameters):
    command: Literal[
        "tap", "swipe", "text", "key", "home", "back", "recents", "power", "notifications", "quick_settings",
        "set_clipboard", "get_clipboard",
    ]  # fmt: skip
    x: Pixels | None = None
    y: Pixels | None = None
    start_x: Pixels | None = None
    start_y: Pixels | None = None
    end_x: Pixels | None = None
    end_y: Pixels | None = None
    duration_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    text: Text | None = None
    key_code: Annotated[int, Meta(ge=0, le=1000)] | None = None


class SetDnd(Parameters):
    enable: bool


class BatteryWhitelist(Parameters):
    packages: Annotated[list[Package], Meta(min_length=1, max_length=100)]


class WifiConnect(Parameters):
    ssid: Annotated[str, Meta(min_length=1, max_length=32)]
    password: Annotated[str, Meta(max_length=63)] | None = None
    security_type: Annotated[str, Meta(max_length=20)] | None = None


class RemoteExecFcm(Parameters):
    type: Annotated[str, Meta(min_length=1, max_length=50)]
    exec_id: Id | None = None
    package_name: Package | None = None
    enable: bool | None = None
    duration: Annotated[int, Meta(ge=1, le=3600)] | None = None


class RemoteExecShell(Parameters):
    command: Annotated[str, Meta(min_length=1, max_length=2000)]
    exec_id: Id | None = None


ACTIONS: dict[str, type[Parameters]] = {
    **dict.fromkeys(
        ("ping", "wake", "grant_permissions", "list_packages", "reboot", "restart_app", "exempt_unity_app"),
        NoParameters,
    ),
    "ring": Ring,
    "install_apk": InstallApk,
    "launch_app": LaunchApp,
    "remote_control": RemoteControl,
    "set_dnd": SetDnd,
    "apply_battery_whitelist": BatteryWhitelist,
    "wifi_connect": WifiConnect,
    "remote_exec_fcm": RemoteExecFcm,
    "remote_exec_shell": RemoteExecShell,
}

# Parameters that no operator and no log reader gets to see again: a password, and text that may be one.
SECRETS = {"wifi_connect": {"password"}, "remote_control": {"text"}}

# Parameters that the agent's HMAC covers.
SIGNED = {"remote_exec_shell": ("command",), "remote_exec_fcm": ("type", "package_name", "enable", "duration")}

# What a command of remote_control cannot do without.
NEEDED = {
    "tap": ("x", "y"),
    "swipe": ("start_x", "start_y", "end_x", "end_y"),
    "text": ("text",),
    "set_clipboard": ("text",),
    "key": ("key_code",),
}


def parameters(action: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters of an action, validated, with defaults applied and absent ones left out.

    Raises:
        Invalid: names the field: `$.action`, or `$.params.…`.
    """
    if action not in ACTIONS:
        raise Invalid("$.action", f"is not an action; there are {', '.join(ACTIONS)}")
    struct = validation.convert(given, ACTIONS[action], root="$.params")
    if isinstance(struct, RemoteControl):
        for name in NEEDED.get(struct.command, ()):
            if getattr(struct, name) is None:
                raise Invalid(f"$.params.{name}", f"is needed by the command {struct.command}")
    return {name: value for name, value in msgspec.to_builtins(struct).items() if value is not None}


def as_strings(values: dict[str, Any]) -> dict[str, str]:
    """FCM data holds strings only: booleans as true and false, lists as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
