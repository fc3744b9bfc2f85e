"""A missed target is reported, and a section that fails does not stop the others.

The measurements themselves are in tests/system/extra/test_benchmark.py.
"""

import io

from rich.console import Console

from bench import __main__ as bench
from bench import figures, growth, heartbeats
from bench.figures import Figure, absent, at_least, at_most, below, counted
from bench.pairs import interleaved
from bench.stage import QUICK


def text(*shown: Figure) -> str:
    output = io.StringIO()
    figures.print_table(Console(file=output, width=200), "A table", list(shown))
    return output.getvalue()


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


def test_jobs_take_turns():
    order = []
    took = interleaved(3, lambda n: {name: lambda name=name: order.append((n, name)) for name in "ab"}, warm_up=1)
    assert {name: len(values) for name, values in took.items()} == {"a": 3, "b": 3}
    assert [sorted(order[n : n + 2]) for n in range(0, 8, 2)] == [[(n, "a"), (n, "b")] for n in range(4)]
