"""docs/costs.md and every other text that names a price agree with bench/prices.toml."""

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
        assert table in document, "docs/costs.md is out of date: insert the output of `make costs`"
    assert f"{costs.prices()['date']}" in document
    assert costs.prices()["region"] in document


def test_every_price_has_its_source_and_date():
    text = (ROOT / "bench" / "prices.toml").read_text()
    sections = re.findall(r"^\[(\w+)\](.*)$", text, re.MULTILINE)
    for name, page in sections:
        if name not in ("measured", "documented", "assumed"):
            assert "https://aws.amazon.com/" in page, name
    assert isinstance(costs.prices()["date"], date)


def test_no_other_document_contains_prices():
    for path in (ROOT / "docs").glob("*.md"):
        named = re.findall(r"([\d,.]+) USD(?: a million| per GB)?|USD ([\d,.]+)", path.read_text())
        if path.name not in ("costs.md", "scale.md"):
            assert named == [], f"{path.name} names a price: {named}; docs/costs.md is the place"


def test_template_descriptions_name_the_price_of_a_nat_gateway():
    text = (ROOT / "template.yaml").read_text()
    assert text.count("38.7 USD a month") == 2
    assert f"{costs.nat_month():.1f}" == "38.7"
    assert f"{costs.prices()['nat']['gb']} USD per GB" in text


@pytest.mark.parametrize("devices", costs.FLEETS)
def test_only_usage_costs_grow_with_the_fleet(devices: int):
    usual, double = costs.month(devices), costs.month(2 * devices)
    for part in ("HTTP API", "Lambda", "storage, I/O", "logs"):
        assert double[part] > usual[part]
    for part in ("Aurora", "fixed"):
        assert double[part] == usual[part]


def test_price_change_changes_the_table(monkeypatch: pytest.MonkeyPatch):
    before = list(costs.tables())
    monkeypatch.setitem(costs.prices()["http_api"], "million_requests", 2.22)
    assert list(costs.tables()) != before
