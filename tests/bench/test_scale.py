"""docs/scale.md contains the tables that the script prints, and the script's parameters change them."""

import subprocess
import sys

import pytest

from bench.scale import DEVICES, Model, limits, needs, tables
from tests.support.api import ROOT


def test_the_documents_tables_are_what_the_script_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "bench.scale"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    document = (ROOT / "docs" / "scale.md").read_text()
    for table in printed.stdout.strip().split("\n\n"):
        assert table in document, "docs/scale.md is out of date: insert the output of `python -m bench.scale`"


def test_longer_interval_costs_less():
    usual, longer = (needs(Model(interval=interval)) for interval in (600, 3600))
    for what in ("heartbeats a second, usual", "requests a month, million", "total, USD a month"):
        assert usual[what](1e6) != longer[what](1e6)
    assert Model().requests(1e6) > 4 * Model(interval=3600).requests(1e6)


@pytest.mark.parametrize("devices", DEVICES)
def test_more_devices_never_need_less(devices):
    model = Model()
    for amount in (model.heartbeats, model.requests, model.stored_gb, model.partition_rows):
        assert amount(2 * devices) > amount(devices)


def test_limits_are_sorted_and_follow_their_parameters():
    found = limits(Model())
    assert [count for _, count in found] == sorted(count for _, count in found)
    assert dict(limits(Model(fcm_per_minute=60_000)))["a command to all at FCM's quota within its time"] == 600_000


def test_every_row_has_the_same_number_of_columns():
    lines = list(tables(Model(), (1, 2)))
    assert {line.count("|") for line in lines[: lines.index("")]} == {4}
