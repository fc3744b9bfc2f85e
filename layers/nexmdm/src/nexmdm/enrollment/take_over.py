"""Taking over a device: a phone that enrolls again under its alias inherits only the device's id and history."""

import msgspec

from nexmdm.devices import aliases
from nexmdm.runtime.database import Executor, Row, statement


def allowed(enrollment: Row, alias: str) -> bool:
    """Whether a token may take over an enrolled device: it is a single-use token that was created for that alias."""
    return enrollment["uses_allowed"] == 1 and (
        enrollment["alias"] == alias or aliases.key(enrollment["alias"]) == aliases.key(alias)
    )


def take_over(tx: Executor, device: Row, values: dict[str, object]) -> None:
    """Assign the device to the phone that registers now.

    Its old tokens become invalid at once. Its open commands are cancelled, including those that are being sent; its FCM
    registration token, its app inventory and signs of a shared identity are cleared. Earlier installations no longer
    count, because they began before `taken_over_at`.
    """
    tx.execute(_CANCEL_OPEN, values)
    tx.execute(_TAKE_OVER, values)
    tx.execute(_FORGET_STATUS, values)
    tx.execute(_FORGET_APPS, values)
    before = {"old_alias": device["alias"], "old_labels": msgspec.json.encode(device["labels"]).decode()}
    tx.execute(_RECORD_EVENT, {**values, **before})


_CANCEL_OPEN = statement(__package__, "cancel_open")

# A device that was found by its exact alias has no key, and keeps its alias.
_TAKE_OVER = """
UPDATE devices SET token_id = %(device_token_id)s, prior_token_id = NULL, older_token_ids = '{}', confirmed_at = NULL,
    alias = CASE WHEN alias_key = %(alias_key)s THEN coalesce(%(alias)s, alias) ELSE alias END,
    hardware_id = %(hardware_id)s, enrollment_token_id = %(token_id)s, labels = %(labels)s::jsonb,
    fcm_token = NULL, fcm_token_at = NULL, unregistered_fcm_token = NULL, taken_over_at = clock_timestamp()
WHERE id = %(device_id)s
"""

_FORGET_STATUS = """
UPDATE device_last_status SET received_at = NULL, device_ts = NULL, uptime_s = NULL, boot_at = NULL,
    earlier_boot_at = NULL, earlier_model = NULL, token_shared_at = NULL, apps_hash = NULL
WHERE device_id = %(device_id)s
"""

_FORGET_APPS = """
UPDATE device_apps SET installed = false, removed_at = clock_timestamp() WHERE device_id = %(device_id)s AND installed
"""

_RECORD_EVENT = """
SELECT record_system_event_v2('registration', 'device.take_over', 'device:' || %(device_id)s, NULL,
    jsonb_build_object('alias', %(old_alias)s, 'labels', %(old_labels)s::jsonb),
    jsonb_build_object('alias', %(alias)s, 'labels', %(labels)s::jsonb, 'token_id', %(token_id)s))
"""
