"""A series of numbers as bars in one line of text."""

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 56


def sparkline(values: Sequence[float | None], low: float | None = 0, high: float | None = None) -> str:
    """At most 56 bars, each the mean of its values; a space where there are no values.

    Args:
        low: the value of the lowest bar; None: the minimum.
        high: the value of the highest bar; None: the greatest mean.
    """
    length = -(-len(values) // WIDTH)
    parts = [values[n : n + length] for n in range(0, len(values), length)] if values else []
    means = [sum(said) / len(said) if (said := [v for v in part if v is not None]) else None for part in parts]
    known = [mean for mean in means if mean is not None]
    if not known:
        return "nothing was recorded yet"
    floor = min(known) if low is None else low
    span = (max(known) if high is None else high) - floor or 1
    return "".join(" " if mean is None else BARS[round((mean - floor) / span * (len(BARS) - 1))] for mean in means)
