"""The constants of the console's page agree with the API, and the page loads nothing from other hosts."""

import json
import re
from typing import get_args

import pytest
from nexmdm.alerts.rules import Severity
from nexmdm.commands import actions
from nexmdm.commands import states as states_of
from nexmdm.devices import fields, lists
from nexmdm_cli.console.app import ASSETS, PAGES

OWN = sorted(path for path in ASSETS.iterdir() if path.suffix in (".js", ".css", ".html"))
KNOWN = json.loads((ASSETS / "actions.json").read_text())


def test_every_action_can_be_sent():
    assert set(KNOWN) == set(actions.ACTIONS)


def test_states_and_limits_are_those_of_the_api():
    states = re.search(r"STATES = (\[.*?\])", (ASSETS / "commands.js").read_text())[1]
    assert sorted(json.loads(states)) == sorted(states_of.DispatchState)
    low = re.search(r"LOW_BATTERY_PCT = (\d+)", (ASSETS / "devices.js").read_text())[1]
    assert int(low) == lists.LOW_BATTERY_PCT


def test_every_place_of_the_page_has_a_url():
    """A place that is reloaded, or opened from a shared link, is requested from the console by its URL."""
    text = (ASSETS / "app.js").read_text()
    places = re.search(r"const PLACES = \{(.*?)\};", text, re.DOTALL)[1]
    keys = re.findall(r'^  "?([a-z/-]*)"?: \w+,$', places, re.MULTILINE)
    assert len(keys) == places.count(",")
    assert {f"/{key}{'{id}' if key.endswith('/') else ''}" for key in keys} == set(PAGES)


def test_every_value_of_the_hourly_history_is_drawn():
    drawn = re.search(r"SERIES = \[(.*?)\n\];", (ASSETS / "device.js").read_text(), re.DOTALL)[1]
    assert re.findall(r'^  \["[^"]+", "[^"]+", "(\w+)"', drawn, re.MULTILINE) == [
        field.name for field in fields.CHARTED
    ]


def test_severities_are_those_of_the_api():
    text = (ASSETS / "conditions.js").read_text()
    assert json.loads(re.search(r"SEVERITIES = (\[.*?\])", text)[1]) == list(get_args(Severity))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_loaded_from_other_hosts(path):
    text = path.read_text()
    # The one file that this package does not contain is the API description, which is generated from the API's sources.
    for name in re.findall(r"""["'(](/assets/[\w./-]+)["')]""", text):
        assert (ASSETS / name.removeprefix("/assets/")).is_file() or name == "/assets/openapi.json", name
    assert not re.search(r"""(?:src|href|from|import|url)\W{1,4}(?:https?:)?//""", text)
    for inline in (r"\son\w+=\"", r"\sstyle=", "innerHTML", "javascript:", r"\beval\b", "dangerouslySet"):
        assert not re.search(inline, text), inline


def test_vendored_files_have_their_license():
    vendored = ASSETS / "vendor"
    said = (vendored / "README.md").read_text()
    for path in vendored.iterdir():
        assert path.name in said or path.name.startswith("LICENSE-") or path.name == "README.md"
    assert len(list(vendored.glob("LICENSE-*.txt"))) == 3
