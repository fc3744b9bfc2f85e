"""The operators' event log: one event per change, written in the transaction of the change. Rows are only added, never
changed.

A verb that uses `transaction()` calls `record()` in it. A verb of one statement writes the event in that statement:
`INSERT INTO operator_events (actor, session, ip, request_id, action, object, before, after) SELECT %(actor)s, ...` with
`**actor.parameters()`. A call that changed nothing, failed or only read writes no event.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, statement, typed
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant

Text = Annotated[str, Meta(min_length=1, max_length=300)]
# What an event says of its object: members with their values; each action has its own.
Change: TypeAlias = dict[str, Any]


class Event(Struct, kw_only=True):
    """One change: who did what to which object, and the values before and after.

    Attributes:
        object: kind and id, `device:<id>`, `build:<id>`, `command:<request_id>`, `group:<name>`, ...
        before, after: the changed values; counts and hashes for a bulk change. Never a secret.
        request_id: the id of the Lambda invocation, to find its log records.
    """

    event_id: int
    at: Instant
    actor: str
    session: str | None
    ip: str | None
    action: str
    object: str
    before: Change | None
    after: Change | None
    request_id: str | None


class EventsQuery(PageQuery, kw_only=True):
    """actor, action and object match exactly, or as a prefix if they end in `*`; since is an instant."""

    actor: Text | None = None
    action: Text | None = None
    object: Text | None = None
    since: Instant | None = None


def record(
    tx: Executor,
    actor: Actor,
    action: str,
    object_: str,
    *,
    before: Change | None = None,
    after: Change | None = None,
) -> None:
    """Add one event in the caller's transaction.

    Args:
        action: noun and verb, `device.rename`, `command.send`, `build.promote`.
        object_: the object that was changed, `device:<id>`.
    """
    changes = {"before": _json(before), "after": _json(after)}
    tx.execute(_RECORD, {**actor.parameters(), "action": action, "object": object_, **changes})


def list_events(db: Executor, query: EventsQuery) -> Page[Event]:
    """The matching events, newest first."""
    (after,) = query.after(int)
    parameters = {
        "after": after,
        "actor": _pattern(query.actor),
        "action": _pattern(query.action),
        "object": _pattern(query.object),
        "since": query.since,
        "limit": query.limit + 1,
    }
    rows = typed(db.execute(_LIST, parameters, repeatable=True), Event)
    return page(rows, query.limit, ("event_id",))


def _pattern(text: str | None) -> str | None:
    """A LIKE pattern: the text itself, or every text that begins with it when it ends in `*`."""
    if text is None:
        return None
    literal = text.removesuffix("*").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal + ("%" if text.endswith("*") else "")


def _json(value: Change | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


_RECORD = """
INSERT INTO operator_events (actor, session, ip, request_id, action, object, before, after)
VALUES (%(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, %(action)s, %(object)s, %(before)s::jsonb,
    %(after)s::jsonb)
"""

_LIST = statement(__package__, "list_events")
