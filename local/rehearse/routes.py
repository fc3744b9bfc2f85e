"""Checks that each API route leads to a function that may be invoked by it and serves it, and that its authorization is
as declared."""

from importlib import import_module
from typing import Any

from local import template
from local.template import Node


def check(document: Node) -> tuple[int, list[str]]:
    resources, wrong = document["Resources"], []
    declared = {route.key: route for route in template.load().routes}
    served: dict[str, str] = {}
    for function in template.load().functions.values():
        module = import_module(function.handler.rpartition(".")[0])
        if hasattr(module, "routes"):
            served |= dict.fromkeys(module.routes.table, function.name)
    wrong += [f"{key} is in the template but no handler serves it" for key in sorted(set(declared) - set(served))]
    wrong += [f"{key} is served but not in the template" for key in sorted(set(served) - set(declared))]
    permissions = {
        (each["Properties"]["FunctionName"]["Ref"], _sub(each["Properties"]["SourceArn"]).partition("${__Stage__}/")[2])
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Permission" and "execute-api" in _sub(each["Properties"].get("SourceArn"))
    }
    paths = resources["Api"]["Properties"]["Body"]["paths"]
    for key, route in declared.items():
        method, _, path = key.partition(" ")
        if served.get(key) not in (None, route.function.name):
            wrong.append(f"{key} leads to {route.function.name} but is served by {served[key]}")
        operation = paths.get(path, {}).get(method.lower())
        if operation is None:
            wrong.append(f"{key} is not in the API that SAM generates")
            continue
        target = operation["x-amazon-apigateway-integration"]["uri"]
        if route.function.logical_id not in str(target):
            wrong.append(f"{key} leads to {target}")
        signed = any("AWS_IAM" in option for option in operation.get("security", []))
        if signed != (route.authorizer == "AWS_IAM"):
            wrong.append(f"{key} requires {'a' if signed else 'no'} signature")
        covered = "".join("*" if part.startswith("{") else part for part in _parts(path))
        if (route.function.logical_id, f"{method}{covered}") not in permissions:
            wrong.append(f"{key} may not invoke {route.function.logical_id}")
    stage = next(each for each in resources.values() if each["Type"] == "AWS::ApiGatewayV2::Stage")
    for key in stage["Properties"]["RouteSettings"]:
        if key not in declared:
            wrong.append(f"the stage has a setting for {key}, which is not a route: the deploy fails")
    return len(declared), wrong


def _parts(path: str) -> list[str]:
    """`/v1/x/{id}` -> ["/", "v1", "/", "x", "/", "{id}"]"""
    return [each for part in path.split("/")[1:] for each in ("/", part)]


def _sub(node: Any) -> str:
    text = node.get("Fn::Sub", "") if isinstance(node, dict) else ""
    return text[0] if isinstance(text, list) else text
