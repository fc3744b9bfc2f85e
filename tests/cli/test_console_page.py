"""What the console's page holds of its own agrees with the API, and nothing of it is elsewhere."""

import json
import re

import pytest
from nexmdm.commands import actions
from nexmdm.commands import states as states_of
from nexmdm.devices import lists
from nexmdm_cli.console.app import ASSETS

OWN = sorted(path for path in ASSETS.iterdir() if path.suffix in (".js", ".css", ".html"))
KNOWN = json.loads((ASSETS / "actions.json").read_text())


def test_every_action_can_be_sent():
    assert set(KNOWN) == set(actions.ACTIONS)


def test_states_and_limits_are_those_of_the_api():
    states = re.search(r"STATES = (\[.*?\])", (ASSETS / "commands.js").read_text())[1]
    assert sorted(json.loads(states)) == sorted(states_of.DispatchState)
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
