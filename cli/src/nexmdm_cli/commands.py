"""`nexmdm commands`: the state and results of sent commands."""

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from nexmdm_cli import addresses, following, resources, tabular
from nexmdm_cli.api import PAGE, Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Column, ago, shown, when
from nexmdm_cli.resources import Audit, CommandResult, Dispatch
from nexmdm_cli.send import Timeout, Ttl, UntilSent, Wait
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="List, show, export, cancel and resend commands.")

STYLES = {"failed": "red", "unknown": "red", "expired": "yellow", "retry_wait": "yellow", "sent": "green"}
EXPORTED = (
    "alias", "device_id", "request_id", "action", "state", "answered", "result", "result_message", "error_msg",
    "attempts", "created_at", "sent_at", "completed_at",
)  # fmt: skip
Id = Annotated[str, typer.Argument(help="The command's request id.", metavar="REQUEST_ID")]


def _instant(since: str) -> str:
    """Convert `24h` to the instant 24 hours ago; the server parses anything else."""
    match = re.fullmatch(r"(\d+)([smhd])", since)
    if match is None:
        return since
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    try:
        return (datetime.now(UTC) - timedelta(**{unit: int(match[1])})).isoformat()
    except (OverflowError, ValueError):  # ValueError: more digits than Python converts
        raise Failure("--since is before the year 1.", Code.USAGE, "Leave it out to check all commands.") from None


def _state(row: Dispatch) -> Text:
    return Text(row.state, STYLES.get(row.state, ""))


def _columns(aliases: dict[str, str]) -> list[Column[Dispatch]]:
    return [
        Column("REQUEST ID", lambda c: c.request_id, flexible=True),
        Column("DEVICE", lambda c: aliases.get(c.device_id) or c.device_id, flexible=True),
        Column("ACTION", lambda c: c.action),
        Column("STATE", _state),
        Column("RESULT", lambda c: c.result or c.error_msg or "", flexible=True),
        Column("CREATED", lambda c: ago(c.created_at)),
    ]


@command(app, "list")
def list_commands(
    session: Session,
    state: Annotated[str | None, typer.Option(help="accepted, sending, sent, failed, retry_wait, unknown, …")] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Alias or id.", autocompletion=addresses.complete)
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Only the commands of this bulk command.", metavar="REQUEST_ID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 50,
) -> None:
    """List commands, newest first.

    \b
    nexmdm commands list --state unknown
    nexmdm commands list --device lobby --json
    """
    device_id = addresses.find(session.api, device).device_id if device else None
    query = {"state": state, "device_id": device_id, "batch": batch}
    rows = list(session.api.pages(Dispatch, "/v1/commands", query, limit))
    # One page covers a small fleet with a single call; other devices are shown by id.
    aliases = addresses.aliases(session.api, PAGE) if rows and not session.out.as_json else {}
    session.out.table(rows, _columns(aliases), "No command matches.")


@command(app)
def show(
    session: Session,
    request_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait until it settles.")] = False,
    until_sent: UntilSent = False,
    timeout: Timeout = 60,
) -> None:
    """Show a command; for a bulk command, the number of devices in each state."""
    row = resources.command(session.api.call("GET", path("commands", request_id)))
    if follow:
        row = following.follow(session.api, session.out, row, until_sent=until_sent, timeout=timeout)
    session.out.fields(row, following.pairs(row))
    if follow:
        following.judge(row, until_sent)


@command(app)
def export(
    session: Session,
    batch: Annotated[str, typer.Argument(help="The bulk command's request id.", metavar="REQUEST_ID")],
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout, for a spreadsheet.")] = False,
) -> None:
    """Write the results of a bulk command for each device, as CSV or with --json as a list.

    The output of shell commands is not included: `nexmdm commands result` shows it for one device.

    \b
    nexmdm commands export REQUEST_ID --csv > results.csv
    """
    if not as_csv and not session.out.as_json:
        raise Failure("No format was given.", Code.USAGE, "Give --csv or --json.")
    session.api.call("GET", path("commands", batch))  # an unknown one is an error, not an empty table
    rows = list(session.api.pages(Dispatch, "/v1/commands", {"batch": batch}))
    aliases = addresses.aliases(session.api)
    members = [{"alias": aliases.get(row.device_id, ""), **row.document} for row in rows]
    members.sort(key=lambda row: (row["alias"], row["device_id"]))
    if session.out.as_json:
        return session.out.json(members)
    session.out.document(tabular.table(members, EXPORTED))


@command(app)
def audit(
    session: Session,
    since: Annotated[
        str | None, typer.Option(help="Only commands accepted since then: 24h, 30m, 2d, or an instant.", metavar="WHEN")
    ] = None,
) -> None:
    """Check every command's history against the state machine; on a violation, name the first and exit with 1.

    \b
    nexmdm commands audit
    nexmdm commands audit --since 24h
    """
    found = session.api.read(Audit, "GET", path("audit", "commands"), query={"since": since and _instant(since)})
    pairs = [(name, str(getattr(found, name))) for name in ("checked", "exempt", "violations")]
    session.out.fields(found, pairs)
    if first := found.first:
        what = f"{first.request_id} ({first.state}) breaks the rule {first.rule}."
        raise Failure(what, Code.FAILED, "docs/guarantees.md says what each rule means.")


@command(app)
def result(session: Session, request_id: Id) -> None:
    """Show a device's command and its full answer, including shell commands. Viewers may not."""
    row = session.api.read(CommandResult, "GET", path("commands", request_id, "result"))
    pairs = [
        ("request id", row.request_id),
        ("device id", row.device_id),
        ("action", row.action),
        ("parameters", ", ".join(f"{name}={shown(value)}" for name, value in row.params.items())),
        ("state", row.state),
        ("answered", when(row.completed_at)),
        ("result", row.result or ""),
        ("answer", row.result_message or ""),
    ]
    session.out.fields(row, pairs)


@command(app)
def cancel(session: Session, request_id: Id) -> None:
    """Cancel a command that has not been sent; for a bulk command, its unsent rest."""
    row = resources.command(session.api.call("POST", path("commands", request_id, "cancel")))
    session.out.fields(row, following.pairs(row))


@command(app)
def resend(
    session: Session,
    request_id: Id,
    reason: Annotated[str, typer.Option(help="The reason, which is recorded.")],
    ttl: Ttl = None,
    wait: Wait = True,
    until_sent: UntilSent = False,
    timeout: Timeout = 60,
    resend_id: Annotated[
        str | None, typer.Option("--resend-id", help="Choose an id for this resend; it is executed once per id.")
    ] = None,
) -> None:
    """Send a failed, expired or unknown command again; an agent that remembers request ids runs each once."""
    body: Body = {"reason": reason}
    if ttl is not None:
        body["ttl_seconds"] = ttl
    key = resend_id or secrets.token_hex(8)
    row = resources.command(session.api.call("POST", path("commands", request_id, "resend"), body, key=key))
    if wait:
        row = following.follow(session.api, session.out, row, until_sent=until_sent, timeout=timeout)
    session.out.fields(row, following.pairs(row))
    if wait:
        following.judge(row, until_sent)
