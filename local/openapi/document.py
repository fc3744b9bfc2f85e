"""The document: paths from template.yaml and `operations`, schemas from msgspec, texts from docstrings."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from nexmdm.builds.signers import PackageName
from nexmdm.commands import actions
from nexmdm.runtime import errors
from nexmdm.runtime.problems import Problem
from nexmdm.runtime.validation import GivenName

from local import template
from local.openapi import Schema, commands, examples, security
from local.openapi.operations import Answer, Operation, operations, refusals
from local.openapi.problems import GatewayMessage
from local.template import Route

ROOT = Path(__file__).resolve().parent.parent.parent
REF = "#/components/schemas/{name}"
# Statuses that the gateway also returns itself.
SAID_BY_THE_GATEWAY = {404, 413, 429, 500, 503}

INTRODUCTION = """\
Devices, operators and CI use JSON over HTTPS. Errors are RFC 9457 problem documents whose `detail` names the field and
the limit; errors of API Gateway itself (no such route, no valid signature, too large, too many requests) are
`{"message": ...}`. Lists are paginated: `?limit=&cursor=` in the request, `items` and `next_cursor` in the response,
which is null on the last page. Numbers and booleans may also be given as text. Unknown members are ignored in requests
of devices, rejected in requests of operators, and should be ignored in responses.
"""

HEADERS: dict[str, Schema] = {
    "Location": {"description": "the URL of the file, valid for 300 s", "required": True, "schema": {"type": "string"}},
    "X-APK-SHA256": {
        "description": "SHA-256 of the file, in hex",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
    "Cache-Control": {"required": True, "schema": {"const": "no-store"}},
    "Idempotency-Replayed": {
        "description": "the key was already used; this is the current state of its command",
        "required": True,
        "schema": {"const": "true"},
    },
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}},
}


def build() -> Schema:
    """The whole document.

    Raises:
        KeyError: a route of template.yaml has no handler.
    """
    routes = template.load().routes
    paths: Schema = {}
    named: set[str] = set()
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operations()[route.key], named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NexMDM",
            "summary": "A fleet manager for Android devices",
            "description": INTRODUCTION,
            "version": (ROOT / "VERSION").read_text().strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "description": "a deployed stack's ApiUrl",
                "variables": {"api": {"default": "api-id"}, "region": {"default": "eu-west-1"}},
            },
            {"url": "http://127.0.0.1:8000", "description": "make run"},
        ],
        "tags": [_tag(name) for name in dict.fromkeys(route.function.name for route in routes)],
        "paths": paths,
        "components": {
            "schemas": _schemas(list(operations().values())),
            "responses": _refusals(),
            "headers": HEADERS,
            "securitySchemes": security.SCHEMES,
        },
    }


def _tag(function: str) -> dict[str, str]:
    return {"name": function, "description": inspect.getdoc(import_module(f"functions.{function}.handler")) or ""}


def _operation(route: Route, operation: Operation, named: set[str]) -> Schema:
    function = import_module(f"functions.{route.function.name}.handler").routes.table[route.key].route
    summary, _, description = (inspect.getdoc(function) or "").partition("\n")
    name = f"{route.function.name}_{function.__name__}"
    name = name if name not in named else f"{name}_2"
    named.add(name)
    found = {
        "operationId": name,
        "tags": [route.function.name],
        "summary": summary.rstrip("."),
        "description": " ".join(description.split()),
        "security": security.CALLERS[operation.caller],
        "parameters": _parameters(route, operation),
        "requestBody": _body(route, operation),
        "responses": _responses(route, operation),
    }
    return {key: value for key, value in found.items() if value}


def _parameters(route: Route, operation: Operation) -> list[Schema]:
    samples = examples.parameters(route.key)
    found = [
        {"name": name, "in": "path", "required": True, "schema": PATH.get(name, {"type": "string", "minLength": 1})}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if operation.query:
        schema = _components([operation.query])[operation.query.__name__]
        for name, member in schema["properties"].items():
            if name not in security.QUERY:
                found.append({"name": name, "in": "query", "schema": _of_a_query(member)})
    if operation.key:
        found.append(
            {"name": "Idempotency-Key", "in": "header", "schema": portable(msgspec.json.schema(operation.key))}
        )
    for parameter in found:
        if parameter["name"] in samples:
            sample = samples[parameter["name"]]
            parameter["example"] = int(sample) if parameter["schema"].get("type") == "integer" else sample
    return found


def _of_a_query(member: Schema) -> Schema:
    """A query string has no null: a nullable parameter is optional."""
    options = [option for option in member.get("anyOf", [member]) if option.get("type") != "null"]
    extra = {name: value for name, value in member.items() if name == "default" and value is not None}
    return {**options[0], **extra}


def _body(route: Route, operation: Operation) -> Schema | None:
    if not operation.body:
        return None
    required = bool(_components([operation.body])[operation.body.__name__].get("required"))
    media = {"schema": {"$ref": REF.format(name=operation.body.__name__)}, "examples": examples.bodies(route.key)}
    return {
        "required": required,
        "content": {"application/json": {key: value for key, value in media.items() if value}},
    }


def _responses(route: Route, operation: Operation) -> Schema:
    found = {str(status): _answered(status, answer) for status, answer in operation.answers.items()}
    return found | {str(status): _refused(status, operation) for status in sorted(refusals(route.key))}


def _answered(status: int, answer: Answer) -> Schema:
    found: Schema = {"description": WORDS[status]}
    if answer.headers:
        found["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
    refs, _ = msgspec.json.schema_components(answer.types, ref_template=REF)
    if refs:
        found["content"] = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}}
    return found


WORDS = {
    200: "done; with Idempotency-Replayed, the earlier result",
    201: "made",
    202: "accepted",
    204: "done",
    302: "the URL of the file",
    304: "there is no newer build, or none for this device",
}


def _refused(status: int, operation: Operation) -> Schema:
    by_gateway = status in SAID_BY_THE_GATEWAY or (status == 403 and operation.caller == "operator")
    return {"$ref": f"#/components/responses/{'Gateway' if by_gateway else ''}Problem{status}"}


def _refusals() -> dict[str, Schema]:
    """The responses that `_refused` refers to."""
    statuses = {kind.status for kind in _problems(errors.Problem)}
    gateway = {f"GatewayProblem{status}": _refusal(status, True) for status in {*SAID_BY_THE_GATEWAY, 403}}
    ours = {f"Problem{status}": _refusal(status, False) for status in statuses - SAID_BY_THE_GATEWAY}
    return dict(sorted({**gateway, **ours}.items()))


def _refusal(status: int, by_gateway: bool) -> Schema:
    titles = sorted({kind.title for kind in _problems(errors.Problem) if kind.status == status})
    content = {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}}
    if by_gateway:
        content["application/json"] = {"schema": {"$ref": REF.format(name="GatewayMessage")}}
    found: Schema = {"description": "; ".join(titles), "content": content}
    if status in (409, 429, 503):
        found["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return found


def _problems(kind: type[errors.Problem]) -> list[type[errors.Problem]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _problems(child))]


def _schemas(operations: list[Operation]) -> dict[str, Schema]:
    types = {type_ for operation in operations for answer in operation.answers.values() for type_ in answer.types}
    types |= {operation.body for operation in operations if operation.body}
    parameters = {action.parameters for action in actions.ACTIONS.values()}
    found = _components([*types, *parameters, Problem, GatewayMessage])
    for each in parameters:
        found[each.__name__] = commands.by_choice(each, found[each.__name__])
    found["CommandBody"] = commands.by_action(found["CommandBody"])
    found["BulkBody"] = commands.either_devices_or_filter(commands.by_action(found["BulkBody"]))
    return dict(sorted(found.items()))


def _components(types: list[type]) -> dict[str, Schema]:
    _, found = msgspec.json.schema_components(types, ref_template=REF)
    return {name: portable(schema) for name, schema in found.items()}


def portable(node: Any) -> Any:
    """Patterns in the syntax of ECMA 262, in which Python's end of text is `$`."""
    if isinstance(node, dict):
        return {
            key: re.sub(r"(\\Z|\(\?!\[\\s\\S\]\))$", "$", value) if key == "pattern" else portable(value)
            for key, value in node.items()
        }
    return [portable(child) for child in node] if isinstance(node, list) else node


NUMBER = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
PATH = {
    "alert_id": NUMBER,
    "build_id": NUMBER,
    "mute_id": NUMBER,
    "name": portable(msgspec.json.schema(GivenName)),
    "package_name": portable(msgspec.json.schema(PackageName)),
}
