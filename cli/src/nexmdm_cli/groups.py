"""`nexmdm groups`: named filters."""

from typing import Annotated

import typer

from nexmdm_cli.api import path
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import Column, ago, clean, when
from nexmdm_cli.resources import FilterDocument, Group
from nexmdm_cli.selection import (
    OPTIONS,
    Everyone,
    Filter,
    Online,
    Prefix,
    Selector,
    Version,
    Yes,
    complete_group,
    count,
)
from nexmdm_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, help="Create, show and delete groups, which are named filters.")

Name = Annotated[str, typer.Argument(help="The group.", autocompletion=complete_group, metavar="NAME")]


ORDER = ("selector", "group", "alias_prefix", "online", "agent_version")


def described(filter_: FilterDocument) -> str:
    """A filter as CLI options."""
    names = {"selector": "--selector", "group": "--group", "alias_prefix": "--alias-prefix"}
    words = []
    for name in [*(name for name in ORDER if name in filter_), *(name for name in filter_ if name not in ORDER)]:
        value = filter_[name]
        if name == "online":
            words.append("--online" if value else "--silent")
        elif name == "all":
            words.append("--all")
        else:
            words.append(f"{names.get(name, '--' + name.replace('_', '-'))} {value}")
    return " ".join(words)


COLUMNS: list[Column[Group]] = [
    Column("NAME", lambda g: g.name),
    Column("DEVICES", lambda g: str(g.device_count)),
    Column("FILTER", lambda g: described(g.filter), flexible=True),
    Column("WATCHED APP", lambda g: g.monitored_package or "", wide=True),
    Column("CHANGED", lambda g: ago(g.updated_at), wide=True),
]


@command(app, "list")
def list_groups(session: Session) -> None:
    """List groups with their current number of devices."""
    session.out.table(session.api.pages(Group, "/v1/groups"), COLUMNS, "There are no groups.")


@command(app)
def show(session: Session, name: Name) -> None:
    """Show a group: its filter, and how many devices match it now."""
    _print(session, session.api.read(Group, "GET", path("groups", name)))


@command(app, "set")
def set_group(
    session: Session,
    name: Name,
    selector: Selector = None,
    online: Online = None,
    alias_prefix: Prefix = None,
    agent_version: Version = None,
    everyone: Everyone = False,
    monitored_package: Annotated[
        str | None,
        typer.Option(help="The app to monitor on its devices; by default none.", metavar="PACKAGE"),
    ] = None,
) -> None:
    """Create a group, or replace its filter and its monitored app. The filter is evaluated whenever the group is used.

    \b
    nexmdm groups set pilot -l stage=pilot
    nexmdm groups set tills-offline -l role=till --silent
    nexmdm groups set tills -l role=till --monitored-package com.example.till
    nexmdm send ping --group pilot
    """
    filter_ = Filter(selector, None, online, alias_prefix, agent_version, everyone).body()
    if not filter_:
        raise Failure("No filter was given.", Code.USAGE, f"Give one: {OPTIONS.replace('--group, ', '')}.")
    body = {"filter": filter_} | ({"monitored_package": monitored_package} if monitored_package else {})
    _print(session, session.api.read(Group, "PUT", path("groups", name), body))


@command(app)
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete an unused group. Its devices are not changed."""
    session.confirm(f"Delete the group {clean(name)}?", yes)
    session.api.call("DELETE", path("groups", name))
    if session.out.as_json:
        return session.out.json({"name": name})
    session.out.line(f"deleted {clean(name)}")


def _print(session: Session, group: Group) -> None:
    session.out.fields(
        group,
        [
            ("group", group.name),
            ("filter", described(group.filter)),
            ("watched app", group.monitored_package or ""),
            ("fits now", count(group.device_count)),
            ("changed", f"{when(group.updated_at)} by {group.updated_by}"),
            ("created", f"{when(group.created_at)} by {group.created_by}"),
        ],
    )
