"""Operator routes for enrollment tokens. Devices use them in functions/registration."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from nexmdm.devices.labels import Labels
from nexmdm.enrollment import tokens
from nexmdm.enrollment.tokens import EnrollmentToken, NewEnrollmentTokens, Revoked
from nexmdm.runtime import database, warmup
from nexmdm.runtime.http import NOT_STORED, Request, Response, Routes
from nexmdm.runtime.pagination import Page, PageQuery

routes = Routes()
handler = routes.handle

Alias = Annotated[str, Meta(min_length=1, max_length=200)]


class NewTokens(Struct, forbid_unknown_fields=True):
    aliases: Annotated[list[Alias], Meta(min_length=1, max_length=500)]
    scope: Literal["register", "apk_download"] = "register"
    expires_in_sec: Annotated[int, Meta(ge=60, le=31_536_000)] = 1800
    uses_allowed: Annotated[int, Meta(ge=1, le=100_000)] = 1
    note: Annotated[str, Meta(max_length=1000)] | None = None
    labels: Labels = field(default_factory=dict)


class TokenIds(Struct, forbid_unknown_fields=True):
    token_ids: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(min_length=1, max_length=500)]


@routes("POST /v1/enroll-tokens", statuses={201: NOT_STORED})
def create_tokens(request: Request, body: NewTokens) -> Response[NewEnrollmentTokens]:
    """Create an enrollment token for each alias. Devices that register with one get its labels.

    The secrets are only in this response and are never stored.
    """
    made = tokens.create_tokens(
        database.connection(),
        aliases=body.aliases,
        scope=body.scope,
        expires_in_sec=body.expires_in_sec,
        uses_allowed=body.uses_allowed,
        note=body.note,
        labels=body.labels,
        actor=request.actor,
    )
    # The only response with the secrets, so no intermediary may cache it.
    return Response(NewEnrollmentTokens(made), headers={"Cache-Control": "no-store"})


@routes("GET /v1/enroll-tokens")
def list_tokens(request: Request, query: PageQuery) -> Page[EnrollmentToken]:
    """List enrollment tokens, newest first, without their secrets."""
    return tokens.list_tokens(database.connection(), query)


@routes("DELETE /v1/enroll-tokens/{token_id}", status=204)
def revoke_token(request: Request) -> None:
    """Revoke an enrollment token, effective on the next call."""
    tokens.revoke_token(database.connection(), request.path["token_id"], request.actor)


@routes("POST /v1/enroll-tokens/batch-delete")
def revoke_tokens(request: Request, body: TokenIds) -> Revoked:
    """Revoke the existing ones among these tokens."""
    return Revoked(tokens.revoke_tokens(database.connection(), body.token_ids, request.actor))


warmup.warm_up()
