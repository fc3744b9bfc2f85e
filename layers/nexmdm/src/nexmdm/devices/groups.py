"""Groups: named filters, evaluated when the group is used. A group's filter cannot name another group."""

import time

import msgspec
from msgspec import Struct
from psycopg2.errors import ForeignKeyViolation

from nexmdm.activity import events
from nexmdm.devices import filters
from nexmdm.devices.filters import Filter, PackageName
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, typed
from nexmdm.runtime.errors import GroupInUse, Invalid, NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.problems import Use
from nexmdm.runtime.validation import Instant

COUNTED_AT_ONCE = 10


class GroupBody(Struct, forbid_unknown_fields=True):
    """The definition of a group; PUT replaces all of it.

    Attributes:
        monitored_package: the app to monitor on its devices, except on devices that set their own.
    """

    filter: Filter
    monitored_package: PackageName | None = None


class Group(Struct, kw_only=True):
    """device_count: the number of enrolled devices that match the filter now."""

    name: str
    filter: Filter
    monitored_package: str | None
    device_count: int
    created_at: Instant
    created_by: str
    updated_at: Instant
    updated_by: str


def put(db: Database, name: str, body: GroupBody, interval_seconds: float, actor: Actor) -> Group:
    """Create a group or replace its definition. Repeating the call changes nothing.

    Raises:
        Invalid: the filter is empty or invalid, or names a group.
    """
    start = time.perf_counter()
    if body.filter.group is not None:
        raise Invalid("$.filter.group", "a group's filter cannot name another group; repeat that group's filter")
    after: Row = {"filter": filters.stored(body.filter), "monitored_package": body.monitored_package}
    with db.transaction() as tx:
        before = tx.execute(_LOCK, {"name": name})
        if not before or before[0] != after:
            kept = msgspec.json.encode(after["filter"]).decode()
            tx.execute(_PUT, {**after, "filter": kept, "name": name, "by": actor.name})
            events.record(
                tx,
                actor,
                "group.update" if before else "group.create",
                f"group:{name}",
                before=_shown(before[0]) if before else None,
                after=_shown(after),
            )
            logs.db_operation("update" if before else "create", "device_groups", {"name": name}, elapsed_ms(start))
    return show(db, name, interval_seconds)


def show(db: Executor, name: str, interval_seconds: float) -> Group:
    """One group.

    Raises:
        NotFound: there is no group with this name.
    """
    rows = db.execute(_SHOW, {"name": name}, repeatable=True)
    if not rows:
        raise _unknown(name)
    return _counted(db, rows, interval_seconds)[0]


def list_groups(db: Executor, query: PageQuery, interval_seconds: float) -> Page[Group]:
    """A page of groups by name, each with its count."""
    (after,) = query.after(str)
    rows = db.execute(_LIST, {"after": after, "limit": query.limit + 1}, repeatable=True)
    found = page(rows, query.limit, ("name",))
    return Page(_counted(db, found.items, interval_seconds), found.next_cursor)


def delete(db: Database, name: str, actor: Actor) -> None:
    """Delete a group that nothing uses.

    Raises:
        NotFound: there is no group with this name.
        GroupInUse: names the uses.
    """
    start = time.perf_counter()
    try:
        with db.transaction() as tx:
            # Every statement that adds a use of the group locks this row too, so the uses found below are complete.
            held = tx.execute(_LOCK, {"name": name})
            if not held:
                raise _unknown(name)
            used = _uses(tx, name)
            if used:
                raise GroupInUse(name, used)
            tx.execute(_DELETE, {"name": name})
            events.record(tx, actor, "group.delete", f"group:{name}", before=_shown(held[0]))
    except ForeignKeyViolation:
        raise GroupInUse(name, _uses(db, name)) from None
    logs.db_operation("delete", "device_groups", {"name": name, "by": actor.name}, elapsed_ms(start))


def hold(tx: Executor, kept: filters.Document | None, path: str = "$.filter") -> None:
    """Prevent the deletion of the group that a stored filter names until the transaction ends.

    Raises:
        Invalid: there is no such group.
    """
    name = (kept or {}).get("group")
    if name is not None and not tx.execute(_HOLD, {"name": name}):
        raise Invalid(f"{path}.group", f"there is no group {name!r}")


def _uses(db: Executor, name: str) -> list[Use]:
    return typed(db.execute(_USES, {"name": name}), Use)


def _counted(db: Executor, rows: list[Row], interval_seconds: float) -> list[Group]:
    counts: list[int] = []
    for begin in range(0, len(rows), COUNTED_AT_ONCE):
        counts += _counts(db, rows[begin : begin + COUNTED_AT_ONCE], interval_seconds)
    return [
        Group(**{**row, "filter": filters.of_column(row["filter"])}, device_count=count)
        for row, count in zip(rows, counts, strict=True)
    ]


def _counts(db: Executor, rows: list[Row], interval_seconds: float) -> list[int]:
    """The number of devices that match each filter, in one statement that lets every filter use the indexes."""
    found = [
        filters.where([msgspec.convert(row["filter"], filters.Stored)], interval_seconds, f"group_{n}")
        for n, row in enumerate(rows)
    ]
    counted = [_COUNT.replace("{n}", str(n)).replace("{where}", each.sql) for n, each in enumerate(found)]
    parameters = {name: value for each in found for name, value in each.parameters.items()}
    rows = db.execute(" UNION ALL ".join(counted), parameters, repeatable=True)
    by_place = {row["place"]: row["devices"] for row in rows}
    return [by_place[n] for n in range(len(found))]


def _shown(row: Row) -> Row:
    return {**row, "filter": filters.shown(row["filter"])}


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no group {name!r}.")


_COLUMNS = "name, filter, monitored_package, created_at, created_by, updated_at, updated_by"
_SHOW = f"SELECT {_COLUMNS} FROM device_groups WHERE name = %(name)s"
_LIST = f"""
SELECT {_COLUMNS} FROM device_groups
WHERE %(after)s IS NULL OR name COLLATE "C" > %(after)s ORDER BY name COLLATE "C" LIMIT %(limit)s
"""
_LOCK = "SELECT filter, monitored_package FROM device_groups WHERE name = %(name)s FOR UPDATE"
_HOLD = "SELECT name FROM device_groups WHERE name = %(name)s FOR KEY SHARE"
_PUT = """
INSERT INTO device_groups (name, filter, monitored_package, created_by, updated_by)
VALUES (%(name)s, %(filter)s::jsonb, %(monitored_package)s, %(by)s, %(by)s)
ON CONFLICT (name) DO UPDATE SET filter = excluded.filter, monitored_package = excluded.monitored_package,
    updated_at = now(), updated_by = excluded.updated_by
"""
_DELETE = "DELETE FROM device_groups WHERE name = %(name)s"
_USES = "SELECT DISTINCT kind, name FROM device_group_uses WHERE group_name = %(name)s ORDER BY kind, name LIMIT 100"
_COUNT = """
SELECT {n} AS place, count(*)::integer AS devices
FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id WHERE d.deleted_at IS NULL AND {where}"""
