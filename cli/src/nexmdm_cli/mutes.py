"""`nexmdm mutes`: suppress notifications for some devices for a while."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from nexmdm_cli import selection
from nexmdm_cli.api import path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.groups import described
from nexmdm_cli.output import Column, when
from nexmdm_cli.resources import Mute
from nexmdm_cli.selection import FILTER, Filter
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Mute alerts, for example during maintenance of a site.")

COLUMNS: list[Column[Mute]] = [
    Column("MUTE ID", lambda m: str(m.mute_id)),
    Column("UNTIL", lambda m: when(m.until)),
    Column("CONDITION", lambda m: m.condition or "every one"),
    Column("FILTER", lambda m: described(m.filter), flexible=True),
    Column("REASON", lambda m: m.reason, flexible=True),
    Column("BY", lambda m: m.created_by, wide=True),
]


@command(app, "list")
def list_mutes(session: Session) -> None:
    """List the active mutes."""
    session.out.table(session.api.pages(Mute, "/v1/mutes"), COLUMNS, "Nothing is muted.")


@command(app)
def create(
    session: Session,
    reason: Annotated[str, typer.Option("--reason", "-m", help="The reason, which is recorded.")],
    hours: Annotated[float, typer.Option(min=0.01, max=8760, help="Duration in hours.")],
    condition: Annotated[str | None, typer.Option(help="Only this condition.")] = None,
    chosen: Filter = FILTER,
) -> None:
    """Mute alerts of some devices: they open and recover without a notification.

    \b
    nexmdm mutes create -l site=berlin --hours 8 --reason 'the hall is rewired'
    """
    filter_ = chosen.body()
    if not filter_:
        raise Failure("No filter was given.", Code.USAGE, f"Give one: {selection.OPTIONS}.")
    until = datetime.now(UTC) + timedelta(hours=hours)
    body = {"filter": filter_, "until": until.isoformat(), "reason": reason, "condition": condition}
    mute = session.api.read(Mute, "POST", "/v1/mutes", body)
    session.out.fields(mute, [("mute id", str(mute.mute_id)), ("until", when(mute.until))])


@command(app)
def delete(session: Session, mute_id: Annotated[int, typer.Argument(min=1, metavar="MUTE_ID")]) -> None:
    """End a mute now."""
    session.api.call("DELETE", path("mutes", str(mute_id)))
    if session.out.as_json:
        return session.out.json({"mute_id": mute_id})
    session.out.line(f"ended {mute_id}")
