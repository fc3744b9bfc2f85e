"""`nexmdm alert-rules`: conditions, the devices that they apply to, and where notifications are sent."""

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from nexmdm_cli.api import Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.groups import described
from nexmdm_cli.output import Column, clean, duration, shown
from nexmdm_cli.resources import Rule
from nexmdm_cli.selection import FILTER, Filter, Yes
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Create, show, change and delete alert rules.")

Name = Annotated[str, typer.Argument(help="The rule.", metavar="NAME")]
Threshold = Annotated[float | None, typer.Option(help="In the condition's unit; by default from the setting.")]
Lasting = Annotated[
    int | None, typer.Option("--for", help="How long the condition must have lasted.", metavar="SECONDS")
]
Severity = Annotated[str | None, typer.Option(help="info, warning or critical.")]
Route = Annotated[list[str] | None, typer.Option("--route", help="A notification route; may be repeated.")]
Priority = Annotated[
    int | None, typer.Option(help="Of a device's rules, the one with the lowest number applies. [100]")
]
Quiet = Annotated[
    str | None,
    typer.Option("--quiet", help="Hold back notifications: 22:00-06:00@Europe/Berlin.", metavar="FROM-TO@ZONE"),
]


@dataclass(frozen=True)
class RuleOptions:
    """The options of a rule apart from its condition and filter."""

    threshold: Threshold = None
    lasting: Lasting = None
    severity: Severity = None
    route: Route = None
    priority: Priority = None
    quiet: Quiet = None

    def body(self) -> Body:
        given = {
            "threshold": self.threshold,
            "for_seconds": self.lasting,
            "severity": self.severity,
            "routes": self.route or None,
            "priority": self.priority,
            "quiet_hours": _hours(self.quiet),
        }
        return {name: value for name, value in given.items() if value is not None}


RULE_OPTIONS = RuleOptions()
COLUMNS: list[Column[Rule]] = [
    Column("NAME", lambda r: r.name, flexible=True),
    Column("CONDITION", lambda r: r.condition),
    Column("THRESHOLD", lambda r: shown(r.threshold)),
    Column("FOR", lambda r: duration(r.for_seconds) if r.for_seconds else ""),
    Column("SEVERITY", lambda r: r.severity),
    Column("PRIORITY", lambda r: str(r.priority)),
    Column("ON", lambda r: "yes" if r.enabled else "no"),
    Column("ROUTES", lambda r: ", ".join(r.routes), flexible=True),
    Column("FILTER", lambda r: described(r.filter) if r.filter else "every device", flexible=True),
]


@command(app, "list")
def list_rules(session: Session) -> None:
    """List alert rules. One applies per device and condition: the lowest priority first, then rules with a filter."""
    session.out.table(
        session.api.pages(Rule, "/v1/alert-rules"), COLUMNS, "There are no alert rules, so no alerts are opened."
    )


@command(app)
def show(session: Session, name: Name) -> None:
    """Show an alert rule."""
    _print(session, session.api.read(Rule, "GET", path("alert-rules", name)))


@command(app)
def create(
    session: Session,
    name: Name,
    condition: Annotated[str, typer.Argument(help="silent, low_battery, app_down, ...", metavar="CONDITION")],
    given: RuleOptions = RULE_OPTIONS,
    chosen: Filter = FILTER,
) -> None:
    """Create an alert rule; without a filter it applies to every device.

    \b
    nexmdm alert-rules create tills-battery low_battery --threshold 30 -l role=till --severity critical
    nexmdm alert-rules create night silent --for 3600 --quiet 22:00-06:00@Europe/Berlin --group lobby
    """
    filter_ = chosen.body()
    body = {"name": name, "condition": condition, **given.body()}
    _print(session, session.api.read(Rule, "POST", "/v1/alert-rules", body | ({"filter": filter_} if filter_ else {})))


@command(app)
def change(
    session: Session,
    name: Name,
    given: RuleOptions = RULE_OPTIONS,
    chosen: Filter = FILTER,
) -> None:
    """Change an alert rule; options that are not given stay unchanged."""
    filter_ = chosen.body()
    body = given.body() | ({"filter": filter_} if filter_ else {})
    if not body:
        raise Failure("No change was given.", Code.USAGE, "Give --threshold, --for, --severity, --route or a filter.")
    _print(session, session.api.read(Rule, "PATCH", path("alert-rules", name), body))


@command(app)
def enable(session: Session, name: Name) -> None:
    """Enable an alert rule."""
    _print(session, session.api.read(Rule, "PATCH", path("alert-rules", name), {"enabled": True}))


@command(app)
def disable(session: Session, name: Name) -> None:
    """Disable an alert rule; its open alerts recover."""
    _print(session, session.api.read(Rule, "PATCH", path("alert-rules", name), {"enabled": False}))


@command(app)
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete an alert rule; its open alerts recover."""
    session.confirm(f"Delete the alert rule {name}?", yes)
    session.api.call("DELETE", path("alert-rules", name))
    if session.out.as_json:
        return session.out.json({"name": name})
    session.out.line(f"deleted {clean(name)}")


def _hours(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)@(\S+)", text)
    if not found:
        raise Failure(f"--quiet: {text!r} is not FROM-TO@ZONE.", Code.USAGE, "Example: 22:00-06:00@Europe/Berlin.")
    return {"from": found[1], "to": found[2], "timezone": found[3]}


def _print(session: Session, rule: Rule) -> None:
    hours = rule.quiet_hours
    session.out.fields(
        rule,
        [
            ("name", rule.name),
            ("condition", rule.condition),
            ("threshold", shown(rule.threshold) or "from the setting"),
            ("for", duration(rule.for_seconds)),
            ("severity", rule.severity),
            ("priority", str(rule.priority)),
            ("on", "yes" if rule.enabled else "no"),
            ("routes", ", ".join(rule.routes) or "the alarms' topic"),
            ("quiet hours", f"{hours.from_} to {hours.to} {hours.timezone}" if hours else ""),
            ("filter", described(rule.filter) if rule.filter else "every device"),
        ],
    )
