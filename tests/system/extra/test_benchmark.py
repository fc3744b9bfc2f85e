"""Every row of the benchmark can be computed, at small sizes, and a missed target is reported. No figure is judged."""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from bench import __main__ as bench
from bench import operators
from bench.figures import ABSENT, Figure
from bench.operator_requests import REQUESTS
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


@pytest.fixture(scope="module")
def operators_measured(tmp_path_factory) -> list[Figure]:
    """The measurements at small sizes, with one route more in the template that has no request."""
    known = operators.routes()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="nexmdm-bench-") as folder,
        embedded.start(Path(folder) / "data") as url,
    ):
        patch.setattr(operators, "PLANS", tmp_path_factory.mktemp("plans") / "operators.txt")
        patch.setattr(operators, "routes", lambda: [*known, "GET /v1/new"])
        found = bench.measure(url, ["operators"], QUICK, Console(file=io.StringIO()))["operators"]
        assert "EXPLAIN" not in operators.PLANS.read_text()
        assert operators.PLANS.read_text().count("cost=") > len(known)
        return found


def test_every_request_is_answered(operators_measured):
    assert [f"{figure.what}: {figure.note}" for figure in operators_measured[:-1] if figure.bar == ABSENT] == []
    assert len(operators_measured) == sum(map(len, REQUESTS.values())) + 1


def test_route_without_a_request_is_a_miss(operators_measured):
    assert (operators_measured[-1].what, operators_measured[-1].verdict) == ("GET /v1/new", "MISSED")


def quick(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "bench", "--quick", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_miss_exits_with_1_only_in_strict_mode(tmp_path: Path):
    for options, code in (((), 0), (("--strict",), 1)):  # the target of the cleanup was not measured
        done = quick("--only", "targets", "--json", str(tmp_path / "bench.json"), *options)
        assert done.returncode == code, done.stderr
        assert "MISSED" in done.stdout
        assert (tmp_path / "bench.json").exists()


def test_command_exits_with_1_when_a_ratio_is_worse(tmp_path: Path):
    run = tmp_path / "ref.json"
    assert quick("--only", "commands", "--json", str(run)).returncode == 0
    document = json.loads(run.read_text())
    assert {"figures", "at", "processors"} <= document.keys()

    def judged(ratio: float) -> subprocess.CompletedProcess[str]:
        for figure in document["figures"]["commands"]:
            if figure["ratio"]:
                figure.update(ratio=ratio, spread=0)
        run.write_text(json.dumps(document))
        return quick("--only", "commands", "--json", str(tmp_path / "now.json"), "--compare", str(run))

    good, bad = judged(1000), judged(0.001)
    assert (good.returncode, bad.returncode) == (0, 1), good.stdout + bad.stdout
    assert "0 worse than in" in good.stdout
    assert "worse by" in bad.stdout
