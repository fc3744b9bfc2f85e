"""Registration with an enrollment token: of a new device, of the same one again, or taking over an existing one.

A token is used at most `uses_allowed` times even when registrations race: a use is one guarded UPDATE, in the
transaction that creates the device. Secrets are stored only as SHA-256.
"""

import secrets
import time
import uuid

import msgspec
from psycopg2.errors import UniqueViolation

from nexmdm.devices import aliases
from nexmdm.devices.labels import of_enrolled
from nexmdm.devices.registry import token_id as sha256_of
from nexmdm.enrollment import rate_limit, take_over
from nexmdm.runtime import logs
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms
from nexmdm.runtime.errors import AliasTaken, Invalid, NotAuthenticated

# The same message for invalid, expired, exhausted, revoked and wrong scope, to give an attacker no information.
_REFUSED = "The enrollment token is not valid: it is unknown, expired, used up, revoked or has another scope."


class Registered(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`device_token` is only in this response and is not stored."""

    device_token: str
    device_id: str


def register(db: Database, token: str, alias: str, hardware_id: str | None, address: str | None = None) -> Registered:
    """Register a device with an enrollment token; return its new token.

    A response can be lost, so until the device uses its newest token, the same token, alias and hardware_id return the
    same device (with a new device token, and without another use); with a reusable token only for 15 minutes, because
    another phone may be given the same alias by mistake. A single-use token that was created for the requested alias
    takes over an existing device: its old tokens become invalid, its history is kept.

    Args:
        address: the caller's IP address, for counting rejected registrations.

    Raises:
        Invalid: the alias is invalid.
        NotAuthenticated: the token cannot be used. No use was counted.
        TooManyAttempts: the same, after too many rejected registrations.
        AliasTaken: an enrolled device has the alias, or one that looks the same. No use was counted.
    """
    start = time.perf_counter()
    try:
        registered = _registered(db, token, alias, hardware_id)
    except NotAuthenticated:
        rate_limit.count(db, address)
        raise
    logs.db_operation("create", "devices", {"device_id": registered.device_id}, elapsed_ms(start))
    return registered


def _registered(db: Database, token: str, alias: str, hardware_id: str | None) -> Registered:
    try:
        return _register(db, token, alias, hardware_id)
    except UniqueViolation:
        # A concurrent registration took the alias and is now committed.
        return _register(db, token, alias, hardware_id)


def _register(db: Database, token: str, given: str, hardware_id: str | None) -> Registered:
    alias = _checked(given)
    device_token = secrets.token_urlsafe(32)
    with db.transaction() as tx:
        enrollments = tx.execute(_LOCK_ENROLLMENT, {"token_hash": sha256_of(token)})
        if not enrollments:
            raise NotAuthenticated(_REFUSED)
        enrollment = enrollments[0]
        key = aliases.key(given)
        names = {"key": key, "alias": alias or given, "given": given}
        tx.execute(_LOCK_LAST_STATUS, names)
        found = tx.execute(_LOCK_ALIAS, names)
        held = found[0] if found else None
        values = {
            "token_id": enrollment["token_id"],
            "alias": alias,
            "alias_key": key,
            "hardware_id": hardware_id,
            "device_token_id": sha256_of(device_token),
            "device_id": held["id"] if held else str(uuid.uuid4()),
            "labels": msgspec.json.encode(of_enrolled(held["labels"] if held else {}, enrollment["labels"])).decode(),
        }
        if held and _same_registration(held, enrollment, hardware_id):
            tx.execute(_ROTATE, values)
        elif held:
            _use(tx, values)
            if not take_over.allowed(enrollment, given):
                raise AliasTaken(
                    f"alias: {given!r} is taken by the device {held['alias']!r}. Use a single-use token"
                    " created for this alias, or another alias."
                )
            take_over.take_over(tx, held, values)
        else:
            if alias is None:
                aliases.checked(given, "$.alias")
            _use(tx, values)
            tx.execute(_CREATE_DEVICE, values)
            tx.execute(_RECORD_EVENT, values)
    return Registered(device_token=device_token, device_id=values["device_id"])


def _checked(alias: str) -> str | None:
    """The alias in its stored form; None for one that only a device from before this rule can have."""
    try:
        return aliases.checked(alias, "$.alias")
    except Invalid:
        return None


def _same_registration(device: Row, enrollment: Row, hardware_id: str | None) -> bool:
    return (
        device["confirmed_at"] is None
        and (enrollment["uses_allowed"] == 1 or device["recent"])
        and device["enrollment_token_id"] == enrollment["token_id"]
        and device["hardware_id"] == hardware_id
    )


def _use(tx: Executor, values: dict[str, object]) -> None:
    """Count one use of the token; if anything later fails, the transaction rolls the use back."""
    if not tx.execute(_USE, values):
        raise NotAuthenticated(_REFUSED)


# The lock serializes registrations with the same token; _USE counts the uses.
_LOCK_ENROLLMENT = """
SELECT token_id, alias, uses_allowed, labels FROM enrollment_tokens
WHERE token_hash = %(token_hash)s AND scope = 'register' AND status <> 'revoked'
  AND expires_at > statement_timestamp()
FOR UPDATE
"""

# Reports of the device lock this row before the device's, so a registration must do the same.
_LOCK_LAST_STATUS = """
SELECT FROM device_last_status WHERE device_id IN (
    SELECT id FROM devices
    WHERE deleted_at IS NULL AND (alias_key = %(key)s OR alias = %(alias)s OR alias = %(given)s))
ORDER BY device_id
FOR NO KEY UPDATE
"""

# Finds the device by its exact alias, which it may have without a key because another device looked the same when keys
# were introduced, or else by alias_key. `recent`: the response to its registration may still have been lost.
_LOCK_ALIAS = """
SELECT id, alias, confirmed_at, enrollment_token_id, hardware_id, labels,
    greatest(created_at, taken_over_at) > statement_timestamp() - interval '15 minutes' AS recent
FROM devices
WHERE deleted_at IS NULL AND (alias_key = %(key)s OR alias = %(alias)s OR alias = %(given)s)
ORDER BY alias = %(given)s DESC, alias = %(alias)s DESC, alias_key = %(key)s DESC NULLS LAST
LIMIT 1
FOR UPDATE
"""

_USE = """
UPDATE enrollment_tokens SET
    uses_consumed = uses_consumed + 1,
    status = CASE WHEN uses_consumed + 1 = uses_allowed THEN 'exhausted' ELSE status END,
    last_used_at = statement_timestamp(),
    used_at = coalesce(used_at, statement_timestamp()),
    device_id = %(device_id)s
WHERE token_id = %(token_id)s AND status = 'active' AND expires_at > statement_timestamp()
  AND uses_consumed < uses_allowed
RETURNING token_id
"""

# Earlier responses may still arrive, so their tokens stay valid until this one is used.
_ROTATE = """
UPDATE devices SET token_id = %(device_token_id)s, prior_token_id = token_id,
    older_token_ids = array_remove(older_token_ids || prior_token_id, NULL)
WHERE id = %(device_id)s
"""

_CREATE_DEVICE = """
INSERT INTO devices (id, alias, alias_key, token_id, hardware_id, enrollment_token_id, labels)
VALUES (%(device_id)s, %(alias)s, %(alias_key)s, %(device_token_id)s, %(hardware_id)s, %(token_id)s, %(labels)s::jsonb)
"""

_RECORD_EVENT = """
SELECT record_system_event_v2('registration', 'device.register', 'device:' || %(device_id)s, NULL, NULL,
    jsonb_build_object('alias', %(alias)s, 'token_id', %(token_id)s))
"""
