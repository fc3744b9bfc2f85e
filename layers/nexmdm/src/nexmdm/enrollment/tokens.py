"""Enrollment tokens, as operators make and revoke them. Secrets are stored as SHA-256 only."""

import secrets
import time
import uuid
from datetime import datetime

import msgspec

from nexmdm.devices import aliases as names
from nexmdm.devices.registry import token_id as sha256_of
from nexmdm.runtime import logs
from nexmdm.runtime.database import Executor, Row, elapsed_ms
from nexmdm.runtime.errors import NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page


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

    Raises:
        Invalid: an alias is none.

    Args:
        labels: of every device that registers with one of them; they win over labels that it has.

    Returns:
        For each alias, in order: token_id, alias, token, scope, expires_at, uses_allowed.
    """
    aliases = [names.checked(alias, f"$.aliases[{n}]") for n, alias in enumerate(aliases)]
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
