"""Deletion of one device, or of many at once."""

import time

from msgspec import Struct

from nexmdm.devices import targets
from nexmdm.devices.targets import ExpectedTargets
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Executor, elapsed_ms, statement
from nexmdm.runtime.errors import Invalid, UnknownDevice


class Deleted(Struct):
    """device_count: how many devices were selected. deleted: how many of them were deleted by this call."""

    device_count: int
    deleted: int


def delete(db: Executor, device_id: str, actor: Actor) -> None:
    """Delete a device: from now on its token gets 410 and its alias is free; its history is kept for retention.

    Deleting it again changes nothing.

    Raises:
        UnknownDevice: no such device ever existed.
    """
    start = time.perf_counter()
    rows = db.execute(_DELETE, {"device_id": device_id, **actor.parameters()}, repeatable=True)
    if not rows:
        raise UnknownDevice(f"There is no device {device_id!r}.")
    logs.db_operation("delete", "devices", {"device_id": device_id, "by": actor.name}, elapsed_ms(start))


def delete_many(db: Executor, wanted: ExpectedTargets, interval_seconds: float, actor: Actor) -> Deleted:
    """Delete devices in one statement: from now on their tokens get 410 and their aliases are free.

    Raises:
        Invalid: the targets are invalid, or there is a filter without the hash of its preview.
        TargetsChanged: the filter selects other devices than in the preview. Nothing was deleted.
    """
    start = time.perf_counter()
    condition = targets.condition(db, wanted, interval_seconds)
    if wanted.filter is not None and wanted.expect_target_hash is None:
        raise Invalid("$.expect_target_hash", "is missing; set it to target_hash of POST /v1/devices/preview")
    parameters = {
        **condition.parameters,
        **actor.parameters(),
        "expect_target_hash": wanted.expect_target_hash,
        "filter": targets.filter_json(wanted),
    }
    [found] = db.execute(_DELETE_MANY.replace("{where}", condition.sql), parameters, repeatable=True)
    targets.refuse(wanted, found)
    keys = {"devices": found["device_count"], "deleted": found["deleted"], "by": actor.name}
    logs.db_operation("delete", "devices", keys, elapsed_ms(start))
    return Deleted(found["device_count"], found["deleted"])


_DELETE_MANY = statement(__package__, "delete_devices")

_DELETE = """
WITH deleted AS (
    UPDATE devices SET deleted_at = statement_timestamp(), deleted_by = %(actor)s, fcm_token = NULL
    WHERE id = %(device_id)s AND deleted_at IS NULL
    RETURNING id, alias
), event AS (
    INSERT INTO operator_events (actor, session, ip, request_id, action, object, before)
    SELECT %(actor)s, %(actor_session)s, %(actor_ip)s, %(actor_request_id)s, 'device.delete', 'device:' || id,
        jsonb_build_object('alias', alias)
    FROM deleted
)
SELECT id FROM devices WHERE id = %(device_id)s
"""
