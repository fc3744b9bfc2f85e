"""The data for the console's forms and the CLI's completion, generated from the declarations.

`actions.json` has the actions of commands, `conditions.json` the conditions of alert rules.
"""

from typing import Any, TypeAlias

import msgspec
from nexmdm.alerts.conditions import DECLARATIONS
from nexmdm.commands.actions import ACTIONS, Action, Parameters

from local.openapi import Schema

# The data for the console's forms, by name.
Forms: TypeAlias = dict[str, Any]
LIMITS = ("enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "default")


def actions() -> Forms:
    return {action.name: _action(action) for action in ACTIONS.values()}


def conditions() -> Forms:
    """Each condition with its title, and with the unit and bounds of its threshold if it has one."""
    return {
        name.value: {"title": told.title}
        | ({"unit": told.unit, "least": told.least, "most": told.most} if told.unit is not None else {})
        for name, told in DECLARATIONS.items()
    }


def _action(action: Action) -> Forms:
    found: Forms = {"about": action.about, "answered": action.answered.value, "params": {}}
    if action.repeat is not None:
        found["repeat"] = action.repeat
    if action.disruptive:
        found["disruptive"] = True
    _, schemas = msgspec.json.schema_components([action.parameters])
    schema = schemas[action.parameters.__name__]
    for name, declared in schema["properties"].items():
        found["params"][name] = _parameter(action.parameters, name, declared, name in schema.get("required", []))
    return found


def _parameter(parameters: type[Parameters], name: str, declared: Schema, required: bool) -> Forms:
    # An optional parameter is declared as a union of its type and null.
    own = next(option for option in declared.get("anyOf", [declared]) if option.get("type") != "null")
    about = {**declared, **own}
    found = {"type": own.get("type", "string"), "label": about.get("title", name.replace("_", " ").capitalize())}
    if "description" in about:
        found["hint"] = about["description"]
    found |= {limit: about[limit] for limit in LIMITS if about.get(limit) is not None}
    flags = {
        "required": required,
        "secret": name in parameters.SECRET,
        "needed": [choice for choice, names in parameters.NEEDED.items() if name in names],
        "taken": [choice for choice, names in parameters.TAKEN.items() if name in names],
        "choice": name == parameters.CHOICE,
    }
    return found | {flag: value for flag, value in flags.items() if value}
