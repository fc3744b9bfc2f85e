"""Selecting devices: the filter options, their completion, the preview and the confirmation."""

import os
import re
from dataclasses import dataclass
from typing import Annotated

import typer

from nexmdm_cli import stack
from nexmdm_cli.api import Api, Body, Query
from nexmdm_cli.failures import Code, Failure
from nexmdm_cli.output import clean
from nexmdm_cli.resources import FilterDocument, Group, LabelKeyCount, Preview, R
from nexmdm_cli.session import Session


def complete_selector(incomplete: str) -> list[str]:
    """Keys and values of the labels in use, for the last requirement of a selector."""
    # Keeps the finished part: everything up to the last comma outside parentheses.
    done = re.match(r"(?:[^,()]*(?:\([^()]*\))?[^,()]*,)*", incomplete)
    before = done[0] if done else ""
    begun = incomplete[len(before) :]
    labels = {item.key: item.values for item in _asked(LabelKeyCount, "/v1/labels")}
    compared = re.fullmatch(r"(\s*([a-z0-9_.-]+)\s*(?:==|=|!=)\s*)(.*)", begun)
    if compared:
        start, key, value = compared.groups()
        return [before + start + found.value for found in labels.get(key, []) if found.value.startswith(value)]
    negated = "!" if begun.startswith("!") else ""
    return [f"{before}{negated}{key}" for key in labels if key.startswith(begun.removeprefix("!"))]


def complete_group(incomplete: str) -> list[str]:
    return [group.name for group in _asked(Group, "/v1/groups") if group.name.startswith(incomplete)]


Selector = Annotated[
    str | None,
    typer.Option(
        "--selector",
        "-l",
        help="Only devices with these labels, as in Kubernetes: site=berlin,role!=spare,!retired.",
        autocompletion=complete_selector,
    ),
]
InGroup = Annotated[
    str | None,
    typer.Option("--group", help="Only devices of this group.", autocompletion=complete_group, metavar="NAME"),
]
Online = Annotated[bool | None, typer.Option("--online/--silent", help="Only online devices, or only silent ones.")]
Prefix = Annotated[str | None, typer.Option("--alias-prefix", help="Only aliases that begin with this.")]
Version = Annotated[str | None, typer.Option("--agent-version", help="Only devices with this agent version.")]
Everyone = Annotated[bool, typer.Option("--all", help="Every device.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the affected devices.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

OPTIONS = "--selector, --group, --online, --silent, --alias-prefix, --agent-version, --all"


@dataclass(frozen=True)
class Narrow:
    """The options of a filter. `@command` makes each field an option of the command."""

    selector: Selector = None
    group: InGroup = None
    online: Online = None
    alias_prefix: Prefix = None
    agent_version: Version = None

    def query(self) -> Query:
        """The filter in the query string of a list."""
        return {
            "selector": self.selector,
            "group": self.group,
            "online": self.online,
            "alias": self.alias_prefix,
            "agent_version": self.agent_version,
        }

    def body(self) -> FilterDocument:
        """The filter in a body; empty when no option was given."""
        narrow = {
            "selector": self.selector,
            "group": self.group,
            "online": self.online,
            "alias_prefix": self.alias_prefix,
            "agent_version": self.agent_version,
        }
        return {name: value for name, value in narrow.items() if value is not None}


@dataclass(frozen=True)
class Filter(Narrow):
    """The same, or --all."""

    everyone: Everyone = False

    def body(self) -> FilterDocument:
        """The filter in a body; empty when no option was given.

        Raises:
            Failure: --all is combined with other options.
        """
        given = super().body()
        if self.everyone and given:
            raise Failure("--all cannot be combined with other filters.", Code.USAGE)
        return {"all": True} if self.everyone else given


NARROW, FILTER = Narrow(), Filter()  # defaults


def agreed(session: Session, target: Body, doing: str, *, yes: bool, dry_run: bool) -> Body | None:
    """The part of the body that selects the devices, after a confirmation; None after a dry run, which only previews.

    Without --yes, the request is bound to the devices that were shown.

    Args:
        target: {"filter": ...} or {"device_ids": ...}.
        doing: the beginning of the question, such as `Send ping to`, which the devices follow.

    Raises:
        Failure: no device matches, or the user does not confirm.
    """
    preview = session.api.read(Preview, "POST", "/v1/devices/preview", target)
    if dry_run:
        show(session, preview)
        return None
    if not preview.device_count:
        raise Failure("No device matches.", Code.NOT_FOUND, "Try the same filter with `nexmdm devices list`.")
    session.confirm(f"{doing} {count(preview.device_count)} ({sample(preview)})?", yes)
    return target if yes else {**target, "expect_target_hash": preview.target_hash}


def show(session: Session, preview: Preview) -> None:
    session.out.fields(
        preview,
        [
            ("devices", str(preview.device_count)),
            ("among them", sample(preview)),
            ("target hash", preview.target_hash),
        ],
    )


def sample(preview: Preview) -> str:
    """The first aliases, and whether there are more."""
    more = preview.device_count - len(preview.sample)
    return ", ".join([*map(clean, preview.sample), *([f"{more} more"] if more > 0 else [])])


def count(devices: int) -> str:
    return f"{devices} device{'s' if devices != 1 else ''}"


def _asked(type_: type[R], route: str) -> list[R]:
    """The items of a route for shell completion; none if the stack cannot be reached."""
    try:
        api = Api(stack.find(stack.Choice(url=os.environ.get("NEXMDM_URL"))))
        return api.items(type_, "GET", route)
    except Exception:  # an exception during completion would be printed into the user's command line
        return []
