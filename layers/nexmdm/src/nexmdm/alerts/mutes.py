"""Mutes: for some devices, until some time, alerts open and recover without a notification."""

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
    """A mute as operators write it; without a condition every one is muted."""

    filter: Filter
    condition: Condition | None = None
    until: Instant
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class Mute(NewMute, kw_only=True):
    """A mute as it is kept."""

    mute_id: int
    created_by: str
    created_at: Instant


def create(db: Database, actor: Actor, new: NewMute) -> Mute:
    """Mute, from now on.

    Raises:
        Invalid: `until` is over, or the filter is wrong.
    """
    if new.until <= datetime.now(UTC):
        raise Invalid("$.until", "is over; give a time to come")
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
        NotFound: there is none of this id.
    """
    with db.transaction() as tx:
        rows = tx.execute(_DELETE, {"mute_id": mute_id})
        if not rows:
            raise NotFound(f"There is no mute {mute_id}.")
        before = {"reason": rows[0]["reason"], "until": rows[0]["until"].isoformat()}
        events.record(tx, actor, "mute.delete", f"mute:{mute_id}", before=before)


def list_mutes(db: Executor, query: PageQuery) -> Page[Mute]:
    """The mutes that are not over, newest first."""
    (before,) = query.after(int)
    rows = db.execute(_LIST, {"before": before, "limit": query.limit + 1}, repeatable=True)
    return page([_mute(row) for row in rows], query.limit, ("mute_id",))


def active(db: Executor) -> list[Mute]:
    """Every mute that is in force."""
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
