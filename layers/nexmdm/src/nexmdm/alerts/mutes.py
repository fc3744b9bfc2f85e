"""Mutes: alerts of some devices open and recover without notifications until a given time."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from nexmdm.activity import events
from nexmdm.alerts.conditions import Condition
from nexmdm.devices import filters, groups
from nexmdm.devices.filters import Filter
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row
from nexmdm.runtime.errors import Invalid, NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant


class NewMute(Struct, forbid_unknown_fields=True, kw_only=True):
    """A mute as created by an operator; without a condition all conditions are muted."""

    filter: Filter
    condition: Condition | None = None
    until: Instant
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class Mute(NewMute, kw_only=True):
    """A stored mute."""

    mute_id: int
    created_by: str
    created_at: Instant


def create(db: Database, actor: Actor, new: NewMute) -> Mute:
    """Create a mute that starts now.

    Raises:
        Invalid: `until` is in the past, or the filter is invalid.
    """
    if new.until <= datetime.now(UTC):
        raise Invalid("$.until", "is in the past; give a time in the future")
    with db.transaction() as tx:
        stored = filters.stored(new.filter)
        groups.hold(tx, stored)
        kept = msgspec.json.encode(stored).decode()
        values = {"condition": new.condition, "until": new.until, "reason": new.reason, "by": actor.name}
        mute = _mute(tx.execute(_INSERT, {**values, "filter": kept})[0])
        events.record(tx, actor, "mute.create", f"mute:{mute.mute_id}", after=msgspec.to_builtins(new))
    return mute


def delete(db: Database, actor: Actor, mute_id: int) -> None:
    """End a mute now.

    Raises:
        NotFound: there is no mute with this id.
    """
    with db.transaction() as tx:
        rows = tx.execute(_DELETE, {"mute_id": mute_id})
        if not rows:
            raise NotFound(f"There is no mute {mute_id}.")
        before = {"reason": rows[0]["reason"], "until": rows[0]["until"].isoformat()}
        events.record(tx, actor, "mute.delete", f"mute:{mute_id}", before=before)


def list_mutes(db: Executor, query: PageQuery) -> Page[Mute]:
    """The active mutes, newest first."""
    (before,) = query.after(int)
    rows = db.execute(_LIST, {"before": before, "limit": query.limit + 1}, repeatable=True)
    return page([_mute(row) for row in rows], query.limit, ("mute_id",))


def active(db: Executor) -> list[Mute]:
    """All active mutes."""
    return [_mute(row) for row in db.execute(_ACTIVE, repeatable=True)]


def _mute(row: Row) -> Mute:
    return msgspec.convert({**row, "filter": filters.shown(row["filter"])}, Mute)


_COLUMNS = "mute_id, filter, condition, until, reason, created_by, created_at"

_INSERT = f"""
INSERT INTO alert_mutes (filter, condition, until, reason, created_by)
VALUES (%(filter)s::jsonb, %(condition)s, %(until)s, %(reason)s, %(by)s)
RETURNING {_COLUMNS}
"""

_DELETE = f"DELETE FROM alert_mutes WHERE mute_id = %(mute_id)s AND until > clock_timestamp() RETURNING {_COLUMNS}"

_ACTIVE = f"SELECT {_COLUMNS} FROM alert_mutes WHERE until > clock_timestamp()"

_LIST = f"""
{_ACTIVE} AND (%(before)s::numeric IS NULL OR mute_id < %(before)s::numeric)
ORDER BY mute_id DESC LIMIT %(limit)s
"""
