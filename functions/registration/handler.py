"""POST /v1/register: a device enrolls with an enrollment token.

A function of its own, because anyone can call it: it logs in to the database as a role that cannot make a token.
GET /healthz is here for the same reason.
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
    """The alias comes in the body (started by ADB) or in the query (QR scan)."""

    alias: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    hardware_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


@routes("POST /v1/register", caller="enrollment", problems=(409, 429))
def register(request: Request, body: Registration, query: Registration) -> Registered:
    """Enroll a device with an enrollment token of scope `register`.

    The alias comes in the body or in the query. The same token, alias and hardware_id give the same device again
    until its first authenticated call; a token made for an alias takes the device of that alias over.
    """
    alias = body.alias or query.alias
    if alias is None:
        raise Invalid("$.alias", "is missing: send it in the body or as ?alias=")
    hardware_id = body.hardware_id or query.hardware_id
    return registration.register(database.connection(), request.enrollment_token, alias, hardware_id, request.source_ip)


class HealthQuery(Struct):
    deep: Annotated[int, Meta(ge=0, le=1)] = 0


class Health(Struct, omit_defaults=True):
    """`database` is there when it was asked."""

    status: Literal["ok"]
    database: Literal["ok"] | None = None


@routes("GET /healthz", caller="anyone")
def health(request: Request, query: HealthQuery) -> Health:
    """Say that the API answers; with `?deep=1`, that its database does too.

    Needs no credential. Without `deep` it costs no database call. It has a limit of its own: more than 5 calls a second
    are answered 429.
    """
    if not query.deep:
        return Health("ok")
    database.connection().ping()
    return Health("ok", "ok")


warmup.warm_up()
