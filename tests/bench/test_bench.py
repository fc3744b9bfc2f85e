"""Every row of the benchmark can be computed, at small sizes, and a missed target is reported. No figure is judged."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from bench import __main__ as bench
from bench import figures, growth, heartbeats
from bench.figures import Figure, absent, at_least, at_most, below, counted
from bench.pairs import interleaved
from bench.stage import QUICK
from local.postgres import embedded
from tests.support.api import ROOT

BARS = {
    "processor_time": ["<= 1.5", "<= 500 bytes"],
    "heartbeats": [
        *("<= 1.4", "<= 1.6", "<= 2"),
        *("<= 1.4", "<= 2", "<= 1.2", "= 0"),  # with an inventory
        *("= 1", "<= 1.0", "= 0", "= 0", ">= 15"),
    ],
    "commands": ["<= 2", "none", "= 1", "<= 3"],
    "growth": ["<= 1.2"] * 3,
    "recovery": ["= 0", "= 0", ">= 0.6", ">= 10", "none"],
    "removal": ["none", "= 0", "<= 150 ms", "<= 150 ms"],
    "sending": [">= 0.8"],
    "targets": ["<= 150 ms", "<= 5 ms", "<= 60 s", "<= 10 s"],
}


def text(*shown: Figure) -> str:
    output = io.StringIO()
    figures.print_table(Console(file=output, width=200), "A table", list(shown))
    return output.getvalue()


@pytest.fixture(scope="module")
def measured() -> dict[str, list[Figure]]:
    """Everything but cold starts, which need built artifacts: `make test-built`."""
    with tempfile.TemporaryDirectory(prefix="nexmdm-bench-") as folder, embedded.start(Path(folder) / "data") as url:
        return bench.measure(url, list(BARS), QUICK, Console(file=io.StringIO()))


@pytest.mark.parametrize("section", BARS)
def test_every_row_of_the_table_is_measured(measured, section):
    assert [figure.bar for figure in measured[section]] == BARS[section], measured[section]
    for figure in measured[section]:
        assert figure.measured is not None
        # A heartbeat may or may not occur during such a short removal.
        assert figure.against in ("", "counted", "just before") or figure.ratio > 0


def test_counts_are_as_promised(measured):
    """Counts do not depend on speed: one statement per heartbeat, and a repeat writes nothing."""
    for section in ("heartbeats", "commands", "removal"):
        assert all(figure.met for figure in measured[section] if figure.against == "counted")


def test_missed_target_is_reported():
    assert "met" in text(at_most(1.4, "a verb", "its statement", 1.0, 1.4, "ms"))
    assert "MISSED" in text(at_most(1.4, "a verb", "its statement", 1.0, 1.41, "ms"))
    assert "MISSED" in text(at_least(15, "a batch", "one by one", 100, 1_499, "/s"))
    assert "MISSED" in text(counted("messages", 2, 1, "messages"))
    assert "MISSED" in text(below("size", 61, 60, "MB"))
    assert "MISSED" in text(absent("cold starts", "the functions are not built"))


def test_failing_section_is_a_miss_and_does_not_stop_others(url, monkeypatch):
    def broken(_stage):
        raise RuntimeError("it broke")

    monkeypatch.setattr(bench.Stage, "build", lambda _self: None)
    monkeypatch.setattr(growth, "measure", broken)
    monkeypatch.setattr(heartbeats, "measure", lambda _stage: [counted("something", 1, 1, "")])
    output = io.StringIO()
    found = bench.measure(url, ["growth", "heartbeats"], QUICK, Console(file=output, width=200))
    assert [figure.verdict for section in found.values() for figure in section] == ["MISSED", "met"]
    assert "it broke" in output.getvalue()


def test_miss_exits_with_1_only_in_strict_mode(tmp_path):
    command = [sys.executable, "-m", "bench", "--quick", "--only", "targets", "--json", str(tmp_path / "bench.json")]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    for options, code in (([], 0), (["--strict"], 1)):  # the target of the cleanup was not measured
        done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "MISSED" in done.stdout
        assert (tmp_path / "bench.json").exists()


def test_jobs_take_turns():
    order = []
    took = interleaved(3, lambda n: {name: lambda name=name: order.append((n, name)) for name in "ab"}, warm_up=1)
    assert {name: len(values) for name, values in took.items()} == {"a": 3, "b": 3}
    assert [sorted(order[n : n + 2]) for n in range(0, 8, 2)] == [[(n, "a"), (n, "b")] for n in range(4)]
