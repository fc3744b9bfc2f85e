"""The Structs with which the command reads responses agree with the OpenAPI document, and tolerate other versions."""

import json
import types
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from msgspec import NODEFAULT, Struct
from nexmdm_cli import resources
from nexmdm_cli.console.app import ASSETS
from nexmdm_cli.failures import Failure

SCHEMAS = json.loads((ASSETS / "openapi.json").read_text(encoding="utf-8"))["components"]["schemas"]
# Pages have a schema for each kind of item. The others are shared by several schemas.
NOT_IN_THE_DOCUMENT = {"Resource", "Page"}
STRUCTS = {
    name: type_
    for name, type_ in vars(resources).items()
    if isinstance(type_, type) and issubclass(type_, Struct) and name not in {*NOT_IN_THE_DOCUMENT, "Struct"}
}
JSON = {str: "string", int: "integer", bool: "boolean", float: "number", dict: "object", list: "array"}
FIELDS = [(name, field) for name, type_ in STRUCTS.items() for field in msgspec.structs.fields(type_)]


def options(type_: Any) -> set[Any]:
    """The kinds of value that a type accepts, in the words of JSON Schema; for a Struct, the name of its schema."""
    if get_origin(type_) in (Union, types.UnionType):
        return {kind for option in get_args(type_) for kind in options(option)}
    if type_ is types.NoneType:
        return {"null"}
    base = get_origin(type_) or type_
    return {JSON.get(base, base.__name__)}


def schema_kinds(schema: dict[str, Any]) -> set[str]:
    """The kinds of value of a schema; a reference to a schema that is not an object is resolved."""
    if "anyOf" in schema:
        return {kind for option in schema["anyOf"] for kind in schema_kinds(option)}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removeprefix("Whole")  # a Range of whole numbers is a Range
        return {name} if name in STRUCTS else schema_kinds(SCHEMAS[name])
    return {schema.get("type", "string")}


def test_every_struct_has_a_schema_in_the_document():
    assert set(STRUCTS) <= set(SCHEMAS)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{name}.{field.encode_name}" for name, field in FIELDS])
def test_member_types_match_the_document(name, field):
    declared = SCHEMAS[name]["properties"][field.encode_name]
    read = options(field.type)
    told = schema_kinds(declared)
    assert told <= read | ({"integer"} if "number" in read else set()), f"{told} is documented, {read} is read"
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:
        assert field.encode_name in SCHEMAS[name]["required"]


RUN = {"scheduled_for": "2026-01-01T00:00:00Z", "status": "started", "request_id": None, "states": {}}


def test_unknown_members_and_words_of_a_later_version_are_kept():
    later = {**RUN, "status": "postponed", "until": "2026-01-02T00:00:00Z"}
    run = resources.read(resources.Run, later)
    assert (run.status, run.document) == ("postponed", later)


def test_members_missing_in_an_earlier_version_are_absent():
    run = resources.read(resources.Run, {"scheduled_for": RUN["scheduled_for"], "status": "missed"})
    assert (run.request_id, run.states) == (None, {})


@pytest.mark.parametrize("document", [{"status": "started"}, {**RUN, "status": 1}, [], None, "text"])
def test_unreadable_document_is_a_failure_with_a_message(document):
    with pytest.raises(Failure, match="The response does not fit Run"):
        resources.read(resources.Run, document)
