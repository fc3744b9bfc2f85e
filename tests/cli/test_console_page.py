"""What the console's page holds of its own agrees with the API, and nothing of it is elsewhere."""

import json
import re
from typing import get_args

import msgspec
import pytest
from nexmdm.commands import actions, single
from nexmdm.devices import lists
from nexmdm_cli.console.app import ASSETS

OWN = sorted(path for path in ASSETS.iterdir() if path.suffix in (".js", ".css", ".html"))
KNOWN = json.loads((ASSETS / "actions.json").read_text())


def test_every_action_can_be_sent():
    assert set(KNOWN) == set(actions.ACTIONS)


@pytest.mark.parametrize("action", KNOWN)
def test_parameters_have_the_limits_of_the_api(action):
    _, schemas = msgspec.json.schema_components([actions.ACTIONS[action]])
    (schema,) = schemas.values()
    params = KNOWN[action]["params"]
    assert list(params) == list(schema.get("properties", {}))
    assert {name for name in params if params[name].get("required")} == set(schema.get("required", []))
    for name, declared in schema.get("properties", {}).items():
        its = next(choice for choice in declared.get("anyOf", [declared]) if choice.get("type") != "null")
        limits = {key: value for key, value in its.items() if key not in ("type", "items", "default")}
        given = {key: value for key, value in params[name].items() if key in ("enum", *limits, *LIMITS)}
        assert sorted(given.pop("enum", [])) == sorted(limits.pop("enum", []))
        assert given == limits, name
        assert params[name]["type"] == its.get("type", "string")
        assert bool(params[name].get("secret")) == (name in actions.SECRETS.get(action, set()))
        if declared.get("default") is not None:
            assert params[name]["default"] == declared["default"]


LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")


def test_remote_control_asks_for_what_its_command_needs():
    needed: dict[str, list[str]] = {}
    for name, spec in KNOWN["remote_control"]["params"].items():
        for command in spec.get("needed", []):
            needed.setdefault(command, []).append(name)
    assert {command: tuple(names) for command, names in needed.items()} == actions.NEEDED


def test_states_and_limits_are_those_of_the_api():
    states = re.search(r"STATES = (\[.*?\])", (ASSETS / "commands.js").read_text())[1]
    assert sorted(json.loads(states)) == sorted(get_args(single.State))
    low = re.search(r"LOW_BATTERY_PCT = (\d+)", (ASSETS / "devices.js").read_text())[1]
    assert int(low) == lists.LOW_BATTERY_PCT


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path):
    text = path.read_text()
    # What this package does not bring is the API description, which is made from the API's sources.
    for name in re.findall(r"""["'(](/assets/[\w./-]+)["')]""", text):
        assert (ASSETS / name.removeprefix("/assets/")).is_file() or name == "/assets/openapi.json", name
    assert not re.search(r"""(?:src|href|from|import|url)\W{1,4}(?:https?:)?//""", text)
    for inline in (r"\son\w+=\"", r"\sstyle=", "innerHTML", "javascript:", r"\beval\b", "dangerouslySet"):
        assert not re.search(inline, text), inline


def test_the_vendored_has_its_licence():
    vendored = ASSETS / "vendor"
    said = (vendored / "README.md").read_text()
    for path in vendored.iterdir():
        assert path.name in said or path.name.startswith("LICENSE-") or path.name == "README.md"
    assert len(list(vendored.glob("LICENSE-*.txt"))) == 3
