"""The body of a command, by action: a JSON Schema for each action's parameters where the struct takes any object."""

import copy
from typing import Any

import msgspec
from nexmdm.commands.actions import ACTIONS, NEEDED, RemoteControl

Schema = dict[str, Any]
REF = "#/components/schemas/{}"


def by_action(body: Schema) -> Schema:
    """One alternative for each kind of parameters that the body's `action` may have."""
    names: dict[type, list[str]] = {}
    for action, parameters in ACTIONS.items():
        names.setdefault(parameters, []).append(action)
    alternatives = []
    for parameters, actions in names.items():
        alternative = copy.deepcopy(body)
        alternative["title"] = parameters.__name__
        alternative["properties"]["action"] = {"enum": actions}
        alternative["properties"]["params"] = {"$ref": REF.format(parameters.__name__)}
        if any(field.required for field in msgspec.structs.fields(parameters)):
            alternative["required"] = [*body["required"], "params"]
        alternatives.append(alternative)
    return {"title": body["title"], "description": body.get("description", ""), "oneOf": alternatives}


def remote_control(schema: Schema) -> Schema:
    """What each of remote_control's commands needs."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for command in schema["properties"]["command"]["enum"]:
        groups.setdefault(NEEDED.get(command, ()), []).append(command)
    alternatives = []
    for needed, commands in groups.items():
        alternative = copy.deepcopy(schema)
        alternative["properties"]["command"] = {"enum": commands}
        for name in needed:
            # Null is as good as absent, so what is needed is not null.
            alternative["properties"][name] = next(
                option for option in schema["properties"][name]["anyOf"] if option.get("type") != "null"
            )
        alternative["required"] = ["command", *needed]
        alternatives.append(alternative)
    return {"title": RemoteControl.__name__, "oneOf": alternatives}


def either_devices_or_filter(body: Schema) -> Schema:
    """A bulk command names its devices one way or the other."""
    return {**body, "oneOf": [_targeted(option, target) for option in body["oneOf"] for target in _TARGETS]}


_TARGETS = {"device_ids": "filter", "filter": "device_ids"}


def _targeted(option: Schema, target: str) -> Schema:
    chosen = copy.deepcopy(option)
    del chosen["properties"][_TARGETS[target]]
    chosen["properties"][target] = chosen["properties"][target]["anyOf"][0]
    chosen["required"] = [*chosen["required"], target]
    chosen["title"] = f"{option['title']}, {target}"
    return chosen
