"""`nexmdm alerts`: what is wrong with which device, as the watch function found it."""

from typing import Annotated

import typer

from nexmdm_cli.output import Column, ago
from nexmdm_cli.session import Session, command

COLUMNS = [
    Column("DEVICE", lambda a: a.get("alias") or a["device_id"]),
    Column("CONDITION", lambda a: a["condition"]),
    Column("SINCE", lambda a: ago(a.get("since"))),
    Column("NOTIFIED", lambda a: ago(a.get("notified_at"))),
    Column("DEVICE ID", lambda a: a["device_id"], wide=True),
]


def add_to(app: typer.Typer) -> None:
    command(app)(alerts)


def alerts(
    session: Session, limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all without it.")] = None
) -> None:
    """List open alerts: devices silent, low on battery, without Unity, behind the rollout."""
    session.out.table(session.api.pages("/v1/alerts", limit=limit), COLUMNS, "Nothing is wrong.")
