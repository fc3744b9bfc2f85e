"""`make bench COMPARE=`: a ratio that is worse by more than its own spread fails; nothing else does."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import compare
from bench.compare import worse
from bench.figures import Figure, absent, at_least, at_most, below, compared, counted
from bench.pairs import spread_of
from tests.support.api import ROOT


def verb(ratio: float, spread: float = 0) -> Figure:
    return at_most(1.4, "a verb: p50", "its statement", 1.0, ratio, "ms", spread=spread)


def rate(ratio: float, spread: float = 0) -> Figure:
    return at_least(10, "a batch", "one by one", 100, ratio * 100, "rows/s", spread=spread)


def found(before: Figure, *after: Figure) -> list[str]:
    return [str(finding) for finding in worse({"section": [before]}, {"section": list(after)})]


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        (verb(1.2), verb(1.2), False),
        (verb(1.2), verb(1.37), False),  # 14 %
        (verb(1.2), verb(1.40), True),  # 17 %, although it still meets its target
        (verb(1.2), verb(0.5), False),
        (verb(1.2, spread=0.1), verb(1.5), False),  # 25 %, within the 26.5 % that the reference's own spread allows
        (verb(1.2), verb(1.5, spread=0.1), False),
        (verb(1.2, spread=0.1), verb(1.55, spread=0.05), True),
        (rate(14), rate(12.5), False),
        (rate(14), rate(12), True),  # for rates, less is worse
        (rate(14), rate(40), False),
        (compared("a queue", "one by one", 10, 80, "/s"), compared("a queue", "one by one", 10, 60, "/s"), True),
        (compared("a hit", "a SELECT", 1, 2, "ms"), compared("a hit", "a SELECT", 1, 1.5, "ms"), False),
        (compared("a hit", "a SELECT", 1, 2, "ms"), compared("a hit", "a SELECT", 1, 2.5, "ms"), True),
        (counted("messages", 1, 1, ""), counted("messages", 2, 1, ""), True),
        (counted("messages", 2, 1, ""), counted("messages", 3, 1, ""), False),  # it already missed before
        (below("a heartbeat p95", 10, 150, "ms"), below("a heartbeat p95", 900, 150, "ms"), False),  # not a ratio
        (absent("cold starts", "not built"), verb(9), False),
    ],
)
def test_ratio_fails_when_it_is_worse_beyond_its_spread(before: Figure, after: Figure, fails: bool):
    assert bool(found(before, after)) == fails


def test_slower_machine_is_not_a_finding():
    before = at_most(1.4, "a verb", "its statement", 1.0, 1.2, "ms")
    assert found(before, at_most(1.4, "a verb", "its statement", 5.0, 6.0, "ms")) == []


def test_missing_row_is_a_finding_and_an_omitted_section_is_not():
    assert "not in this run" in found(verb(1.2))[0]
    assert "not in this run" in found(verb(1.2), absent("a verb: p50", "it broke"))[0]
    assert list(worse({"heartbeats": [verb(1.2)]}, {"commands": [rate(9)]})) == []


def test_finding_names_the_row_and_both_ratios():
    (line,) = found(verb(1.2), verb(1.8))
    assert line == "section: a verb: p50: ratio 1.20, now 1.80: worse by 50%, 15% are allowed"


def test_spread_is_the_difference_between_the_parts_of_a_run():
    assert spread_of([1.0] * 10, [2.0] * 10) == 0
    assert spread_of([1.0] * 10, [2.0] * 8 + [3.0] * 2) == pytest.approx(0.5)
    assert spread_of([1.0, 1.0], [2.0, 3.0]) == pytest.approx(0.2)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--quick", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_unreadable_reference_is_reported_before_measuring(tmp_path: Path):
    run = tmp_path / "ref.json"
    for text in (None, "{", '{"figures": {"a": [{}]}}'):
        if text is not None:
            run.write_text(text)
        done = bench("--compare", str(run))
        assert done.returncode == 2
        assert "cannot be compared with" in done.stderr
    with pytest.raises(compare.Unreadable):
        compare.read(run)


def test_written_figures_can_be_read_again():
    figures = {"a": [verb(1.2, 0.1), rate(3), absent("x", "y")]}
    assert msgspec.json.decode(msgspec.json.encode({"figures": figures}), type=compare.Document).figures == figures
