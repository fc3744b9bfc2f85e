"""The body of a command, by action: a JSON Schema for each action's parameters, for which the struct has any object."""

import copy

import msgspec
from nexmdm.commands.actions import ACTIONS, Action, Parameters
from nexmdm.commands.states import Delivery

from local.openapi import Schema

REF = "#/components/schemas/{}"


def by_action(body: Schema) -> Schema:
    """One alternative for each kind of parameters of an `action`, and for each way of delivery."""
    groups: dict[tuple[type, bool], list[Action]] = {}
    for action in ACTIONS.values():
        groups.setdefault((action.parameters, action.repeat is not None), []).append(action)
    alternatives = []
    for (parameters, repeats), actions in groups.items():
        alternative = copy.deepcopy(body)
        alternative["title"] = f"{parameters.__name__}" + (", may be repeated" if repeats else "")
        alternative["properties"]["action"] = {"enum": [action.name for action in actions]}
        alternative["properties"]["params"] = {"$ref": REF.format(parameters.__name__)}
        if not repeats:
            alternative["properties"]["delivery"] = {"const": Delivery.AT_MOST_ONCE.value}
        if any(field.required for field in msgspec.structs.fields(parameters)):
            alternative["required"] = [*body["required"], "params"]
        alternatives.append(alternative)
    return {"title": body["title"], "description": body.get("description", ""), "oneOf": alternatives}


def by_choice(parameters: type[Parameters], schema: Schema) -> Schema:
    """Parameters whose CHOICE decides about the others: one alternative for each set of others."""
    if parameters.CHOICE is None:
        return schema
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for choice in schema["properties"][parameters.CHOICE]["enum"]:
        groups.setdefault((parameters.NEEDED.get(choice, ()), parameters.TAKEN.get(choice, ())), []).append(choice)
    alternatives = []
    for (needed, taken), choices in groups.items():
        alternative = copy.deepcopy(schema)
        alternative["properties"][parameters.CHOICE]["enum"] = choices
        for name in parameters.depending():
            if name in needed:
                # Null means absent, so a required parameter must not be null.
                alternative["properties"][name] = next(
                    option for option in schema["properties"][name]["anyOf"] if option.get("type") != "null"
                )
            elif name not in taken:
                alternative["properties"][name] = {"type": "null"}
        alternative["required"] = [parameters.CHOICE, *needed]
        alternatives.append(alternative)
    return {"title": parameters.__name__, "oneOf": alternatives}


def either_devices_or_filter(body: Schema) -> Schema:
    """A bulk command has either device_ids or a filter."""
    return {**body, "oneOf": [_targeted(option, target) for option in body["oneOf"] for target in _TARGETS]}


_TARGETS = {"device_ids": "filter", "filter": "device_ids"}


def _targeted(option: Schema, target: str) -> Schema:
    chosen = copy.deepcopy(option)
    del chosen["properties"][_TARGETS[target]]
    chosen["properties"][target] = chosen["properties"][target]["anyOf"][0]
    chosen["required"] = [*chosen["required"], target]
    chosen["title"] = f"{option['title']}, {target}"
    return chosen
