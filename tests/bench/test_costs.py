"""docs/costs.md and whatever else names a price say what bench/prices.toml makes of it."""

import re
import subprocess
import sys
from datetime import date

import pytest

from bench import costs
from tests.support.api import ROOT


def test_the_documents_tables_are_what_the_script_prints():
    run = [sys.executable, "-m", "bench.costs"]
    printed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    document = (ROOT / "docs" / "costs.md").read_text()
    for table in printed.strip().split("\n\n"):
        assert table in document, "docs/costs.md is behind: put in what `make costs` prints"
    assert f"{costs.prices()['date']}" in document
    assert costs.prices()["region"] in document


def test_every_price_has_its_page_and_the_day_it_was_written_down():
    text = (ROOT / "bench" / "prices.toml").read_text()
    sections = re.findall(r"^\[(\w+)\](.*)$", text, re.MULTILINE)
    for name, page in sections:
        if name not in ("measured", "documented", "assumed"):
            assert "https://aws.amazon.com/" in page, name
    assert isinstance(costs.prices()["date"], date)


def test_no_other_document_writes_prices_of_its_own():
    for path in (ROOT / "docs").glob("*.md"):
        named = re.findall(r"([\d,.]+) USD(?: a million| per GB)?|USD ([\d,.]+)", path.read_text())
        if path.name not in ("costs.md", "scale.md"):
            assert named == [], f"{path.name} names a price: {named}; docs/costs.md is the place"


def test_the_templates_descriptions_name_the_price_of_a_nat_gateway():
    text = (ROOT / "template.yaml").read_text()
    assert text.count("38.7 USD a month") == 2
    assert f"{costs.nat_month():.1f}" == "38.7"
    assert f"{costs.prices()['nat']['gb']} USD per GB" in text


@pytest.mark.parametrize("devices", costs.FLEETS)
def test_what_grows_with_the_fleet_grows_and_the_rest_does_not(devices: int):
    usual, double = costs.month(devices), costs.month(2 * devices)
    for part in ("HTTP API", "Lambda", "storage, I/O", "logs"):
        assert double[part] > usual[part]
    for part in ("Aurora", "fixed"):
        assert double[part] == usual[part]


def test_a_change_of_a_price_changes_the_table(monkeypatch: pytest.MonkeyPatch):
    before = list(costs.tables())
    monkeypatch.setitem(costs.prices()["http_api"], "million_requests", 2.22)
    assert list(costs.tables()) != before
