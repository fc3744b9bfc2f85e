"""`nexmdm alerts` and `nexmdm ack`: the alerts that the watch function opened."""

from typing import Annotated

import typer

from nexmdm_cli import addresses
from nexmdm_cli.api import path
from nexmdm_cli.output import Column, ago, shown
from nexmdm_cli.resources import Alert
from nexmdm_cli.selection import InGroup, Narrow, Selector
from nexmdm_cli.session import Session, command


def _detail(alert: Alert) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in (alert.detail or {}).items())


def _state(alert: Alert) -> str:
    """For example `open, muted, known`: the state, whether the alert is muted, and whether it was acknowledged."""
    marks = [alert.state]
    marks += ["muted"] if alert.muted else []
    marks += ["known"] if alert.acked_at else []
    return ", ".join(marks)


COLUMNS: list[Column[Alert]] = [
    Column("DEVICE", lambda a: a.alias, flexible=True),
    Column("CONDITION", lambda a: a.condition),
    Column("SEVERITY", lambda a: a.severity),
    Column("STATE", _state),
    Column("SINCE", lambda a: ago(a.since)),
    Column("NOTIFIED", lambda a: ago(a.notified_at)),
    Column("RECOVERED", lambda a: ago(a.recovered_at) if a.recovered_at else ""),
    Column("DETAIL", _detail, flexible=True),
    Column("ALERT ID", lambda a: str(a.alert_id)),
    Column("RULE", lambda a: a.rule or "", wide=True),
    Column("NOTE", lambda a: a.ack_note or "", wide=True),
    Column("DEVICE ID", lambda a: a.device_id, wide=True),
]


def add_to(app: typer.Typer) -> None:
    command(app)(alerts)
    command(app)(ack)


def alerts(
    session: Session,
    condition: Annotated[
        str | None, typer.Option(help="Only this condition: silent, low_battery, app_down, clock_wrong, ...")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Alias or id.", autocompletion=addresses.complete)
    ] = None,
    selector: Selector = None,
    group: InGroup = None,
    history: Annotated[bool, typer.Option("--history", help="Include recovered alerts.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number; all by default.")] = None,
) -> None:
    """List open alerts, newest first: silent devices, low batteries, apps that are down, outdated agents and more."""
    device_id = addresses.find(session.api, device).device_id if device else None
    query = {
        **Narrow(selector, group).query(),
        "condition": condition,
        "device_id": device_id,
        "open": None if history else True,
    }
    session.out.table(session.api.pages(Alert, "/v1/alerts", query, limit), COLUMNS, "Nothing is wrong.")


def ack(
    session: Session,
    alert_id: Annotated[int, typer.Argument(min=1, help="The alert's id, from `nexmdm alerts`.", metavar="ALERT_ID")],
    note: Annotated[str | None, typer.Option("--note", "-m", help="What is being done about the alert.")] = None,
) -> None:
    """Acknowledge an open alert, so that other operators see that it is being handled."""
    alert = session.api.read(Alert, "POST", path("alerts", str(alert_id), "ack"), {"note": note})
    session.out.fields(alert, [("device", alert.alias), ("condition", alert.condition), ("state", _state(alert))])
