"""Each route of template.yaml: what it takes, what it answers, and what it refuses beside what every route may refuse.

`device`, `download`, `enrollment` and `operator` say who may call it.
"""

from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from msgspec import Struct
from nexmdm.builds.publishing import BuildsQuery, Declaration
from nexmdm.runtime.http import Response
from nexmdm.runtime.pagination import PageQuery

from functions.apk_builds import handler as builds
from functions.apk_download import handler as downloads
from functions.enrollment import handler as enrollment
from functions.registration import handler as registration
from local import template
from local.openapi import answers as a
from local.openapi import security

REDIRECT = ("Location", "X-APK-SHA256", "Cache-Control")


class Answer(Struct, frozen=True):
    """types: of the body, any of them; none for no body."""

    types: tuple[type, ...] = ()
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """body, query, key (of an Idempotency-Key): the types that the handler validates with. problems: statuses of its
    own."""

    caller: str
    answers: dict[int, Answer]
    body: type | None = None
    query: type | None = None
    problems: tuple[int, ...] = ()
    key: Any = None


def _operation(caller: str, answers: dict[int, Any], **how: Any) -> Operation:
    wrapped = {
        status: answer if isinstance(answer, Answer) else Answer((answer,) if answer else ())
        for status, answer in answers.items()
    }
    return Operation(caller=caller, answers=wrapped, **how)


def device(answers: dict[int, Any], **how: Any) -> Operation:
    return _operation("device", answers, **how)


def download(**how: Any) -> Operation:
    answers = {302: Answer(headers=REDIRECT)}
    return _operation("download", answers, query=downloads.DownloadQuery, problems=(404, 429), **how)


def operator(answers: dict[int, Any], **how: Any) -> Operation:
    return _operation("operator", answers, **how)


# Routes whose handlers do not say it by annotations yet.
_LISTED: dict[str, Operation] = {
    "POST /v1/register": _operation(
        "enrollment",
        {200: a.Registered},
        body=registration.Registration,
        query=registration.Registration,
        problems=(409, 429),
    ),
    "GET /v1/apk/download/latest": download(),
    "GET /v1/apk/download-latest": download(),
    "GET /v1/apk/download/{build_id}": download(),
    "GET /v1/agent/update": device({200: a.Update, 304: None}, query=downloads.UpdateQuery),
    "POST /v1/enroll-tokens": operator(
        {201: Answer((a.NewEnrollmentTokens,), ("Cache-Control",))}, body=enrollment.NewTokens
    ),
    "GET /v1/enroll-tokens": operator({200: a.EnrollmentTokenPage}, query=PageQuery),
    "DELETE /v1/enroll-tokens/{token_id}": operator({204: None}),
    "POST /v1/enroll-tokens/batch-delete": operator({200: a.Revoked}, body=enrollment.TokenIds),
    "POST /v1/apk/builds": operator(
        {
            201: Answer((a.DeclaredBuild,), ("Cache-Control",)),
            200: Answer((a.DeclaredBuild,), ("Cache-Control",)),
        },
        body=Declaration,
        problems=(409,),
    ),
    "GET /v1/apk/builds": operator({200: a.BuildPage}, query=BuildsQuery),
    "GET /v1/apk/builds/{build_id}": operator({200: a.Build}),
    "DELETE /v1/apk/builds/{build_id}": operator({204: None}, problems=(409,)),
    "POST /v1/apk/builds/{build_id}/complete": operator({200: a.Build}, problems=(409,)),
    "POST /v1/apk/builds/{build_id}/promote": operator({200: a.Build}, body=builds.Promotion, problems=(409,)),
    "POST /v1/apk/builds/{build_id}/rollout": operator(
        {200: a.Build, 202: a.InstallingBuild}, body=builds.Rollout, problems=(409,), key=builds.RequestId
    ),
    "POST /v1/apk/builds/{build_id}/pause": operator({200: a.Build}, body=builds.Why, problems=(409,)),
    "POST /v1/apk/builds/{build_id}/resume": operator({200: a.Build}, problems=(409,)),
    "POST /v1/apk/builds/{build_id}/rollback": operator({200: a.Build}, body=builds.Why, problems=(409,)),
    "GET /v1/apk/builds/{build_id}/download": operator(
        {302: Answer((a.DownloadAddress,), REDIRECT)}, query=builds.DownloadQuery, problems=(409,)
    ),
    "GET /v1/apk/packages/{package_name}/signers": operator({200: a.Signers}),
    "PUT /v1/apk/packages/{package_name}/signers": operator({200: a.Signers}, body=builds.PinnedSigners),
}


@cache
def operations() -> dict[str, Operation]:
    """{route key: what it takes and answers}, for every route of template.yaml."""
    return {route.key: _declared(route.key, route.function.name) for route in template.load().routes}


def _declared(route_key: str, function: str) -> Operation:
    """From the annotations of the route's handler, else from the table above."""
    if route_key in _LISTED:
        return _LISTED[route_key]
    declared = import_module(f"functions.{function}.handler").routes.table[route_key]
    types = _types(declared.returns)
    return Operation(
        caller=declared.caller,
        answers={status: Answer(types, headers) for status, headers in declared.statuses.items()},
        body=declared.body,
        query=declared.query,
        problems=declared.problems,
        key=declared.key,
    )


def _types(returns: Any) -> tuple[Any, ...]:
    """The types of the body, any of them: out of `T`, `T | U`, `Response[T]` and None."""
    if get_origin(returns) is Response:
        returns = get_args(returns)[0]
    types = get_args(returns) if get_origin(returns) in (Union, UnionType) else (returns,)
    return tuple(type_ for type_ in types if type_ is not None and type_ is not NoneType)


def refusals(route_key: str) -> set[int]:
    """The statuses of the problems that a route may answer with."""
    operation = operations()[route_key]
    found = {500, 503, *operation.problems, *security.PROBLEMS[operation.caller]}
    if operation.body:
        found |= {400, 413, 422}
    if operation.query or operation.key or "{" in route_key:
        found.add(422)
    if "{" in route_key:
        found.add(404)
    return found
