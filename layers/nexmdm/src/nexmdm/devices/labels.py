"""Labels of devices: what one may be, and changing them on many devices at once."""

import time
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from psycopg2.errors import CheckViolation

from nexmdm.devices import selectors, targets
from nexmdm.devices.targets import ExpectedTargets
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.errors import Invalid

MAX_LABELS = 32
LabelKey = Annotated[str, Meta(pattern=rf"^{selectors.KEY_PATTERN}(?![\s\S])")]
LabelValue = Annotated[str, Meta(max_length=200)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)]


class LabelChange(ExpectedTargets, kw_only=True):
    """Labels to set and to remove on the devices named, or on those that the filter selects when it comes.

    Attributes:
        set: labels that each of the devices has afterwards.
        remove: keys that none of them has afterwards.
    """

    set: Labels = msgspec.field(default_factory=dict)
    remove: Annotated[list[LabelKey], Meta(max_length=MAX_LABELS)] = msgspec.field(default_factory=list)


class LabelsChanged(Struct):
    """device_count: how many devices were selected. changed: how many of them had other labels before."""

    device_count: int
    changed: int


def merged(labels: dict[str, str], change: dict[str, str | None] | None, path: str = "$.labels") -> dict[str, str]:
    """The labels after a merge as RFC 7396 defines it: null removes a key, and null for the whole removes them all.

    Raises:
        Invalid: there would be too many.
    """
    if change is None:
        return {}
    result = {key: value for key, value in (labels | change).items() if value is not None}
    if len(result) > MAX_LABELS:
        raise Invalid(path, f"the device would have {len(result)} labels; at most {MAX_LABELS} are allowed")
    return result


def change(db: Executor, wanted: LabelChange, interval_seconds: float, actor: Actor) -> LabelsChanged:
    """Set and remove labels on many devices, in one statement. Repeating it changes nothing.

    Raises:
        Invalid: the targets cannot be read, a key is in both `set` and `remove`, both are empty, or a device has no
            room for another label. Nothing was changed.
        TargetsChanged: the filter selects other devices than the caller saw. Nothing was changed.
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
        # Another call gave one of the devices its last label at this moment.
        raise Invalid("$.set", f"a device would have more than {MAX_LABELS} labels; nothing was changed") from None
    targets.refuse(wanted, found)
    if found["full"] is not None:
        detail = f"{found['full']!r} would have more than {MAX_LABELS} labels; nothing was changed"
        raise Invalid("$.set", detail)
    keys = {"devices": found["device_count"], "changed": found["changed"], "by": actor.name}
    logs.db_operation("update", "devices", keys, elapsed_ms(start))
    return LabelsChanged(found["device_count"], found["changed"])


_CHANGE = statement(__package__, "change_labels")
