"""POST /v1/register: a device enrolls with an enrollment token.

This is a separate function because it can be called without AWS credentials: it logs in to the database as a role that
cannot create tokens. GET /healthz is here for the same reason.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from nexmdm.enrollment import registration
from nexmdm.enrollment.registration import Registered
from nexmdm.runtime import database, warmup
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.http import Request, Routes

routes = Routes()
handler = routes.handle


class Registration(Struct):
    """The alias is in the body (started by ADB) or in the query (QR scan)."""

    alias: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    hardware_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


@routes("POST /v1/register", caller="enrollment", problems=(409, 429))
def register(request: Request, body: Registration, query: Registration) -> Registered:
    """Enroll a device with an enrollment token of scope `register`.

    The alias is in the body or in the query. Until the device's first authenticated call, the same token, alias and
    hardware_id return the same device, with a reusable token for at most 15 minutes; a single-use token that was
    created for an alias takes over the device with that alias.
    """
    alias = body.alias or query.alias
    if alias is None:
        raise Invalid("$.alias", "is missing: send it in the body or as ?alias=")
    hardware_id = body.hardware_id or query.hardware_id
    return registration.register(database.connection(), request.enrollment_token, alias, hardware_id, request.source_ip)


class HealthQuery(Struct):
    deep: Annotated[int, Meta(ge=0, le=1)] = 0


class Health(Struct, omit_defaults=True):
    """`database` is present if it was checked."""

    status: Literal["ok"]
    database: Literal["ok"] | None = None


@routes("GET /healthz", caller="anyone")
def health(request: Request, query: HealthQuery) -> Health:
    """Check that the API responds; with `?deep=1`, that its database does too.

    No credentials are needed. Without `deep` the database is not called. The route has its own limit: more than 5 calls
    a second get 429.
    """
    if not query.deep:
        return Health("ok")
    database.connection().ping()
    return Health("ok", "ok")


warmup.warm_up()
