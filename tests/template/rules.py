"""Read the resources of template.yaml."""

from collections.abc import Iterator
from typing import Any


def of_type(document: dict, kind: str) -> dict[str, dict[str, Any]]:
    found = {name: resource for name, resource in document["Resources"].items() if resource["Type"] == kind}
    assert found, f"there is no {kind}"
    return found


def functions(document: dict) -> dict[str, dict[str, Any]]:
    return of_type(document, "AWS::Serverless::Function")


def walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)
