"""`nexmdm send`: send an action to devices by name or filter, and follow it until it settles."""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from nexmdm_cli import addresses, following, inputs, resources, selection
from nexmdm_cli.api import Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import clean
from nexmdm_cli.resources import FilterDocument, Params
from nexmdm_cli.selection import FILTER, DryRun, Filter, Yes
from nexmdm_cli.session import Session, command

ACTIONS_FILE = Path(__file__).parent / "console" / "assets" / "actions.json"

# Declarations of the actions by name, as `make openapi` writes them for the console.
Actions: TypeAlias = dict[str, Any]

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until it settles.")]
UntilSent = Annotated[bool, typer.Option("--until-sent", help="Wait only until FCM accepted it, not for the device.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to follow it for.")]
Ttl = Annotated[
    int | None, typer.Option("--ttl", min=1, max=86_400, help="Seconds after which it is no longer sent. [600]")
]
RequestId = Annotated[
    str | None,
    typer.Option(help="Choose the request id; a command is never sent twice with the same id.", metavar="ID"),
]


UntilAnswered = Annotated[
    bool,
    typer.Option(
        "--until-answered",
        help="Send it again until the device answers or it expires.",
    ),
]


def actions() -> Actions:
    """The declared actions with their parameters, generated from the API's sources; the API rejects others."""
    actions: Actions = json.loads(ACTIONS_FILE.read_text(encoding="utf-8"))
    return actions


def complete_action(incomplete: str) -> list[str]:
    return [action for action in actions() if action.startswith(incomplete)]


def add_to(app: typer.Typer) -> None:
    command(app)(send)


def send(
    session: Session,
    action: Annotated[
        str, typer.Argument(help="ping, ring, reboot, …", autocompletion=complete_action, metavar="ACTION")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(help="NAME=VALUE, NAME=@FILE (@- is stdin), NAME:=JSON.", metavar="NAME=VALUE"),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", "-t", help="A device's alias or id; may be repeated.", autocompletion=addresses.complete),
    ] = None,
    chosen: Filter = FILTER,
    ttl: Ttl = None,
    until_answered: UntilAnswered = False,
    wait: Wait = True,
    until_sent: UntilSent = False,
    timeout: Timeout = 60,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Send an action to devices and follow it until it settles.

    A command to one device is followed until the device answers, or until it is sent if the agent never answers the
    action. launch_app and wifi_connect are answered with the next heartbeat, so a ping is sent after them. A command to
    several devices is followed until all are sent, with the number of devices in each state. The exit code is 1 if a
    command failed or has not settled after --timeout.

    \b
    nexmdm send ping --to lobby
    nexmdm send ring duration=20 --to lobby --to desk
    nexmdm send launch_app package_name=com.example.kiosk -l site=berlin,role=till
    nexmdm send wifi_connect ssid=kiosks password=@- --to lobby --until-answered --ttl 86400 < password.txt
    nexmdm send wifi_connect ssid=kiosks password=@- --to lobby < password.txt
    nexmdm send apply_battery_whitelist packages:='["com.kiosk"]' --all --yes
    """
    body: Body = {"action": action, "params": parameters_of(parameters or [])}
    if ttl is not None:
        body["ttl_seconds"] = ttl
    if until_answered:
        body["delivery"] = "until_answered"
    conditions = chosen.body()
    if bool(to) == bool(conditions):
        raise Failure("No devices were given.", Code.USAGE, f"Give either --to, or a filter: {selection.OPTIONS}.")
    found = _target(session, action, to or [], conditions, yes=yes, dry_run=dry_run)
    if found is None:
        return
    where, target = found
    key = request_id or secrets.token_hex(8)
    row = resources.command(session.api.call("POST", where, {**body, **target}, key=key))
    if wait:
        row = following.follow(session.api, session.out, row, until_sent=until_sent, timeout=timeout, fetch=True)
    session.out.fields(row, following.pairs(row))
    if wait:
        following.judge(row, until_sent)


def _target(
    session: Session, action: str, to: list[str], conditions: FilterDocument, *, yes: bool, dry_run: bool
) -> tuple[str, Body] | None:
    """The route, and the part of the body that selects the devices; None after a dry run."""
    device_ids = [addresses.find(session.api, name).device_id for name in to]
    target: Body = {"filter": conditions} if conditions else {"device_ids": device_ids}
    if conditions or dry_run:
        agreed = selection.agreed(session, target, f"Send {clean(action)} to", yes=yes, dry_run=dry_run)
        return None if agreed is None else ("/v1/commands", agreed)
    if len(device_ids) == 1:
        return path("devices", device_ids[0], "commands"), {}
    return "/v1/commands", target


def parameters_of(given: list[str]) -> Params:
    """{name: value} of NAME=VALUE; the API converts texts to numbers where an action requires them."""
    parameters: Params = {}
    for number, text in enumerate(given, 1):
        name, sign, value = text.partition("=")
        if not sign or not name.strip(":"):
            # The text is not quoted, because it may be a password whose name was forgotten.
            raise Failure(
                f"Parameter {number} is not NAME=VALUE.",
                Code.USAGE,
                "Give NAME=VALUE, NAME=@FILE or NAME:=JSON; name devices with --to.",
            )
        try:
            if name.endswith(":"):
                parameters[name[:-1]] = inputs.document(value)
            elif value.startswith("@"):
                content = inputs.content(value[1:]).decode("utf-8-sig")
                parameters[name] = content.removesuffix("\n").removesuffix("\r")
            else:
                parameters[name] = value
        except OSError as error:
            # The file is not named, because a password may begin with @.
            raise Failure(
                f"{name}: the file after @ cannot be read: {error.strerror}.",
                Code.USAGE,
                f"Write a value that begins with @ as JSON: {name}:='\"@...\"'.",
            ) from None
        except ValueError as error:
            raise Failure(f"{name.rstrip(':')}: {error}", Code.USAGE) from None
    return parameters
