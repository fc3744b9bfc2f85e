"""Every operator route of the template has a request, and a full scan of a table is detected.

The measurements themselves are in tests/system/extra/test_benchmark.py.
"""

from bench import operators
from bench.operator_requests import REQUESTS, TO_S3, Ask


def test_exactly_the_operator_routes_have_a_request():
    assert set(operators.routes()) == REQUESTS.keys() - {route for route, asks in REQUESTS.items() if not asks} | set(
        TO_S3
    )


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
