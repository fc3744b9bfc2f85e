"""`nexmdm status`: a summary of the fleet and its health."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from nexmdm_cli.api import Api, Query
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.resources import Alert, Build, Dispatch, Document, FleetSummary, History
from nexmdm_cli.selection import InGroup, Narrow, Selector
from nexmdm_cli.session import Session, command
from nexmdm_cli.sparkline import sparkline

MOST = 500


def add_to(app: typer.Typer) -> None:
    command(app)(status)


def status(
    session: Session,
    max_silent: Annotated[
        float, typer.Option(min=0, max=100, help="Percentage of devices that may be silent.", metavar="PERCENT")
    ] = 10,
    selector: Selector = None,
    group: InGroup = None,
    history: Annotated[
        bool, typer.Option("--history", help="Also show the number of online devices over the last week.")
    ] = False,
) -> None:
    """Show the fleet and its health, or with a filter those of some devices.

    The exit code is 1 if there is a problem, so that a monitor can run it.
    Problems are: more than --max-silent percent of the devices are silent; a command is `unknown`; a rollout is paused.
    Alerts, low batteries and apps that are down are shown, but are not problems by themselves.
    """
    if history and selector:
        hint = "Give --group, or leave out one of the two options."
        raise Failure("--history exists for the fleet and for groups, not for labels.", Code.USAGE, hint)
    api, out = session.api, session.out
    chosen = Narrow(selector, group).query()
    fleet = api.read(FleetSummary, "GET", "/v1/fleet/summary", query=chosen)
    unknown = sum(1 for _ in api.pages(Dispatch, "/v1/commands", {"state": "unknown"}, limit=MOST))
    paused = [b for b in api.pages(Build, "/v1/apk/builds", {"current": True}, limit=MOST) if b.paused_at]
    wrong = _wrong(fleet, unknown, paused, max_silent)
    alerts = _open_alerts(api, chosen)
    answer: Document = {
        "url": api.stack.url,
        "healthy": not wrong,
        "wrong": wrong,
        "fleet": fleet.document,
        "unknown_commands": unknown,
        "open_alerts": alerts,
    }
    pairs = _pairs(api.stack.url, fleet, unknown, alerts, healthy=not wrong)
    if history:
        week = _history(api, group)
        answer["history"] = week.document["points"]
        pairs.append(("online, last week", sparkline([point.online for point in week.points])))
    out.fields(answer, pairs)
    if wrong:
        raise Failure("; ".join(wrong) + ".", hint="docs/operations.md says what to do for each.")


def _history(api: Api, group: str | None) -> History:
    """The last week by hour, for the whole fleet or for one group."""
    begin = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    return api.read(History, "GET", "/v1/fleet/history", query={"from": begin, "group": group})


def _wrong(fleet: FleetSummary, unknown: int, paused: list[Build], max_silent: float) -> list[str]:
    wrong = []
    if fleet.devices and 100 * fleet.silent / fleet.devices > max_silent:
        wrong.append(f"{fleet.silent} of {fleet.devices} devices are silent (see `nexmdm devices list --silent`)")
    if unknown:
        count = f"{unknown}{'+' if unknown == MOST else ''} command{' is' if unknown == 1 else 's are'}"
        wrong.append(f"{count} unknown (see `nexmdm commands list --state unknown`)")
    for build in paused:
        wrong.append(
            f"the rollout of {build.package_name} {build.version_name} is paused: {build.paused_reason}"
            f" (see `nexmdm builds show {build.build_id}`)"
        )
    return wrong


def _open_alerts(api: Api, chosen: Query) -> int | None:
    """None if the stack's version has no alerts."""
    try:
        return sum(1 for _ in api.pages(Alert, "/v1/alerts", {**chosen, "open": True}, limit=MOST))
    except Failure as failure:
        if failure.code != Code.NOT_FOUND:
            raise
        return None


def _pairs(
    url: str, fleet: FleetSummary, unknown: int, alerts: int | None, *, healthy: bool
) -> list[tuple[str, str | Text]]:
    versions = fleet.by_agent_version or {}
    return [
        ("stack", url),
        ("health", Text("good", "green") if healthy else Text("something is wrong", "red")),
        ("devices", str(fleet.devices)),
        ("online", Text(str(fleet.online), "green")),
        ("silent", Text(str(fleet.silent), "red" if fleet.silent else "")),
        ("low battery", str(fleet.low_battery)),
        ("app down", str(fleet.unity_down)),
        ("device owners", str(fleet.device_owners)),
        ("unknown commands", str(unknown)),
        ("open alerts", "" if alerts is None else f"{alerts}{'+' if alerts == MOST else ''}"),
        ("agents", ", ".join(f"{version} on {count}" for version, count in sorted(versions.items()))),
    ]
