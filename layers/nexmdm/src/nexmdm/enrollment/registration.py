"""Enrollment: tokens that operators hand out, and devices that register with them.

A token is used at most `uses_allowed` times whatever races: its use is one guarded UPDATE, in the transaction that
creates the device. Secrets are stored as SHA-256 only.
"""

import secrets
import time
import uuid
from datetime import datetime
from typing import Any

import msgspec
from psycopg2.errors import UniqueViolation

from nexmdm.devices.labels import of_enrolled
from nexmdm.devices.registry import token_id as sha256_of
from nexmdm.enrollment import rate_limit
from nexmdm.runtime import logs
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, statement
from nexmdm.runtime.errors import AliasTaken, NotAuthenticated, NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page

# One and the same answer for invalid, expired, exhausted, revoked and wrong scope: nothing is told to a guesser.
_REFUSED = "The enrollment token is not valid: it is unknown, expired, used up, revoked or made for something else."


def create_tokens(
    db: Executor,
    *,
    aliases: list[str],
    scope: str,
    expires_in_sec: int,
    uses_allowed: int,
    note: str | None,
    by: str,
    labels: dict[str, str] | None = None,
) -> list[Row]:
    """Make one token for each alias. The raw token is in the answer and nowhere else, ever.

    Args:
        labels: of every device that registers with one of them; they win over labels that it has.

    Returns:
        For each alias, in order: token_id, alias, token, scope, expires_at, uses_allowed.
    """
    start = time.perf_counter()
    raw = [secrets.token_urlsafe(32) for _ in aliases]
    rows = db.execute(
        _CREATE_TOKENS,
        {
            "ids": [str(uuid.uuid4()) for _ in aliases],
            "aliases": aliases,
            "hashes": [sha256_of(token) for token in raw],
            "scope": scope,
            "expires_in_sec": expires_in_sec,
            "uses_allowed": uses_allowed,
            "note": note,
            "by": by,
            "labels": msgspec.json.encode(labels or {}).decode(),
        },
    )
    logs.db_operation("create", "enrollment_tokens", {"count": len(rows), "by": by}, elapsed_ms(start))
    by_hash = {row.pop("token_hash"): row for row in rows}
    return [{**by_hash[sha256_of(token)], "token": token} for token in raw]


def list_tokens(db: Executor, query: PageQuery) -> Page:
    """The tokens, newest first, without their secrets. `status` of an active one whose time is over is `expired`."""
    issued_at, token_id = query.after(datetime, str)
    rows = db.execute(
        _LIST_TOKENS, {"issued_at": issued_at, "token_id": token_id, "limit": query.limit + 1}, repeatable=True
    )
    return page(rows, query.limit, ("issued_at", "token_id"))


def revoke_tokens(db: Executor, token_ids: list[str], by: str) -> list[str]:
    """Revoke those of the tokens that exist, effective on the next call; return their ids."""
    start = time.perf_counter()
    rows = db.execute(_REVOKE, {"token_ids": token_ids}, repeatable=True)
    logs.db_operation("update", "enrollment_tokens", {"revoked": len(rows), "by": by}, elapsed_ms(start))
    return [row["token_id"] for row in rows]


def revoke_token(db: Executor, token_id: str, by: str) -> None:
    """Revoke one token.

    Raises:
        NotFound: there is none.
    """
    if not revoke_tokens(db, [token_id], by):
        raise NotFound(f"There is no enrollment token {token_id!r}.")


def register(db: Database, token: str, alias: str, hardware_id: str | None, address: str | None = None) -> Row:
    """Register a device with an enrollment token; returns {device_token, device_id}.

    An answer can be lost, so the same token, alias and hardware_id give the same device again (with a new device token,
    and without another use) until the device's first authenticated call. A token whose own alias is the requested one
    takes an existing device over: its old token dies, its history stays.

    Args:
        address: where the caller is, for the count of what is refused there.

    Raises:
        NotAuthenticated: the token cannot be used. Nothing was used up.
        TooManyAttempts: the same, and too many before it were not either.
        AliasTaken: a living device has the alias. Nothing was used up.
    """
    start = time.perf_counter()
    try:
        registered = _registered(db, token, alias, hardware_id)
    except NotAuthenticated:
        rate_limit.count(db, address)
        raise
    logs.db_operation("create", "devices", {"device_id": registered["device_id"]}, elapsed_ms(start))
    return registered


def _registered(db: Database, token: str, alias: str, hardware_id: str | None) -> Row:
    try:
        return _register(db, token, alias, hardware_id)
    except UniqueViolation:
        # Another token won the race for the alias; now it is there to be seen.
        return _register(db, token, alias, hardware_id)


def _register(db: Database, token: str, alias: str, hardware_id: str | None) -> Row:
    device_token = secrets.token_urlsafe(32)
    with db.transaction() as tx:
        enrollment = tx.execute(_LOCK_ENROLLMENT, {"token_hash": sha256_of(token)})
        if not enrollment:
            raise NotAuthenticated(_REFUSED)
        held = tx.execute(_LOCK_ALIAS, {"alias": alias})
        values = {
            "token_id": enrollment[0]["token_id"],
            "alias": alias,
            "hardware_id": hardware_id,
            "device_token_id": sha256_of(device_token),
            "device_id": held[0]["id"] if held else str(uuid.uuid4()),
            "labels": msgspec.json.encode(
                of_enrolled(held[0]["labels"] if held else {}, enrollment[0]["labels"])
            ).decode(),
        }
        if held and _same_registration(held[0], enrollment[0], hardware_id):
            tx.execute(_ROTATE, values)
        else:
            _use(tx, values)
            if held and enrollment[0]["alias"] != alias:
                raise AliasTaken(f"alias: {alias!r} is taken. Use a token made for this alias, or another alias.")
            if held:
                tx.execute(_CANCEL_OPEN, values)
            tx.execute(_TAKE_OVER if held else _CREATE_DEVICE, values)
    return {"device_token": device_token, "device_id": values["device_id"]}


def _same_registration(device: Row, enrollment: Row, hardware_id: str | None) -> bool:
    return (
        device["confirmed_at"] is None
        and device["enrollment_token_id"] == enrollment["token_id"]
        and device["hardware_id"] == hardware_id
    )


def _use(tx: Executor, values: dict[str, Any]) -> None:
    """Use the token once; the transaction gives the use back when anything after it refuses."""
    if not tx.execute(_USE, values):
        raise NotAuthenticated(_REFUSED)


_CREATE_TOKENS = """
INSERT INTO enrollment_tokens (token_id, alias, token_hash, scope, issued_by, issued_at, expires_at, uses_allowed, note,
    labels)
SELECT id, alias, hash, %(scope)s, %(by)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(expires_in_sec)s), %(uses_allowed)s, %(note)s, %(labels)s::jsonb
FROM unnest(%(ids)s::text[], %(aliases)s::text[], %(hashes)s::text[]) AS new(id, alias, hash)
RETURNING token_id, alias, token_hash, scope, expires_at, uses_allowed, labels
"""

_LIST_TOKENS = """
SELECT token_id, alias, scope, issued_by, issued_at, expires_at, uses_allowed, uses_consumed, last_used_at, note,
    device_id, used_at, labels,
    CASE WHEN status = 'active' AND expires_at <= statement_timestamp() THEN 'expired' ELSE status END AS status
FROM enrollment_tokens
WHERE %(issued_at)s IS NULL OR (issued_at, token_id) < (%(issued_at)s::timestamptz, %(token_id)s)
ORDER BY issued_at DESC, token_id DESC
LIMIT %(limit)s
"""

_REVOKE = """
UPDATE enrollment_tokens SET status = 'revoked' WHERE token_id = ANY(%(token_ids)s::text[]) RETURNING token_id
"""

# The lock makes registrations with one token take turns; the uses are counted by _USE.
_LOCK_ENROLLMENT = """
SELECT token_id, alias, labels FROM enrollment_tokens
WHERE token_hash = %(token_hash)s AND scope = 'register' AND status <> 'revoked'
  AND expires_at > statement_timestamp()
FOR UPDATE
"""

_LOCK_ALIAS = """
SELECT id, confirmed_at, enrollment_token_id, hardware_id, labels FROM devices
WHERE alias = %(alias)s AND deleted_at IS NULL
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

# The answers before this one may still arrive, so their tokens live until this one is used.
_ROTATE = """
UPDATE devices SET token_id = %(device_token_id)s, prior_token_id = token_id,
    older_token_ids = array_remove(older_token_ids || prior_token_id, NULL)
WHERE id = %(device_id)s
"""

_CREATE_DEVICE = """
INSERT INTO devices (id, alias, token_id, hardware_id, enrollment_token_id, labels)
VALUES (%(device_id)s, %(alias)s, %(device_token_id)s, %(hardware_id)s, %(token_id)s, %(labels)s::jsonb)
"""

_CANCEL_OPEN = statement(__package__, "cancel_open")
_TAKE_OVER = """
UPDATE devices SET token_id = %(device_token_id)s, prior_token_id = NULL, older_token_ids = '{}', confirmed_at = NULL,
    hardware_id = %(hardware_id)s, enrollment_token_id = %(token_id)s, fcm_token = NULL, fcm_token_at = NULL,
    labels = %(labels)s::jsonb
WHERE id = %(device_id)s
"""
