"""The operations of template.yaml's routes: their inputs, responses, and specific errors."""

from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Struct
from nexmdm.runtime.http import Response

from local import template
from local.openapi import security

WITHOUT_A_BODY = (204, 304)


class Answer(Struct, frozen=True):
    """types: the alternatives of the body; none for no body."""

    types: tuple[type, ...] = ()
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """body, query, key (of an Idempotency-Key): the types used for validation. problems: specific statuses."""

    caller: str
    answers: dict[int, Answer]
    body: type | None = None
    query: type | None = None
    problems: tuple[int, ...] = ()
    key: Any = None


@cache
def operations() -> dict[str, Operation]:
    """{route key: its operation}, for every route of template.yaml."""
    return {route.key: _declared(route.key, route.function.name) for route in template.load().routes}


def _declared(route_key: str, function: str) -> Operation:
    declared = import_module(f"functions.{function}.handler").routes.table[route_key]
    return Operation(
        caller=declared.caller,
        answers={
            status: Answer(_types(declared.returns, status), headers) for status, headers in declared.statuses.items()
        },
        body=declared.body,
        query=declared.query,
        problems=declared.problems,
        key=declared.key,
    )


def _types(returns: Any, status: int) -> tuple[Any, ...]:
    """The alternatives of the body, from `T`, `T | U`, `Response[T]` or `Annotated[Response[T], status]`."""
    if status in WITHOUT_A_BODY or returns in (None, NoneType):
        return ()
    origin = get_origin(returns)
    if origin is Response:
        return _types(get_args(returns)[0], status)
    if origin is Annotated:
        type_, *statuses = get_args(returns)
        return _types(type_, status) if status in statuses else ()
    if origin in (Union, UnionType):
        return tuple(type_ for option in get_args(returns) for type_ in _types(option, status))
    return (returns,)


def refusals(route_key: str) -> set[int]:
    """The statuses of the problems that a route may return."""
    operation = operations()[route_key]
    found = {500, 503, *operation.problems, *security.PROBLEMS[operation.caller]}
    if operation.body:
        found |= {400, 413, 422}
    if operation.query or operation.key or "{" in route_key:
        found.add(422)
    if "{" in route_key:
        found.add(404)
    return found
