"""The effect of memory on the heartbeat function: `python -m bench --only memory`, the table of docs/costs.md.

More memory comes with a larger share of a CPU. Each size is measured like cold starts: initialized with a full CPU,
then responding with the share of that size.
"""

from statistics import median

from bench.cold_starts import OURS, Runs, environment
from bench.costs import prices
from bench.figures import Figure, compared
from bench.stage import Stage
from local import template

SIZES = (128, 256, 512, 1024)
WARM = 30


def measure(stage: Stage) -> list[Figure]:
    function = template.load().function("heartbeat")
    figures: list[Figure] = []
    usual: dict[str, float] = {}
    with environment(stage) as variables:
        runs = Runs(function, variables)
        runs.start(OURS)  # warms up the disk cache
        for size in sorted(SIZES, key=lambda size: size != function.memory):
            starts = [runs.start(OURS, size, WARM) for _ in range(stage.sizes.starts)]
            first, warm = (median(getattr(start, name) for start in starts) for name in ("first", "warm"))
            usual = usual or {"first": first, "warm": warm}
            against = f"at {function.memory} MB"
            note = f"{million(size, warm):.2f} USD a million at this duration"
            figures.append(compared(f"{size} MB: first answer", against, usual["first"], first, "ms"))
            figures.append(compared(f"{size} MB: a warm answer", against, usual["warm"], warm, "ms", note))
    return figures


def million(size: float, milliseconds: float) -> float:
    """USD for a million responses of this duration; Lambda bills whole milliseconds, at least one."""
    seconds = max(round(milliseconds + 0.499), 1) / 1000
    return float(prices()["lambda"]["million_requests"] + 1e6 * seconds * size / 1024 * prices()["lambda"]["gb_second"])
