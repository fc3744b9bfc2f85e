"""What the command reads of the API's answers is what the API's document says of them, and no more is needed."""

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
# Pages have a schema for each kind of item; the others are what several schemas share.
NOT_IN_THE_DOCUMENT = {"Resource", "Page"}
STRUCTS = {
    name: type_
    for name, type_ in vars(resources).items()
    if isinstance(type_, type) and issubclass(type_, Struct) and name not in {*NOT_IN_THE_DOCUMENT, "Struct"}
}
JSON = {str: "string", int: "integer", bool: "boolean", float: "number", dict: "object", list: "array"}
FIELDS = [(name, field) for name, type_ in STRUCTS.items() for field in msgspec.structs.fields(type_)]


def options(type_: Any) -> set[Any]:
    """The kinds of value that a type takes, as JSON Schema calls them; a Struct is its schema's name."""
    if get_origin(type_) in (Union, types.UnionType):
        return {kind for option in get_args(type_) for kind in options(option)}
    if type_ is types.NoneType:
        return {"null"}
    base = get_origin(type_) or type_
    return {JSON.get(base, base.__name__)}


def said(schema: dict[str, Any]) -> set[str]:
    """The same of a schema; a reference to one that is no object here is what that one is."""
    if "anyOf" in schema:
        return {kind for option in schema["anyOf"] for kind in said(option)}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removeprefix("Whole")  # a Range of whole numbers is a Range
        return {name} if name in STRUCTS else said(SCHEMAS[name])
    return {schema.get("type", "string")}


def test_every_struct_is_a_schema_of_the_document():
    assert set(STRUCTS) <= set(SCHEMAS)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{name}.{field.encode_name}" for name, field in FIELDS])
def test_a_member_is_read_as_the_document_says_it(name, field):
    declared = SCHEMAS[name]["properties"][field.encode_name]
    read = options(field.type)
    told = said(declared)
    assert told <= read | ({"integer"} if "number" in read else set()), f"{told} is answered, {read} is read"
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:
        assert field.encode_name in SCHEMAS[name]["required"]


RUN = {"scheduled_for": "2026-01-01T00:00:00Z", "status": "started", "request_id": None, "states": {}}


def test_members_and_words_of_a_later_version_are_kept():
    later = {**RUN, "status": "postponed", "until": "2026-01-02T00:00:00Z"}
    run = resources.read(resources.Run, later)
    assert (run.status, run.document) == ("postponed", later)


def test_members_that_an_earlier_version_did_not_have_are_absent():
    run = resources.read(resources.Run, {"scheduled_for": RUN["scheduled_for"], "status": "missed"})
    assert (run.request_id, run.states) == (None, {})


@pytest.mark.parametrize("document", [{"status": "started"}, {**RUN, "status": 1}, [], None, "text"])
def test_what_is_no_such_object_is_a_failure_in_words(document):
    with pytest.raises(Failure, match="The answer is no Run"):
        resources.read(resources.Run, document)
