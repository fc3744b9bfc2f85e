"""The conditions of the template that hold together, for every combination of the relevant parameters."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from local.template import Node

# The values of each parameter that conditions depend on; other parameters do not affect which resources exist.
CHOICES: dict[str, list[Any]] = {
    "Stage": ["dev", "prod"],
    "Schedules": ["on", "off"],
    "DatabaseMinCapacity": [0, 0.5],
    "DatabaseSnapshot": ["", "arn:aws:rds:eu-west-1:123456789012:cluster-snapshot:one"],
    "DatabaseStandby": ["on", "off"],
    "DatabaseProxy": ["on", "off"],
    "ReservedConcurrency": [0, 5],
    "VpcId": ["", "vpc-1"],
    "Egress": ["ipv6", "nat"],
    "AlarmTopicArn": ["", "arn:aws:sns:eu-west-1:123456789012:alarms"],
    "ExportDownloads": ["on", "off"],
    "ExportHeartbeats": ["on", "off"],
    "Webhook": ["on", "off"],
    "NotificationRoutes": ["on", "off"],
}

Truth = frozenset[str]  # the names of the conditions that hold


def parameters_of_conditions(document: Node) -> set[str]:
    return set(_references(document["Conditions"]))


def combinations(document: Node) -> tuple[int, set[Truth]]:
    """The number of combinations of parameters, and the different sets of conditions that hold in them."""
    names = sorted(parameters_of_conditions(document))
    found, count = set(), 0
    for values in product(*(CHOICES[name] for name in names)):
        count += 1
        given = dict(zip(names, values, strict=True))
        found.add(frozenset(name for name in document["Conditions"] if _holds(name, document["Conditions"], given)))
    return count, found


def by_default(document: Node) -> Truth:
    """The conditions that hold if every parameter has its default."""
    given = {name: parameter.get("Default", "") for name, parameter in document["Parameters"].items()}
    return frozenset(name for name in document["Conditions"] if _holds(name, document["Conditions"], given))


def _holds(name: str, conditions: Node, given: Node) -> bool:
    return bool(_evaluated(conditions[name], conditions, given))


def _evaluated(node: Any, conditions: Node, given: Node) -> Any:
    if not isinstance(node, dict):
        return node
    [(function, value)] = node.items()
    if function == "Ref":
        return given[value]
    if function == "Condition":
        return _holds(value, conditions, given)
    values = [_evaluated(each, conditions, given) for each in value]
    return {
        "Fn::Equals": lambda: str(values[0]) == str(values[1]),
        "Fn::Not": lambda: not values[0],
        "Fn::And": lambda: all(values),
        "Fn::Or": lambda: any(values),
    }[function]()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for function, value in node.items():
            if function == "Ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)
