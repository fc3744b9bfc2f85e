"""Enrollment tokens for operators. What a device does with one is functions/registration."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from nexmdm.devices.labels import Labels
from nexmdm.enrollment import tokens
from nexmdm.runtime import database, warmup
from nexmdm.runtime.http import Request, Response, Routes
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


@routes("POST /v1/enroll-tokens")
def create_tokens(request: Request) -> Response[Any]:
    """Make an enrollment token for each alias. Devices that register with one get its labels.

    The raw tokens are in this answer and nowhere else, ever.
    """
    new = request.json(NewTokens)
    made = tokens.create_tokens(
        database.connection(),
        aliases=new.aliases,
        scope=new.scope,
        expires_in_sec=new.expires_in_sec,
        uses_allowed=new.uses_allowed,
        note=new.note,
        labels=new.labels,
        actor=request.actor,
    )
    # The only answer that holds the secrets: nobody on the way may keep it.
    return Response({"items": made}, 201, {"Cache-Control": "no-store"})


@routes("GET /v1/enroll-tokens")
def list_tokens(request: Request) -> Page[Any]:
    """List enrollment tokens, newest first, without their secrets."""
    return tokens.list_tokens(database.connection(), request.parameters(PageQuery))


@routes("DELETE /v1/enroll-tokens/{token_id}")
def revoke_token(request: Request) -> Response[Any]:
    """Revoke an enrollment token, effective on the next call."""
    tokens.revoke_token(database.connection(), request.path["token_id"], request.actor)
    return Response(status=204)


@routes("POST /v1/enroll-tokens/batch-delete")
def revoke_tokens(request: Request) -> dict[str, Any]:
    """Revoke those of the tokens that exist."""
    token_ids = request.json(TokenIds).token_ids
    return {"revoked": tokens.revoke_tokens(database.connection(), token_ids, request.actor)}


warmup.warm_up()
