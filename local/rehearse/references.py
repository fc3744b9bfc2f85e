"""Checks that everything the template refers to exists in every combination of parameters that uses it, without
cycles."""

import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from local.rehearse.conditions import Truth
from local.template import Node

_NAMED = re.compile(r"\$\{([^!}][^}]*)\}")


class Reference(NamedTuple):
    """when: the conditions on the path to it, {name: whether it holds}."""

    source: str
    target: str
    when: dict[str, bool]


def check(document: Node, truths: set[Truth]) -> tuple[int, list[str]]:
    """The number of checked references, and the problems found."""
    wrong, count = [], 0
    resources, parameters = document["Resources"], document["Parameters"]
    graph: dict[str, set[str]] = {name: set() for name in resources}

    @cache
    def may_be_missing(needed: str, when: tuple[tuple[str, bool], ...]) -> bool:
        return any(needed not in truth for truth in truths if _fits(truth, when))

    for reference in references(document):
        count += 1
        if reference.target in parameters or reference.target.startswith("AWS::"):
            continue
        if reference.target not in resources:
            wrong.append(f"{reference.source} refers to {reference.target}, which does not exist")
            continue
        if reference.source in graph:
            graph[reference.source].add(reference.target)
        needed = resources[reference.target].get("Condition")
        if needed and may_be_missing(needed, tuple(reference.when.items())):
            when = ", ".join(f"{name} is {value}" for name, value in reference.when.items()) or "always"
            wrong.append(f"{reference.source} refers to {reference.target} ({when}), which exists only if {needed}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append(f"resources wait for each other: {' -> '.join(error.args[1])}")
    return count, wrong


def references(document: Node) -> Iterator[Reference]:
    for section in ("Resources", "Outputs"):
        for name, entry in document[section].items():
            when = {entry["Condition"]: True} if "Condition" in entry else {}
            body = {key: value for key, value in entry.items() if key != "Condition"}
            source = name if section == "Resources" else f"output {name}"
            depends = body.pop("DependsOn", [])
            for target in [depends] if isinstance(depends, str) else depends:
                yield Reference(source, target, when)
            yield from _walk(source, body, when)


def _fits(truth: Truth, when: tuple[tuple[str, bool], ...]) -> bool:
    return all((name in truth) == value for name, value in when)


def _walk(source: str, node: Any, when: dict[str, bool]) -> Iterator[Reference]:
    if isinstance(node, list):
        for each in node:
            yield from _walk(source, each, when)
    if not isinstance(node, dict):
        return
    if set(node) == {"Fn::If"}:
        condition, then, otherwise = node["Fn::If"]
        yield from _walk(source, then, {**when, condition: True})
        yield from _walk(source, otherwise, {**when, condition: False})
    elif set(node) == {"Ref"}:
        yield Reference(source, node["Ref"], when)
    elif set(node) == {"Fn::GetAtt"}:
        value = node["Fn::GetAtt"]
        yield Reference(source, value[0] if isinstance(value, list) else value.partition(".")[0], when)
    elif set(node) == {"Fn::Sub"}:
        text, values = node["Fn::Sub"] if isinstance(node["Fn::Sub"], list) else (node["Fn::Sub"], {})
        for name in _NAMED.findall(text):
            if name not in values:
                yield Reference(source, name if name.startswith("AWS::") else name.partition(".")[0], when)
        yield from _walk(source, values, when)
    else:
        for value in node.values():
            yield from _walk(source, value, when)
