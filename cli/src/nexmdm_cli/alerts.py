"""`nexmdm alerts`: what is wrong with which device, as the watch function found it."""

from typing import Annotated, Any

import typer

from nexmdm_cli import addresses, selection
from nexmdm_cli.output import Column, ago, shown
from nexmdm_cli.selection import InGroup, Selector
from nexmdm_cli.session import Session, command


def _detail(alert: dict[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in (alert["detail"] or {}).items())


COLUMNS = [
    Column("DEVICE", lambda a: a["alias"], flexible=True),
    Column("CONDITION", lambda a: a["condition"]),
    Column("SINCE", lambda a: ago(a["since"])),
    Column("NOTIFIED", lambda a: ago(a["notified_at"])),
    Column("RECOVERED", lambda a: ago(a["recovered_at"]) if a["recovered_at"] else ""),
    Column("DETAIL", _detail, flexible=True),
    Column("DEVICE ID", lambda a: a["device_id"], wide=True),
]


def add_to(app: typer.Typer) -> None:
    command(app)(alerts)


def alerts(
    session: Session,
    condition: Annotated[
        str | None, typer.Option(help="Only silent, low_battery, unity_down, queue_growing or agent_outdated.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Alias or id.", autocompletion=addresses.complete)
    ] = None,
    selector: Selector = None,
    group: InGroup = None,
    history: Annotated[bool, typer.Option("--history", help="Also those that have recovered.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all without it.")] = None,
) -> None:
    """List open alerts, newest first: devices silent, low on battery, without Unity, behind the rollout."""
    device_id = addresses.find(session.api, device)["device_id"] if device else None
    query = {
        **selection.query(selector, group),
        "condition": condition,
        "device_id": device_id,
        "open": None if history else True,
    }
    session.out.table(session.api.pages("/v1/alerts", query, limit), COLUMNS, "Nothing is wrong.")
