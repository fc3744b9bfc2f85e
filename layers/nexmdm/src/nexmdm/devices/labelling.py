"""Changing the labels of many devices at once, and listing the labels in use."""

import time
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from psycopg2.errors import CheckViolation

from nexmdm.devices import targets
from nexmdm.devices.labels import MAX_LABELS, LabelKey, Labels
from nexmdm.devices.targets import ExpectedTargets
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.errors import Invalid


class LabelChange(ExpectedTargets, kw_only=True):
    """Labels to set and to remove, on the named devices or on those that the filter selects when the call arrives.

    Attributes:
        set: labels to set on each of the devices.
        remove: keys to remove from each of them.
    """

    set: Labels = msgspec.field(default_factory=dict)
    remove: Annotated[list[LabelKey], Meta(max_length=MAX_LABELS)] = msgspec.field(default_factory=list)


class LabelsChanged(Struct):
    """device_count: number of selected devices. changed: number of those whose labels changed."""

    device_count: int
    changed: int


def change(db: Executor, wanted: LabelChange, interval_seconds: float, actor: Actor) -> LabelsChanged:
    """Set and remove labels on many devices, in one statement. Repeating it changes nothing.

    Raises:
        Invalid: the targets are invalid, a key is in both `set` and `remove`, both are empty, or a device would have
        too many labels. Nothing was changed. TargetsChanged: the filter selects other devices than in the preview.
        Nothing was changed.
    """
    start = time.perf_counter()
    both = sorted(wanted.set.keys() & set(wanted.remove))
    if both:
        raise Invalid(f"$.set.{both[0]}", "is also in remove; give it in one of them")
    if not wanted.set and not wanted.remove:
        raise Invalid("$", "give labels to set or to remove")
    condition = targets.condition(db, wanted, interval_seconds)
    parameters = {
        **condition.parameters,
        **actor.parameters(),
        "expect_target_hash": wanted.expect_target_hash,
        "set": msgspec.json.encode(wanted.set).decode(),
        "remove": sorted(set(wanted.remove)),
        "max_labels": MAX_LABELS,
        "filter": targets.filter_json(wanted),
    }
    try:
        [found] = db.execute(_CHANGE.replace("{where}", condition.sql), parameters, repeatable=True)
    except CheckViolation:
        # A concurrent call set the last label that was possible on one of the devices.
        raise Invalid("$.set", f"a device would have more than {MAX_LABELS} labels; nothing was changed") from None
    targets.refuse(wanted, found)
    if found["full"] is not None:
        detail = f"{found['full']!r} would have more than {MAX_LABELS} labels; nothing was changed"
        raise Invalid("$.set", detail)
    keys = {"devices": found["device_count"], "changed": found["changed"], "by": actor.name}
    logs.db_operation("update", "devices", keys, elapsed_ms(start))
    return LabelsChanged(found["device_count"], found["changed"])


class LabelValueCount(Struct):
    value: str
    device_count: int


class LabelKeyCount(Struct):
    """A key in use, with at most 100 of its values, most frequent first."""

    key: str
    device_count: int
    values: list[LabelValueCount]


class LabelsInUse(Struct):
    items: list[LabelKeyCount]


def in_use(db: Executor) -> LabelsInUse:
    """The labels of enrolled devices, for suggestions: at most 1,000 keys."""
    rows = db.execute(_IN_USE, {"keys": 1000, "values": 100}, repeatable=True)
    return LabelsInUse(msgspec.convert(rows, list[LabelKeyCount]))


_CHANGE = statement(__package__, "change_labels")
_IN_USE = statement(__package__, "list_labels")
