"""Every operator route of the template is measured, and a full scan of a table is detected."""

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


def test_exactly_the_operator_routes_have_a_request():
    assert set(operators.routes()) == REQUESTS.keys() - {route for route, asks in REQUESTS.items() if not asks} | set(
        TO_S3
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> list[Figure]:
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


def test_every_request_is_answered(measured):
    assert [f"{figure.what}: {figure.note}" for figure in measured[:-1] if figure.bar == ABSENT] == []
    assert len(measured) == sum(map(len, REQUESTS.values())) + 1


def test_route_without_a_request_is_a_miss(measured):
    assert (measured[-1].what, measured[-1].verdict) == ("GET /v1/new", "MISSED")


def judged(took: float, floor: float | None = None, scanned: tuple[str, ...] = (), **ask: float) -> str:
    figure = operators._judged(
        "GET /v1/x", Ask(path="/v1/x", **ask), [took] * 4, [floor] * 4 if floor else [], list(scanned)
    )
    return figure.verdict


def test_verdict_depends_on_time_floor_and_scans():
    assert judged(49) == "met"
    assert judged(51) == "MISSED"
    assert judged(51, floor=17) == "met"
    assert judged(52, floor=17) == "MISSED"
    assert judged(1, scanned=("fcm_dispatches",)) == "MISSED"
    assert judged(30_000, most_seconds=60) == "met"


def test_full_table_scan_is_a_miss_unless_allowed():
    before = {"devices": (3, 0), "fcm_dispatches": (5, 1_000_000)}
    after = {"devices": (4, 100_000), "fcm_dispatches": (6, 2_000_000)}
    assert operators._scanned(before, after, Ask(path="/")) == ["devices", "fcm_dispatches"]
    assert operators._scanned(before, after, Ask(path="/", reads=("devices",))) == ["fcm_dispatches"]
    # A plan without an index that needs only a few rows stops after a page of them.
    assert operators._scanned(before, {"devices": (4, 100)}, Ask(path="/")) == []
