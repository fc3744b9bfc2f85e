"""`nexmdm events`: the log of changes by operators and by the system itself."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from nexmdm_cli.output import Column, clean, when
from nexmdm_cli.resources import Event
from nexmdm_cli.session import Session, command

POLL_SECONDS = 2


def _who(event: Event) -> str:
    return event.session or event.actor.rpartition("/")[2]


def _change(event: Event) -> str:
    before, after = event.before or {}, event.after or {}
    return ", ".join(
        f"{name} {_plain(before[name])} → {_plain(value)}" if name in before else f"{name} {_plain(value)}"
        for name, value in (after or before).items()
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


COLUMNS: list[Column[Event]] = [
    Column("AT", lambda e: when(e.at)),
    Column("WHO", _who),
    Column("ACTION", lambda e: e.action),
    Column("OBJECT", lambda e: e.object, flexible=True),
    Column("CHANGE", _change, flexible=True),
    Column("ACTOR", lambda e: e.actor, wide=True),
    Column("IP", lambda e: e.ip or "", wide=True),
]


def add_to(app: typer.Typer) -> None:
    command(app)(events)


def events(
    session: Session,
    actor: Annotated[
        str | None, typer.Option(help="An ARN, or a prefix followed by *; system:* for the system.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Such as command.send, or build.*")] = None,
    about: Annotated[str | None, typer.Option("--object", help="Such as device:ID, or build:*")] = None,
    since: Annotated[str | None, typer.Option(help="An instant: 2026-12-24T18:00:00Z")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events until Ctrl-C.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number; 100 by default.")] = 100,
) -> None:
    """List changes, newest first; with --follow, oldest first, followed by new ones."""
    query = {"actor": actor, "action": action, "object": about, "since": since}
    if not follow:
        session.out.table(session.api.pages(Event, "/v1/events", query, limit), COLUMNS, "There are no events.")
        return
    newest = 0
    rows = list(session.api.pages(Event, "/v1/events", query, limit))
    while True:
        for event in reversed(rows):
            session.out.stream(event.document) if session.out.as_json else session.out.line(_line(event))
            newest, query["since"] = event.event_id, event.at
        time.sleep(POLL_SECONDS)
        rows = _after(newest, session.api.pages(Event, "/v1/events", query))


def _after(newest: int, events: Iterator[Event]) -> list[Event]:
    """The events after the newest that was shown, on as many pages as they take; the API lists the newest first."""
    return list(itertools.takewhile(lambda event: event.event_id > newest, events))


def _line(event: Event) -> str:
    return clean(f"{when(event.at)}  {_who(event)}  {event.action}  {event.object}  {_change(event)}")
