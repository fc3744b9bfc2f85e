"""Every operator route of the template is measured, and a table that is read as a whole is seen."""

import io
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from bench import __main__ as bench
from bench import operators
from bench.figures import ABSENT, Figure
from bench.operator_requests import REQUESTS, TO_S3, Ask
from bench.stage import QUICK
from local.postgres import embedded


def test_every_operator_route_of_the_template_has_a_request_and_no_other_has():
    assert set(operators.routes()) == REQUESTS.keys() - {route for route, asks in REQUESTS.items() if not asks} | set(
        TO_S3
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> list[Figure]:
    """At small sizes; a route more in the template, without a request."""
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


def test_every_request_is_answered(measured):
    assert [f"{figure.what}: {figure.note}" for figure in measured[:-1] if figure.bar == ABSENT] == []
    assert len(measured) == sum(map(len, REQUESTS.values())) + 1


def test_a_route_without_a_request_is_a_miss(measured):
    assert (measured[-1].what, measured[-1].verdict) == ("GET /v1/new", "MISSED")


def judged(took: float, floor: float | None = None, scanned: tuple[str, ...] = (), **ask: float) -> str:
    figure = operators._judged(
        "GET /v1/x", Ask(path="/v1/x", **ask), [took] * 4, [floor] * 4 if floor else [], list(scanned)
    )
    return figure.verdict


def test_what_is_met():
    assert judged(49) == "met"
    assert judged(51) == "MISSED"
    assert judged(51, floor=17) == "met"
    assert judged(52, floor=17) == "MISSED"
    assert judged(1, scanned=("fcm_dispatches",)) == "MISSED"
    assert judged(30_000, most_seconds=60) == "met"


def test_a_table_that_is_read_as_a_whole_is_found_unless_the_request_may():
    before = {"devices": (3, 0), "fcm_dispatches": (5, 1_000_000)}
    after = {"devices": (4, 100_000), "fcm_dispatches": (6, 2_000_000)}
    assert operators._scanned(before, after, Ask(path="/")) == ["devices", "fcm_dispatches"]
    assert operators._scanned(before, after, Ask(path="/", reads=("devices",))) == ["fcm_dispatches"]
    # A page of it, as a plan without an index reads when few rows are wanted.
    assert operators._scanned(before, {"devices": (4, 100)}, Ask(path="/")) == []
