"""The settings of one device: its alias, its labels and its monitored app."""

import time

import msgspec
from msgspec import UNSET, Struct, UnsetType
from psycopg2.errors import UniqueViolation

from nexmdm.activity import events
from nexmdm.devices import aliases
from nexmdm.devices.aliases import Alias
from nexmdm.devices.filters import PackageName
from nexmdm.devices.labels import LabelKey, LabelValue, merged
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, elapsed_ms
from nexmdm.runtime.errors import AliasTaken, Invalid, UnknownDevice


class DevicePatch(Struct, forbid_unknown_fields=True, kw_only=True):
    """Changes to a device's settings as a merge patch (RFC 7396): absent members stay unchanged.

    Attributes:
        labels: merged with the device's labels; a null value removes a label, and null for all labels removes them all.
        monitored_package: the app to monitor on this device; null for its group's, or else UNITY_PACKAGE.
    """

    alias: Alias | UnsetType = UNSET
    labels: dict[LabelKey, LabelValue | None] | UnsetType | None = UNSET
    monitored_package: PackageName | UnsetType | None = UNSET


class DeviceSettings(Struct, kw_only=True):
    """The settings of a device."""

    device_id: str
    alias: str
    labels: dict[str, str]
    monitored_package: str | None


def update(db: Database, device_id: str, patch: DevicePatch, actor: Actor) -> DeviceSettings:
    """Change a device's alias, labels or monitored app.

    Raises:
        Invalid: the patch is empty, or there would be too many labels.
        UnknownDevice: there is no such device, or it was deleted.
        AliasTaken: another device has this alias.
    """
    start = time.perf_counter()
    given = {name: getattr(patch, name) for name in patch.__struct_fields__ if getattr(patch, name) is not UNSET}
    if not given:
        raise Invalid("$", "give alias, labels or monitored_package")
    if "alias" in given:
        given["alias"] = aliases.checked(given["alias"], "$.alias")
    try:
        with db.transaction() as tx:
            rows = tx.execute(_LOCK, {"device_id": device_id})
            if not rows:
                raise UnknownDevice(f"There is no device {device_id!r}.")
            before = rows[0]
            after = before | given
            renamed = after["alias"] != before["alias"]
            after["alias_key"] = aliases.key(after["alias"]) if renamed else before["alias_key"]
            if "labels" in given:
                after["labels"] = merged(before["labels"], given["labels"])
            changed = [name for name in given if before[name] != after[name]]
            if changed:
                kept = msgspec.json.encode(after["labels"]).decode()
                tx.execute(_UPDATE, {**after, "labels": kept, "device_id": device_id})
                events.record(
                    tx,
                    actor,
                    "device.rename" if changed == ["alias"] else "device.update",
                    f"device:{device_id}",
                    before={name: before[name] for name in changed},
                    after={name: after[name] for name in changed},
                )
    except UniqueViolation:
        raise _taken(db, given["alias"]) from None
    keys: dict[str, object] = {"device_id": device_id, "changed": ",".join(changed)}
    logs.db_operation("update", "devices", keys, elapsed_ms(start))
    after.pop("alias_key")
    return DeviceSettings(device_id=device_id, **after)


def _taken(db: Executor, alias: str) -> AliasTaken:
    """The problem that names the existing alias, which may only look the same."""
    rows = db.execute(_HOLDER, {"alias": alias, "key": aliases.key(alias)}, repeatable=True)
    return AliasTaken(f"alias: {rows[0]['alias'] if rows else alias!r} is the alias of another device.")


_HOLDER = """
SELECT alias FROM devices WHERE deleted_at IS NULL AND (alias_key = %(key)s OR alias = %(alias)s)
ORDER BY alias_key = %(key)s DESC NULLS LAST LIMIT 1
"""

_LOCK = """
SELECT alias, alias_key, labels, monitored_package FROM devices
WHERE id = %(device_id)s AND deleted_at IS NULL FOR UPDATE
"""

_UPDATE = """
UPDATE devices SET alias = %(alias)s, alias_key = %(alias_key)s, labels = %(labels)s::jsonb,
    monitored_package = %(monitored_package)s
WHERE id = %(device_id)s
"""
