"""The `nexmdm` program, and its commands that are in no group."""

from importlib.metadata import version
from typing import Annotated

import typer

from nexmdm_cli import (
    alerts,
    apps,
    builds,
    commands,
    database,
    devices,
    enroll,
    events,
    groups,
    inputs,
    mutes,
    rules,
    schedules,
    send,
    stack,
    status,
)
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.session import Session, command, prose
from nexmdm_cli.terminal import Group

HELP = """\
Enroll, command, update and monitor a fleet of Android devices.

The stack is chosen by --url, NEXMDM_URL, `nexmdm use`, or a running `make run`. Requests are signed with your AWS
credentials: --profile, AWS_PROFILE, SSO, or the environment.

\b
nexmdm use https://abc123.execute-api.eu-west-1.amazonaws.com --profile fleet
nexmdm status
nexmdm enroll create lobby
nexmdm send ping --to lobby
nexmdm builds publish agent.apk
"""
EXIT_CODES = """\b
Exit codes
0  done
1  failure: a command failed or did not settle, or `status` found a problem
2  invalid command line, or no stack was given
3  no such device, command, build, token or route
4  rejected: an invalid value, a conflict, or a build that differs from its
   declaration
5  missing or expired credentials, or missing permission
6  unreachable or unavailable after retries
130  interrupted
"""

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help=prose(HELP),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
app.add_typer(devices.app, name="devices")
app.add_typer(apps.app, name="apps")
app.add_typer(groups.app, name="groups")
app.add_typer(schedules.app, name="schedules")
app.add_typer(enroll.app, name="enroll")
send.add_to(app)
app.add_typer(commands.app, name="commands")
app.add_typer(builds.app, name="builds")
status.add_to(app)
alerts.add_to(app)
app.add_typer(rules.app, name="alert-rules")
app.add_typer(mutes.app, name="mutes")
events.add_to(app)
app.add_typer(database.app, name="db")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nexmdm {version('nexmdm-cli')}")
        raise typer.Exit


@app.callback()
def nexmdm(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@command(app, of_stack=False)
def use(
    session: Session,
    url: Annotated[str | None, typer.Argument(help="The stack's URL.", metavar="[https://…]")] = None,
    profile: Annotated[str | None, typer.Option(help="The AWS profile to sign with.")] = None,
    region: Annotated[str | None, typer.Option(help="The stack's region, if its URL does not contain it.")] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Remove the saved values.")] = False,
) -> None:
    """Save the stack to use; without a URL, show the saved one."""
    if (profile or region) and not url:
        option = "--profile" if profile else "--region"
        raise Failure(f"{option} is saved with a URL, and none was given.", Code.USAGE, "Give the stack's URL too.")
    try:
        if forget:
            stack.saved_file().unlink(missing_ok=True)
        elif url:
            stack.save(stack.Choice(stack.checked(url), profile, region))
    except OSError as error:
        raise Failure(f"{stack.saved_file()} cannot be changed: {error.strerror}.", Code.USAGE) from None
    kept = stack.saved()
    pairs = [("stack", kept.url or "none is saved"), ("profile", kept.profile or ""), ("region", kept.region or "")]
    session.out.fields({"url": kept.url, "profile": kept.profile, "region": kept.region}, pairs)


@command(app)
def console(
    session: Session,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 selects a free port.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Serve the console to browsers on this machine, until Ctrl-C."""
    from nexmdm_cli.console import serve  # imports a web server, which no other command needs

    found = session.api.stack
    session.out.note(f"Serving the console of {found.url}; stop it with Ctrl-C.")
    serve(found.url, found.auth, port=port, open_browser=browser)


@command(app)
def api(
    session: Session,
    method: Annotated[str, typer.Argument(help="GET, POST, …", metavar="METHOD")],
    route: Annotated[str, typer.Argument(help="/v1/…", metavar="PATH")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="The body: JSON, @FILE, or @- for stdin.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The idempotency key.")] = None,
) -> None:
    """Call a route of the API, signed, and print its JSON.

    \b
    nexmdm api GET '/v1/devices?limit=1'
    nexmdm api POST /v1/enroll-tokens -d '{"aliases": ["lobby"]}'
    """
    if not route.startswith("/") or route.startswith("//"):
        # The signature and the session token would be sent to another host.
        raise Failure("PATH must be a path of this stack.", Code.USAGE, "It begins with /, such as /v1/devices.")
    repeatable = method.upper() in ("GET", "PUT", "DELETE") or key is not None
    session.out.json(session.api.call(method.upper(), route, _document(data), key=key, repeatable=repeatable))


def _document(data: str | None) -> object:
    if data is None:
        return None
    try:
        return inputs.document(inputs.content(data[1:]) if data.startswith("@") else data)
    except OSError as error:
        raise Failure(f"--data: the file cannot be read: {error.strerror}", Code.USAGE) from None
    except ValueError as error:
        raise Failure(f"--data: {error}", Code.USAGE) from None


if __name__ == "__main__":
    app()
