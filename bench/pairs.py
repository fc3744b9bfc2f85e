"""Times several jobs alternately, so that other load on the machine affects them equally."""

import random
import time
from collections.abc import Callable
from statistics import median

from bench.figures import Figure, at_most

Job = Callable[[], object]
Took = dict[str, list[float]]
WARM_UP = 30
PARTS = 5


def interleaved(
    rounds: int, prepare: Callable[[int], dict[str, Job]], warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Milliseconds of each job in each round; the order within a round is random.

    prepare: creates the jobs of one round; it is not timed.
    """
    took: Took = {}
    rng = random.Random(8)  # noqa: S311
    for number in range(rounds + warm_up):
        jobs = list(prepare(number).items())
        rng.shuffle(jobs)
        for name, job in jobs:
            start = time.perf_counter()
            job()
            elapsed = (time.perf_counter() - start) * 1000
            if number >= warm_up:
                took.setdefault(name, []).append(elapsed)
    return took


def spread_of(floor: list[float], measured: list[float], of: Callable[[list[float]], float] = median) -> float:
    """The relative difference of the ratio measured : floor between five parts of the run."""
    size = max(1, min(len(floor), len(measured)) // PARTS)
    starts = range(0, size * min(PARTS, len(floor)), size)
    ratios = [of(measured[n : n + size]) / of(floor[n : n + size]) for n in starts]
    middle = median(ratios)
    return max(abs(ratio / middle - 1) for ratio in ratios) if middle else 0


def medians_at_most(bar: float, what: str, against: str, floor: list[float], measured: list[float]) -> Figure:
    """at_most of the medians, in ms, with the spread of their ratio."""
    return at_most(bar, what, against, median(floor), median(measured), "ms", spread=spread_of(floor, measured))
