"""Import of aliases and labels for many devices: either every row is valid, or nothing is changed."""

import time
from collections import Counter
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct
from psycopg2.errors import UniqueViolation

from nexmdm.activity import events
from nexmdm.devices import aliases
from nexmdm.devices.labels import Labels
from nexmdm.runtime import logs, validation
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms
from nexmdm.runtime.errors import AliasTaken, Invalid, InvalidRows
from nexmdm.runtime.problems import FieldError

MAX_ROWS = 10_000
MAX_ERRORS = 1000
# A row as it was sent: what `ImportRow` reads, or what is wrong and told.
GivenRow: TypeAlias = dict[str, Any]


class ImportRow(Struct, kw_only=True):
    """One device, identified by device_id, or by its alias if there is none. Other members are ignored.

    Attributes:
        alias: its new alias.
        labels: all its new labels; if absent, the labels stay unchanged.
    """

    device_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    alias: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    labels: Labels | None = None


class Import(Struct, forbid_unknown_fields=True, kw_only=True):
    """Rows as described by `ImportRow`. Each is validated separately, so that all errors are reported at once.

    Attributes:
        dry_run: validate without changing anything.
    """

    devices: Annotated[list[GivenRow], Meta(min_length=1, max_length=MAX_ROWS)]
    dry_run: bool = False


class Imported(Struct, kw_only=True):
    """device_count: number of rows. changed: number of devices whose alias or labels change."""

    device_count: int
    changed: int
    dry_run: bool


def run(db: Database, wanted: Import, actor: Actor) -> Imported:
    """Set aliases and labels, all or nothing. Devices may swap their aliases. Repeating it changes nothing.

    Raises:
        InvalidRows: with an error for each invalid row; the path names the row and its field.
        AliasTaken: another device took one of the aliases at this moment.
    """
    start = time.perf_counter()
    rows, errors = _read(wanted.devices)
    try:
        with db.transaction() as tx:
            changes = _changes(tx, rows, errors)
            if errors:
                raise InvalidRows(sorted(errors, key=lambda error: error.path)[:MAX_ERRORS])
            if changes and not wanted.dry_run:
                _write(tx, changes)
                after = {"device_count": len(rows), "changed": len(changes)}
                events.record(tx, actor, "device.import", f"devices:{_hash(tx, changes)}", after=after)
    except UniqueViolation:
        raise AliasTaken("Another device took one of the aliases at this moment. Import again.") from None
    if not wanted.dry_run:
        logs.db_operation("update", "devices", {"imported": len(changes), "by": actor.name}, elapsed_ms(start))
    return Imported(device_count=len(rows), changed=len(changes), dry_run=wanted.dry_run)


def _read(given: list[GivenRow]) -> tuple[dict[int, ImportRow], list[FieldError]]:
    """The valid rows, by their position, and the errors of the others."""
    rows: dict[int, ImportRow] = {}
    errors: list[FieldError] = []
    for n, member in enumerate(given):
        try:
            row = validation.convert(member, ImportRow, root=f"$.devices[{n}]")
            if row.alias is not None and row.device_id is not None:
                row.alias = aliases.checked(row.alias, f"$.devices[{n}].alias")
        except Invalid as invalid:
            errors += invalid.errors
            continue
        if row.device_id is None and row.alias is None:
            errors.append(FieldError(path=f"$.devices[{n}]", detail="set device_id, or alias to identify the device"))
            continue
        rows[n] = row
    return rows, errors


def _changes(tx: Executor, rows: dict[int, ImportRow], errors: list[FieldError]) -> list[Row]:
    """The changes of the rows: [{id, alias, labels}]. Locks the devices and adds errors to `errors`."""
    parameters = {
        "ids": [row.device_id for row in rows.values() if row.device_id is not None],
        "aliases": [row.alias for row in rows.values() if row.alias is not None],
        "keys": [aliases.key(row.alias) for row in rows.values() if row.alias is not None],
    }
    found = tx.execute(_LOCK, parameters)
    by_id, by_alias = {row["id"]: row for row in found}, {row["alias"]: row for row in found}
    changes: list[Row] = []
    targets: dict[int, Row] = {}
    for n, row in rows.items():
        device = by_alias.get(row.alias) if row.device_id is None else by_id.get(row.device_id)
        if device is None:
            field, value = ("alias", row.alias) if row.device_id is None else ("device_id", row.device_id)
            errors.append(FieldError(path=f"$.devices[{n}].{field}", detail=f"there is no device {value!r}"))
            continue
        targets[n] = device
        after = {
            "id": device["id"],
            "alias": row.alias or device["alias"],
            "labels": device["labels"] if row.labels is None else row.labels,
        }
        if any(after[name] != device[name] for name in after):
            changes.append({**after, "renamed": after["alias"] != device["alias"]})
    _refuse_repeats(rows, targets, errors)
    _refuse_taken(rows, targets, by_alias, errors)
    return changes


def _refuse_repeats(rows: dict[int, ImportRow], targets: dict[int, Row], errors: list[FieldError]) -> None:
    """Report rows that name the same device, or give the same alias to two devices."""
    times = Counter(device["id"] for device in targets.values())
    names = Counter(aliases.key(rows[n].alias or device["alias"]) for n, device in targets.items())
    for n, device in targets.items():
        alias = rows[n].alias or device["alias"]
        if times[device["id"]] > 1:
            field = "alias" if rows[n].device_id is None else "device_id"
            errors.append(FieldError(path=f"$.devices[{n}].{field}", detail="several rows name this device"))
        elif names[aliases.key(alias)] > 1:
            detail = f"several rows have the alias {alias!r}, or one that looks the same"
            errors.append(FieldError(path=f"$.devices[{n}].alias", detail=detail))


def _refuse_taken(
    rows: dict[int, ImportRow], targets: dict[int, Row], by_alias: dict[str, Row], errors: list[FieldError]
) -> None:
    """An alias of a device that keeps it."""
    given_up = {device["id"] for n, device in targets.items() if rows[n].alias not in (None, device["alias"])}
    by_key = {device["alias_key"]: device for device in by_alias.values() if device["alias_key"] is not None}
    for n, device in targets.items():
        alias = rows[n].alias
        if alias is None or alias == device["alias"]:
            continue
        holder = by_alias.get(alias) or by_key.get(aliases.key(alias))
        if holder is None or holder["id"] == device["id"] or holder["id"] in given_up:
            continue
        detail = f"{holder['alias']!r} is the alias of another device, {holder['id']}"
        errors.append(FieldError(path=f"$.devices[{n}].alias", detail=detail))


def _write(tx: Executor, changes: list[Row]) -> None:
    renamed = [change["id"] for change in changes if change["renamed"]]
    if renamed:
        # Aliases are unique at every moment; devices that exchange theirs need another one in between.
        tx.execute(_FREE_ALIASES, {"ids": renamed})
    tx.execute(
        _WRITE,
        {
            "ids": [change["id"] for change in changes],
            "aliases": [change["alias"] for change in changes],
            "keys": [aliases.key(change["alias"]) if change["renamed"] else None for change in changes],
            "labels": [msgspec.json.encode(change["labels"]).decode() for change in changes],
        },
    )


def _hash(tx: Executor, changes: list[Row]) -> str:
    found: str = tx.execute(_HASH, {"ids": [change["id"] for change in changes]})[0]["target_hash"]
    return found


_LOCK = """
SELECT id, alias, alias_key, labels FROM devices
WHERE deleted_at IS NULL AND (id = ANY (%(ids)s::text[]) OR alias = ANY (%(aliases)s::text[])
    OR alias_key = ANY (%(keys)s::text[]))
ORDER BY id FOR NO KEY UPDATE
"""
_FREE_ALIASES = (
    "UPDATE devices SET alias = 'importing ' || id, alias_key = 'importing ' || id WHERE id = ANY (%(ids)s::text[])"
)
_WRITE = """
UPDATE devices d SET alias = new.alias, alias_key = coalesce(new.key, d.alias_key), labels = new.labels::jsonb
FROM unnest(%(ids)s::text[], %(aliases)s::text[], %(keys)s::text[], %(labels)s::text[]) AS new(id, alias, key, labels)
WHERE d.id = new.id
"""
_HASH = "SELECT target_hash(%(ids)s::text[]) AS target_hash"
