"""Targets of a bulk change: devices by id or a filter, and the hash with which a caller confirms a preview.

Each statement that makes a bulk change begins with the CTEs `selected`, `missing` and `target`, and does nothing unless
`target.agreed`; `refuse` raises the corresponding problem. Ids in a request must be those of enrolled devices.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from nexmdm.devices import filters
from nexmdm.devices.filters import Condition, Filter
from nexmdm.runtime.database import Executor, Row, statement
from nexmdm.runtime.errors import Invalid, TargetsChanged

DeviceIds = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=10_000)]
TargetHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]

# The targets of a bulk command in their canonical form (`canonical`), or a build and its audience.
Selector: TypeAlias = dict[str, Any]


class Targets(Struct, forbid_unknown_fields=True, kw_only=True):
    """Either device_ids, or a filter that is evaluated when the call arrives."""

    device_ids: DeviceIds | None = None
    filter: Filter | None = None


class ExpectedTargets(Targets, kw_only=True):
    """expect_target_hash: `target_hash` of a preview; if the devices have changed since, the call does nothing."""

    expect_target_hash: TargetHash | None = None


class Preview(Struct):
    """The devices that a filter selects now.

    Attributes:
        sample: the first ten aliases.
        target_hash: SHA-256 (hex) of the device ids in byte order, joined by newlines.
    """

    device_count: int
    sample: list[str]
    target_hash: str


def canonical(targets: Targets) -> Selector:
    """The targets in the form that is stored and hashed: sorted distinct ids, or the filter's conditions.

    Raises:
        Invalid: neither or both were given, or the filter is empty.
    """
    if (targets.device_ids is None) == (targets.filter is None):
        raise Invalid("$", "give either device_ids or filter")
    if targets.device_ids is not None:
        return {"device_ids": sorted(set(targets.device_ids))}
    return {"filter": filters.conditions(filters.checked(targets.filter or Filter()))}


def condition(db: Executor, targets: Targets, interval_seconds: float) -> Condition:
    """The SQL condition that selects the targets, with the parameter `device_ids`.

    Raises:
        Invalid: see `canonical`, or there is no such group.
    """
    chosen = canonical(targets)
    if "device_ids" in chosen:
        return Condition("d.id = ANY (%(device_ids)s::text[])", {"device_ids": chosen["device_ids"]})
    found = filters.where(filters.resolve(db, targets.filter or Filter()), interval_seconds)
    return Condition(found.sql, {**found.parameters, "device_ids": None})


def filter_json(targets: Targets) -> str | None:
    """The filter as recorded in an event; for a list of ids the event records only its hash."""
    return None if targets.filter is None else msgspec.json.encode(filters.conditions(targets.filter)).decode()


def preview(db: Executor, targets: Targets, interval_seconds: float) -> Preview:
    """Count the targets, with a sample and the hash to expect.

    Raises:
        Invalid: the targets are invalid, or an id is not that of an enrolled device.
    """
    wanted = condition(db, targets, interval_seconds)
    [found] = db.execute(_PREVIEW.replace("{where}", wanted.sql), wanted.parameters, repeatable=True)
    refuse_missing(found)
    return Preview(found["device_count"], found["sample"], found["target_hash"])


def refuse(targets: ExpectedTargets, found: Row) -> None:
    """Raise the problem that kept a bulk statement from making its change.

    Args:
        found: its row, with `missing`, `agreed`, `device_count` and `target_hash`.

    Raises:
        Invalid: an id is not that of an enrolled device.
        TargetsChanged: the devices are not those of the preview.
    """
    refuse_missing(found)
    if targets.expect_target_hash is not None and not found["agreed"]:
        raise TargetsChanged(found["device_count"], found["target_hash"])


def refuse_missing(found: Row) -> None:
    if found["missing"]:
        raise Invalid("$.device_ids", f"there are no such devices: {', '.join(found['missing'])}")


_PREVIEW = statement(__package__, "preview")
