"""Creating, listing and revoking enrollment tokens. Secrets are stored only as SHA-256."""

import secrets
import time
import uuid
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from nexmdm.activity import events
from nexmdm.devices import aliases as names
from nexmdm.devices.registry import token_id as sha256_of
from nexmdm.runtime import logs
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.database import Database, Executor, Row, elapsed_ms, typed
from nexmdm.runtime.errors import NotFound
from nexmdm.runtime.pagination import Page, PageQuery, page
from nexmdm.runtime.validation import Instant


class NewEnrollmentToken(Struct, forbid_unknown_fields=True, kw_only=True):
    """A new token; `token` is its secret."""

    token_id: str
    alias: str
    scope: Literal["register", "apk_download"]
    expires_at: Instant
    uses_allowed: int
    labels: dict[str, str]
    token: str


class NewEnrollmentTokens(Struct, forbid_unknown_fields=True):
    """The tokens in the order of the aliases."""

    items: list[NewEnrollmentToken]


class EnrollmentToken(Struct, forbid_unknown_fields=True, kw_only=True):
    """A token without its secret. `status` is `expired` for an active token after its expiry."""

    token_id: str
    alias: str
    scope: Literal["register", "apk_download"]
    issued_by: str | None
    issued_at: Instant
    expires_at: Instant
    uses_allowed: int
    uses_consumed: int
    last_used_at: Instant | None
    note: str | None
    labels: dict[str, str]
    status: Literal["active", "exhausted", "revoked", "expired"]
    device_id: str | None
    used_at: Instant | None


class Revoked(Struct, forbid_unknown_fields=True):
    """The ids of the tokens that exist."""

    revoked: list[str]


def create_tokens(
    db: Database,
    *,
    aliases: list[str],
    scope: str,
    expires_in_sec: int,
    uses_allowed: int,
    note: str | None,
    actor: Actor,
    labels: dict[str, str] | None = None,
) -> list[NewEnrollmentToken]:
    """Create a token for each alias. The secret is only in the response and is never stored.

    Raises:
        Invalid: an alias is invalid.

    Args:
        labels: set on every device that registers with one of them, replacing its labels with the same keys.

    Returns:
        A token for each alias, in order.
    """
    aliases = [names.checked(alias, f"$.aliases[{n}]") for n, alias in enumerate(aliases)]
    start = time.perf_counter()
    raw = [secrets.token_urlsafe(32) for _ in aliases]
    values = {
        "ids": [str(uuid.uuid4()) for _ in aliases],
        "aliases": aliases,
        "hashes": [sha256_of(token) for token in raw],
        "scope": scope,
        "expires_in_sec": expires_in_sec,
        "uses_allowed": uses_allowed,
        "note": note,
        "by": actor.name,
        "labels": msgspec.json.encode(labels or {}).decode(),
    }
    with db.transaction() as tx:
        rows = tx.execute(_CREATE_TOKENS, values)
        after = {
            "scope": scope,
            "uses_allowed": uses_allowed,
            "expires_in_sec": expires_in_sec,
            "aliases": aliases[:10],
        }
        events.record(tx, actor, "enroll_token.create", _object(rows), after={"count": len(rows), **after})
    logs.db_operation("create", "enrollment_tokens", {"count": len(rows), "by": actor.name}, elapsed_ms(start))
    by_hash = {row.pop("token_hash"): row for row in rows}
    return [NewEnrollmentToken(**by_hash[sha256_of(token)], token=token) for token in raw]


def list_tokens(db: Executor, query: PageQuery) -> Page[EnrollmentToken]:
    """The tokens, newest first, without their secrets."""
    issued_at, token_id = query.after(datetime, str)
    rows = db.execute(
        _LIST_TOKENS, {"issued_at": issued_at, "token_id": token_id, "limit": query.limit + 1}, repeatable=True
    )
    return page(typed(rows, EnrollmentToken), query.limit, ("issued_at", "token_id"))


def revoke_tokens(db: Database, token_ids: list[str], actor: Actor) -> list[str]:
    """Revoke the existing ones among these tokens, effective on the next call; return their ids."""
    start = time.perf_counter()
    with db.transaction() as tx:
        rows = tx.execute(_REVOKE, {"token_ids": token_ids})
        changed = [row for row in rows if row["changed"]]
        if changed:
            after = {"count": len(changed), "aliases": [row["alias"] for row in changed[:10]]}
            events.record(tx, actor, "enroll_token.revoke", _object(changed), after=after)
    logs.db_operation("update", "enrollment_tokens", {"revoked": len(changed), "by": actor.name}, elapsed_ms(start))
    return [row["token_id"] for row in rows]


def _object(rows: list[Row]) -> str:
    """The object of an event: a single token, or several."""
    return f"enroll_token:{rows[0]['token_id']}" if len(rows) == 1 else "enroll_tokens"


def revoke_token(db: Database, token_id: str, actor: Actor) -> None:
    """Revoke one token.

    Raises:
        NotFound: there is no such token.
    """
    if not revoke_tokens(db, [token_id], actor):
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
WITH revoked AS (
    UPDATE enrollment_tokens SET status = 'revoked'
    WHERE token_id = ANY(%(token_ids)s::text[]) AND status <> 'revoked' RETURNING token_id
)
SELECT t.token_id, t.alias, r.token_id IS NOT NULL AS changed
FROM enrollment_tokens t LEFT JOIN revoked r USING (token_id)
WHERE t.token_id = ANY(%(token_ids)s::text[])
"""
