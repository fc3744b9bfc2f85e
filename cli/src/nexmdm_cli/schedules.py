"""`nexmdm schedules`: commands that are sent automatically, repeatedly or once."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from nexmdm_cli import selection
from nexmdm_cli.api import Body, path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.groups import described
from nexmdm_cli.output import Column, shown, when
from nexmdm_cli.resources import Run, Schedule
from nexmdm_cli.selection import FILTER, Filter, Yes
from nexmdm_cli.send import Ttl, UntilAnswered, complete_action, parameters_of
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Create, show, change, run and delete schedules.")

Name = Annotated[str, typer.Argument(help="The schedule.", metavar="NAME")]
Cron = Annotated[str | None, typer.Option(help="Minute hour day month weekday, such as '0 3 * * *'.")]
At = Annotated[str | None, typer.Option(help="Once, at this instant or local time: 2026-12-24T18:00.")]
Zone = Annotated[str | None, typer.Option("--timezone", "-z", help="An IANA name, such as Europe/Berlin. [UTC]")]
STYLES = {"started": "green", "missed": "red", "empty": "yellow"}


@dataclass(frozen=True)
class ScheduleOptions:
    """When a schedule runs, and how long its commands are valid."""

    cron: Cron = None
    at: At = None
    timezone: Zone = None
    ttl: Ttl = None

    def body(self) -> Body:
        at = self.at and _with_seconds(self.at)
        given = {"cron": self.cron, "at": at, "timezone": self.timezone, "ttl_seconds": self.ttl}
        return {name: value for name, value in given.items() if value is not None}


def _with_seconds(at: str) -> str:
    """The API requires seconds. What is no time stays as it is, for the API's message."""
    try:
        return datetime.fromisoformat(at).isoformat()
    except ValueError:
        return at


SCHEDULE_OPTIONS = ScheduleOptions()


def _last(schedule: Schedule) -> Text:
    run = schedule.last_run
    return Text(f"{run.status} {when(run.scheduled_for)}", STYLES.get(run.status, "")) if run else Text("")


COLUMNS: list[Column[Schedule]] = [
    Column("NAME", lambda s: s.name, flexible=True),
    Column("ACTION", lambda s: s.action),
    Column("WHEN", lambda s: s.cron or when(s.at)),
    Column("TIME ZONE", lambda s: s.timezone),
    Column("NEXT RUN", lambda s: when(s.next_run_at) if s.enabled else "off"),
    Column("LAST RUN", _last),
    Column("FILTER", lambda s: described(s.filter), flexible=True),
]
RUNS: list[Column[Run]] = [
    Column("SCHEDULED FOR", lambda r: when(r.scheduled_for)),
    Column("STATUS", lambda r: Text(r.status, STYLES.get(r.status, ""))),
    Column("REQUEST ID", lambda r: r.request_id or "", flexible=True),
    Column("STATES", lambda r: _states(r), flexible=True),
]


@command(app, "list")
def list_schedules(session: Session) -> None:
    """List schedules with their next and their last run."""
    session.out.table(session.api.pages(Schedule, "/v1/schedules"), COLUMNS, "There are no schedules.")


@command(app)
def show(session: Session, name: Name) -> None:
    """Show a schedule with its next five runs."""
    _print(session, session.api.read(Schedule, "GET", path("schedules", name)))


@command(app)
def runs(session: Session, name: Name, limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 20) -> None:
    """List the runs of a schedule, newest first. For the commands of a run: nexmdm commands list --batch REQUEST_ID."""
    session.out.table(
        session.api.pages(Run, path("schedules", name, "runs"), {}, limit), RUNS, "The schedule has not run yet."
    )


@command(app)
def create(
    session: Session,
    name: Name,
    action: Annotated[str, typer.Argument(autocompletion=complete_action, metavar="ACTION")],
    parameters: Annotated[
        list[str] | None, typer.Argument(help="NAME=VALUE, NAME=@FILE, NAME:=JSON.", metavar="NAME=VALUE")
    ] = None,
    given: ScheduleOptions = SCHEDULE_OPTIONS,
    chosen: Filter = FILTER,
    until_answered: UntilAnswered = False,
) -> None:
    """Create a schedule that sends a command repeatedly (--cron) or once (--at). The filter is evaluated at each run.

    \b
    nexmdm schedules create nightly remote_exec_fcm type=reboot --cron '0 3 * * *' -z Europe/Berlin -l site=berlin
    nexmdm schedules create holidays set_dnd enable=true --at 2026-12-24T18:00 -z Europe/Berlin --all
    """
    filter_ = chosen.body()
    if not filter_:
        raise Failure("No filter was given.", Code.USAGE, f"Give one: {selection.OPTIONS}.")
    if (given.cron is None) == (given.at is None):
        raise Failure("No time was given.", Code.USAGE, "Give either --cron or --at.")
    what = {"name": name, "action": action, "params": parameters_of(parameters or [])}
    body = {**what, "filter": filter_, **given.body()}
    if until_answered:
        body["delivery"] = "until_answered"
    _print(session, session.api.read(Schedule, "POST", "/v1/schedules", body))


@command(app)
def change(
    session: Session,
    name: Name,
    given: ScheduleOptions = SCHEDULE_OPTIONS,
    chosen: Filter = FILTER,
) -> None:
    """Change a schedule's times or devices. Its next run changes only with its times."""
    filter_ = chosen.body()
    body = given.body() | ({"filter": filter_} if filter_ else {})
    if not body:
        raise Failure("No change was given.", Code.USAGE, "Give --cron, --at, --timezone, --ttl or a filter.")
    _print(session, session.api.read(Schedule, "PATCH", path("schedules", name), body))


@command(app)
def enable(session: Session, name: Name) -> None:
    """Enable a schedule; runs that it missed in the meantime are not made up."""
    _print(session, session.api.read(Schedule, "PATCH", path("schedules", name), {"enabled": True}))


@command(app)
def disable(session: Session, name: Name) -> None:
    """Disable a schedule."""
    _print(session, session.api.read(Schedule, "PATCH", path("schedules", name), {"enabled": False}))


@command(app)
def run(
    session: Session,
    name: Name,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="Choose an id for this run; it is executed once per id.")
    ] = None,
) -> None:
    """Run a schedule now; its next run is not affected."""
    made = session.api.read(Run, "POST", path("schedules", name, "run"), key=run_id or secrets.token_hex(8))
    pairs = [
        ("status", made.status),
        ("request id", made.request_id or ""),
        ("scheduled for", when(made.scheduled_for)),
    ]
    session.out.fields(made, pairs)


@command(app)
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete a schedule. Commands that it has sent are kept."""
    session.confirm(f"Delete the schedule {name}?", yes)
    session.api.call("DELETE", path("schedules", name))
    session.out.note(f"Deleted {name}.")


def _print(session: Session, row: Schedule) -> None:
    last = row.last_run
    pairs = [
        ("name", row.name),
        ("action", row.action),
        ("parameters", ", ".join(f"{name}={shown(value)}" for name, value in row.params.items())),
        ("when", row.cron or when(row.at)),
        ("time zone", row.timezone),
        ("filter", described(row.filter)),
        ("enabled", "yes" if row.enabled else "no"),
        ("next runs", "\n".join(when(run) for run in row.next_runs)),
        ("last run", _last(row)),
        ("last request", (last and last.request_id) or ""),
        ("last states", _states(last) if last else ""),
        ("delivery", row.delivery.replace("_", " ")),
        ("expires after", f"{row.ttl_seconds} s"),
        ("by", row.created_by),
    ]
    session.out.fields(row, pairs)


def _states(run: Run) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(run.states.items()))
