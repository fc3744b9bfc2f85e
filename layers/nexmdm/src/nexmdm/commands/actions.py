"""The agent's actions. Each is declared here once; an undeclared action cannot be sent.

These are derived from a declaration: the validation of parameters, the secrets that are masked and wiped, the
parameters that the agent's HMAC covers, when the agent answers, the OpenAPI document, and `actions.json` with the forms
of the console and the names that the CLI completes. CONTRIBUTING.md walks through an example.
"""

import json
import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from nexmdm.commands.states import Answered, Delivery
from nexmdm.runtime import validation
from nexmdm.runtime.errors import Invalid

# Not `$`, which in Python also matches before a final newline.
END = r"(?![\s\S])"
Package = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+{END}",
        max_length=255,
        title="Package",
        description="An Android package name, such as com.example.kiosk.",
    ),
]
ExecutionId = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9._:-]+{END}", max_length=128, title="Execution id")]
IntentUri = Annotated[str, Meta(min_length=1, max_length=2000, title="Intent URI")]
Typed = Annotated[str, Meta(max_length=2000, title="Text")]
Pixels = Annotated[int, Meta(ge=0, le=100_000)]
RingSeconds = Annotated[int, Meta(ge=5, le=120, title="Seconds")]

# The agent puts the network's name and passphrase into a shell command and escapes only backslash and double quote.
_SHELL = re.compile(r"[$`\r\n]")
_SHELL_FREE = {"pattern": r"^[^$`\r\n]*$"}
_PASSPHRASE = re.compile(r"[\s\S]{8,63}|[0-9A-Fa-f]{64}")
SECURITY_TYPES = ("open", "wep", "wpa", "wpa2", "wpa3")
MOST_SSID_BYTES = 32


# Parameters of a command as JSON, by name; `Parameters` of its action says which there are.
Params: TypeAlias = dict[str, Any]


class Parameters(Struct, forbid_unknown_fields=True, omit_defaults=False, kw_only=True):
    """Parameters of one action. Defaults are applied before the payload is hashed.

    Attributes:
        SECRET: parameters that are never shown again, neither to operators nor in logs.
        HIDDEN: parameters that only GET /v1/commands/{request_id}/result shows.
        SIGNED: parameters that the agent's own HMAC covers; `sig` covers every field.
        CHOICE: the parameter that decides which other parameters are allowed.
        NEEDED, TAKEN: for each value of CHOICE, the required and the optional parameters.
    """

    SECRET: ClassVar[frozenset[str]] = frozenset()
    HIDDEN: ClassVar[frozenset[str]] = frozenset()
    SIGNED: ClassVar[tuple[str, ...]] = ()
    CHOICE: ClassVar[str | None] = None
    NEEDED: ClassVar[dict[str, tuple[str, ...]]] = {}
    TAKEN: ClassVar[dict[str, tuple[str, ...]]] = {}

    def check(self) -> None:
        """Check constraints that the types cannot express.

        Raises:
            Invalid: names the parameter.
        """
        if self.CHOICE is None:
            return
        chosen = getattr(self, self.CHOICE)
        needed, taken = self.NEEDED.get(chosen, ()), self.TAKEN.get(chosen, ())
        for name in needed:
            if getattr(self, name) is None:
                raise Invalid(f"$.params.{name}", f"is required for the {self.CHOICE} {chosen}")
        for name in self.depending():
            if getattr(self, name) is not None and name not in (*needed, *taken):
                raise Invalid(f"$.params.{name}", f"is not allowed for the {self.CHOICE} {chosen}; leave it out")

    @classmethod
    def depending(cls) -> list[str]:
        """The parameters that apply to some values of CHOICE only."""
        return sorted({name for names in (*cls.NEEDED.values(), *cls.TAKEN.values()) for name in names})


class NoParameters(Parameters):
    pass


class Ring(Parameters):
    duration: RingSeconds = 30


class InstallApk(Parameters):
    download_url: Annotated[str, Meta(pattern="^https?://", max_length=2000, title="Download URL")]
    installation_id: Annotated[int, Meta(ge=1, title="Installation id")]
    package_name: Package | None = None
    version_name: Annotated[str, Meta(max_length=200, title="Version name")] | None = None
    version_code: Annotated[int, Meta(ge=0, title="Version code")] | None = None
    file_size: Annotated[int, Meta(ge=0, title="Size in bytes")] | None = None
    apk_id: Annotated[int, Meta(ge=1, title="Build id")] | None = None


class LaunchApp(Parameters):
    package_name: Package
    intent_uri: IntentUri | None = None


class RemoteControl(Parameters):
    """Streaming (start_stream) and reading the clipboard are not offered, because no route receives their results."""

    SECRET = frozenset({"text"})
    CHOICE = "command"
    NEEDED = {
        "tap": ("x", "y"),
        "swipe": ("start_x", "start_y", "end_x", "end_y"),
        "text": ("text",),
        "set_clipboard": ("text",),
        "key": ("key_code",),
    }
    TAKEN = {"swipe": ("duration_ms",)}

    command: Annotated[
        Literal[
            "tap", "swipe", "text", "key", "home", "back", "recents", "power", "notifications", "quick_settings",
            "set_clipboard",
        ],
        Meta(title="What"),
    ]  # fmt: skip
    x: Annotated[Pixels, Meta(title="x")] | None = None
    y: Annotated[Pixels, Meta(title="y")] | None = None
    start_x: Annotated[Pixels, Meta(title="From x")] | None = None
    start_y: Annotated[Pixels, Meta(title="From y")] | None = None
    end_x: Annotated[Pixels, Meta(title="To x")] | None = None
    end_y: Annotated[Pixels, Meta(title="To y")] | None = None
    duration_ms: Annotated[int, Meta(ge=1, le=60_000, title="Milliseconds")] | None = None
    text: Typed | None = None
    key_code: Annotated[int, Meta(ge=0, le=1000, title="Key code")] | None = None


class SetDnd(Parameters):
    enable: Annotated[bool, Meta(title="Do not disturb")]


class BatteryWhitelist(Parameters):
    packages: Annotated[
        list[Package], Meta(min_length=1, max_length=100, title="Packages", description="One on each line.")
    ]


class WifiConnect(Parameters):
    SECRET = frozenset({"password"})

    ssid: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MOST_SSID_BYTES,
            title="Network (SSID)",
            description="At most 32 bytes in UTF-8; without $, ` and line breaks.",
            extra_json_schema=_SHELL_FREE,
        ),
    ]
    password: (
        Annotated[
            str,
            Meta(
                max_length=64,
                title="Password",
                description="8 to 63 characters, or 64 hex digits; without $, ` and line breaks.",
                extra_json_schema={**_SHELL_FREE, "minLength": 8},
            ),
        ]
        | None
    ) = None
    security_type: (
        Annotated[str, Meta(max_length=20, title="Security", extra_json_schema={"enum": list(SECURITY_TYPES)})] | None
    ) = None

    def check(self) -> None:
        for name in ("ssid", "password"):
            if _SHELL.search(getattr(self, name) or ""):
                raise Invalid(
                    f"$.params.{name}",
                    "contains $, ` or a line break, which the agent passes to a shell on the phone: the name or the"
                    " passphrase would arrive changed and cut the phone off. Rename the network or change its"
                    " passphrase",
                )
        size = len(self.ssid.encode())
        if size > MOST_SSID_BYTES:
            raise Invalid("$.params.ssid", f"has {size} bytes in UTF-8; a network's name has at most {MOST_SSID_BYTES}")
        if self.password is not None and not _PASSPHRASE.fullmatch(self.password):
            raise Invalid(
                "$.params.password",
                "must have 8 to 63 characters, or be a key of exactly 64 hex digits; leave it out for an open network",
            )
        if self.security_type is not None:
            # The agent recognizes the names in lower case, and reads any other as wpa2.
            self.security_type = self.security_type.lower()
            if self.security_type not in SECURITY_TYPES:
                raise Invalid("$.params.security_type", f"must be one of {', '.join(SECURITY_TYPES)}")


class RemoteExecFcm(Parameters):
    SIGNED = ("type", "package_name", "enable", "duration")
    CHOICE = "type"
    NEEDED = {"launch_app": ("package_name",), "clear_app_data": ("package_name",), "set_dnd": ("enable",)}
    TAKEN = {"launch_app": ("intent_uri",), "ring": ("duration",)}

    type: Annotated[
        Literal[
            "ping", "ring", "reboot", "launch_app", "clear_app_data", "set_dnd", "exempt_unity_app",
            "enable_stay_awake",
        ],
        Meta(title="Type"),
    ]  # fmt: skip
    exec_id: ExecutionId | None = None
    package_name: Package | None = None
    intent_uri: IntentUri | None = None
    enable: Annotated[bool, Meta(title="Enable")] | None = None
    duration: RingSeconds | None = None


class RemoteExecShell(Parameters):
    """The command is the last and only signed parameter, so it may contain the separator of the agent's HMAC."""

    SIGNED = ("command",)
    HIDDEN = frozenset({"command"})

    command: Annotated[str, Meta(min_length=1, max_length=2000, title="Command")]
    exec_id: ExecutionId | None = None


class Action(Struct, frozen=True, kw_only=True):
    """One action.

    Attributes:
        about: one sentence that says what it does.
        answered: when the existing agent answers it.
        repeat: the effect of a second run, shown with until_answered; None where until_answered is rejected.
        disruptive: the console asks for confirmation.
        private_answer: only GET /v1/commands/{request_id}/result shows the device's answer.
    """

    name: str
    about: str
    answered: Answered
    parameters: type[Parameters] = NoParameters
    repeat: str | None = None
    disruptive: bool = False
    private_answer: bool = False


ACTIONS = {
    action.name: action
    for action in (
        Action(name="ping", about="Ask for a heartbeat now.", answered=Answered.AT_ONCE, repeat="harmless"),
        Action(name="ring", about="Ring, so that the phone can be found.", answered=Answered.NEVER, parameters=Ring),
        Action(name="wake", about="Wake the agent.", answered=Answered.NEVER),
        Action(
            name="launch_app",
            about="Start an app.",
            answered=Answered.WITH_HEARTBEAT,
            parameters=LaunchApp,
            repeat="brings the app to the front again",
        ),
        Action(name="restart_app", about="Restart the agent's app.", answered=Answered.NEVER),
        Action(name="reboot", about="Restart the device.", answered=Answered.NEVER, disruptive=True),
        Action(name="set_dnd", about="Turn Do Not Disturb on or off.", answered=Answered.NEVER, parameters=SetDnd),
        Action(
            name="wifi_connect",
            about="Join a WiFi network.",
            answered=Answered.WITH_HEARTBEAT,
            parameters=WifiConnect,
            repeat="joins the same network again",
        ),
        Action(name="grant_permissions", about="Grant the managed app's permissions.", answered=Answered.NEVER),
        Action(
            name="exempt_unity_app",
            about="Exempt the Unity app from battery optimization.",
            answered=Answered.NEVER,
        ),
        Action(
            name="apply_battery_whitelist",
            about="Exempt apps from battery optimization.",
            answered=Answered.NEVER,
            parameters=BatteryWhitelist,
        ),
        Action(
            name="install_apk",
            about="Install a build. A rollout on the build's page does this for many devices.",
            answered=Answered.AT_ONCE,
            parameters=InstallApk,
            repeat="downloads and installs the same version again",
        ),
        Action(
            name="remote_control",
            about="Tap, swipe, type or press keys.",
            answered=Answered.NEVER,
            parameters=RemoteControl,
            private_answer=True,
        ),
        Action(
            name="remote_exec_fcm",
            about="Run one of the agent's own procedures, which the agent answers at once.",
            answered=Answered.AT_ONCE,
            parameters=RemoteExecFcm,
        ),
        Action(
            name="remote_exec_shell",
            about="Run a shell command. The API rejects it unless REMOTE_EXEC_SHELL_ENABLED is set.",
            answered=Answered.AT_ONCE,
            parameters=RemoteExecShell,
            disruptive=True,
            private_answer=True,
        ),
    )
}


def parameters(action: str, given: Params) -> Params:
    """The parameters of an action, validated, with defaults applied and absent ones left out.

    Raises:
        Invalid: names the field: `$.action`, or `$.params.…`.
    """
    if action not in ACTIONS:
        raise Invalid("$.action", f"is not an action; the actions are {', '.join(ACTIONS)}")
    try:
        struct = validation.convert(given, ACTIONS[action].parameters, root="$.params")
    except Invalid as error:
        raise _in_words(error) from None
    struct.check()
    return {name: value for name, value in msgspec.to_builtins(struct).items() if value is not None}


def _in_words(error: Invalid) -> Invalid:
    """Replace the pattern of a package name with a readable message."""
    path, _, detail = error.detail.partition(": ")
    if "matching regex" in detail and re.search(r"package_name$|packages\[", path):
        return Invalid(path, "is not an Android package name, such as com.example.kiosk")
    return error


def check_delivery(action: str, delivery: Delivery) -> None:
    """Reject until_answered for actions that are never answered, or answered only once.

    Raises:
        Invalid: the action does not allow until_answered.
    """
    if delivery is Delivery.AT_MOST_ONCE or ACTIONS[action].repeat is not None:
        return
    if ACTIONS[action].answered is Answered.NEVER:
        reason = f"{action} is never answered, so it would be repeated until it expires"
    else:
        reason = f"the answer to {action} is sent only once; if it is lost, the command is repeated until it expires"
    raise Invalid("$.delivery", f"cannot be until_answered: {reason}. Use at_most_once")


def secret_names(action: str) -> frozenset[str]:
    return ACTIONS[action].parameters.SECRET if action in ACTIONS else frozenset()


def signed_names(action: str) -> tuple[str, ...]:
    return ACTIONS[action].parameters.SIGNED if action in ACTIONS else ()


def as_strings(values: Params) -> dict[str, str]:
    """Convert parameters to strings for FCM: booleans as true and false, lists as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
