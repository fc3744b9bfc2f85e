"""The OpenAPI document is complete and current, and its types are those that validate requests."""

import ast
import inspect
import json
from importlib import import_module, metadata
from typing import get_origin

import jsonschema
import pytest
from msgspec import Struct
from openapi_spec_validator import validate

from local import template
from local.openapi import __main__ as written
from local.openapi import document
from local.openapi.operations import operations
from local.template import Route

ROUTES = template.load().routes
DOCUMENT = json.loads((document.ROOT / "docs/openapi.json").read_text())


def module(route: Route):
    return import_module(f"functions.{route.function.name}.handler")


def function(route: Route):
    return module(route).routes.table[route.key].route


def test_document_describes_exactly_the_declared_routes():
    assert {route.key for route in ROUTES} == set(operations()), "declare every route with @routes"


def test_committed_document_matches_the_generated_one():
    for path, text in written.written().items():
        assert path.read_text() == text, f"{path.name} has drifted: run `make openapi`"


def test_version_matches_every_package_and_the_command():
    version = (document.ROOT / "VERSION").read_text().strip()
    assert DOCUMENT["info"]["version"] == version
    for package in ("nexmdm", "nexmdm-cli", "nexmdm-serverless"):
        assert metadata.version(package) == version, f"{package}: run `make setup`"


def test_document_is_valid_openapi_3_1():
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_every_route_has_a_description(route):
    assert inspect.getdoc(function(route)), f"{function(route).__name__} has no docstring"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_handler_declares_what_it_validates(route):
    calls = [ast.unparse(node.func) for node in ast.walk(tree(route)) if isinstance(node, ast.Call)]
    assert not {"request.json", "request.parameters", "request.report"} & set(calls)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_handler_declares_its_response(route):
    assert "return" in function(route).__annotations__
    types = [type_ for answer in operations()[route.key].answers.values() for type_ in answer.types]
    assert all(issubclass(get_origin(type_) or type_, Struct) for type_ in types), types


def tree(route: Route) -> ast.Module:
    return ast.parse(inspect.getsource(function(route)))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_security_of_each_route_matches_the_template(route):
    assert (operations()[route.key].caller == "operator") == (route.authorizer == "AWS_IAM")


def test_examples_match_their_schemas():
    found = 0
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in media.get("examples", {}).values():
                schema = {**media["schema"], "components": DOCUMENT["components"]}
                jsonschema.validate(example["value"], schema, jsonschema.Draft202012Validator)
                found += 1
    assert found >= 10
