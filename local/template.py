"""The functions, routes and schedules that template.yaml declares, for the local stack."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

# A part of a CloudFormation template.
Node: TypeAlias = dict[str, Any]
TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"
SECONDS = {"minute": 60, "minutes": 60, "hour": 3600, "hours": 3600, "day": 86_400, "days": 86_400}


@dataclass(frozen=True)
class Function:
    """name: the handler's folder, such as `heartbeat`. timeout in seconds, memory in MB."""

    name: str
    logical_id: str
    handler: str
    timeout: int = 3
    memory: int = 128
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """authorizer: NONE or AWS_IAM. path as the template writes it: `/v1/devices/{device_id}`."""

    method: str
    path: str
    function: Function
    authorizer: str

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Schedule:
    """every: seconds; None for a cron expression, which the local stack ignores. input: the event as JSON text."""

    name: str
    function: Function
    expression: str
    every: int | None
    input: str | None


@dataclass(frozen=True)
class Template:
    functions: dict[str, Function]
    routes: list[Route]
    schedules: list[Schedule]

    def function(self, name: str) -> Function:
        """Find a function by folder name or logical id.

        Raises:
            LookupError: there is none; names the existing functions.
        """
        for function in self.functions.values():
            if name in (function.name, function.logical_id):
                return function
        raise LookupError(f"no function {name!r} in template.yaml; there are: {', '.join(sorted(self.functions))}")


def document(path: Path = TEMPLATE) -> Node:
    """The whole template, with intrinsics as {"Ref": ..}, {"Fn::Sub": ..}."""
    whole: Node = yaml.load(path.read_text(), Loader=_CloudFormationLoader)
    return whole


def load(path: Path = TEMPLATE) -> Template:
    whole = document(path)
    resources = whole["Resources"]
    defaults = whole.get("Globals", {}).get("Function", {})
    found = Template({}, [], [])
    for logical_id, resource in resources.items():
        if resource["Type"] == "AWS::Serverless::Function":
            properties = {**defaults, **resource["Properties"]}
            function = _function(logical_id, properties, defaults)
            found.functions[function.name] = function
            for name, event in properties.get("Events", {}).items():
                _add_event(found, function, f"{logical_id}{name}", event, resources)
    return found


def _function(logical_id: str, properties: Node, defaults: Node) -> Function:
    variables = {**_variables(defaults), **_variables(properties)}
    return Function(
        name=properties["Handler"].split(".")[-3],
        logical_id=logical_id,
        handler=properties["Handler"],
        timeout=int(properties.get("Timeout", 3)),
        memory=int(properties.get("MemorySize", 128)),
        environment={
            key: str(value) for key, value in variables.items() if isinstance(value, str | int | float) and value != ""
        },
    )


def _variables(properties: Node) -> Node:
    return dict(properties.get("Environment", {}).get("Variables", {}))


def _add_event(found: Template, function: Function, name: str, event: Node, resources: Node) -> None:
    properties = event.get("Properties", {})
    if event["Type"] == "HttpApi":
        authorizer = properties.get("Auth", {}).get("Authorizer") or _default_authorizer(properties, resources)
        found.routes.append(Route(properties["Method"].upper(), properties["Path"], function, authorizer))
    elif event["Type"] in ("Schedule", "ScheduleV2"):
        expression = properties.get("ScheduleExpression") or properties["Schedule"]
        found.schedules.append(Schedule(name, function, expression, _rate(expression), properties.get("Input")))


def _default_authorizer(properties: Node, resources: Node) -> str:
    api = properties.get("ApiId", {})
    auth = resources.get(api.get("Ref"), {}).get("Properties", {}).get("Auth", {})
    return str(auth.get("DefaultAuthorizer", "NONE"))


def _rate(expression: str) -> int | None:
    match = re.fullmatch(r"rate\((\d+) (\w+)\)", expression)
    return int(match[1]) * SECONDS[match[2]] if match else None


class _CloudFormationLoader(yaml.CSafeLoader):
    """`!Ref X` becomes {"Ref": "X"}, `!Sub X` {"Fn::Sub": "X"}, and so on, without resolving them."""


def _intrinsic(loader: yaml.CSafeLoader, tag: str, node: yaml.Node) -> dict[str, object]:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise TypeError(f"{tag} cannot be applied to a {type(node).__name__}")
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_CloudFormationLoader.add_multi_constructor("!", _intrinsic)
