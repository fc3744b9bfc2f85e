"""A chart of how queues drain, as an SVG in the console's colours for light and dark pages."""

from collections.abc import Iterator
from itertools import pairwise

Curve = list[tuple[float, int]]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 60, 32, 44, 48
COLOURS = ("muted", "accent", "good")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #17202c } .muted { stroke: #8290a3 } .accent { stroke: #0f5cbf }
.good { stroke: #17713a } .grid { stroke: #d8dee7 } .back { fill: #ffffff } path { fill: none; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) { text { fill: #e5ebf3 } .muted { stroke: #6c7c92 } .accent { stroke: #79b4ff }
.good { stroke: #62d28a } .grid { stroke: #2b3644 } .back { fill: #161d27 } }
"""


def svg(lines: dict[str, list[Curve]], devices: int) -> str:
    """The chart. lines: by name, the curves of parallel processes: (seconds, accepted so far)."""
    merged = {name: _merged(curves) for name, curves in lines.items()}
    seconds = max(points[-1][0] for points in merged.values())
    total = max(points[-1][1] for points in merged.values())
    return "\n".join(_drawn(merged, seconds, total, devices)) + "\n"


def _merged(curves: list[Curve]) -> Curve:
    """A single curve of the sum, thinned to a visible number of points."""
    steps = sorted((at, now - before) for curve in curves for (_, before), (at, now) in pairwise(curve))
    points, accepted = [(0.0, 0)], 0
    for at, count in steps:
        accepted += count
        points.append((at, accepted))
    every = max(1, len(points) // 200)
    return [*points[::every], points[-1]]


def _drawn(merged: dict[str, Curve], seconds: float, total: int, devices: int) -> Iterator[str]:
    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * count / total

    title = f"{devices:,} devices return after an hour: reports accepted over time".replace(",", " ")
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    yield f"<style>{STYLE}</style>"
    yield f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    yield f'<text x="{LEFT}" y="26" font-weight="600">{title}</text>'
    for part in range(5):
        count, at = total * part / 4, seconds * part / 4
        yield f'<path class="grid" style="stroke-width:1" d="M{LEFT} {y(count):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count / 1000:.1f}k</text>'
        yield f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{at:.0f} s</text>'
    for number, ((name, points), colour) in enumerate(zip(merged.items(), COLOURS, strict=True)):
        path = "L".join(f"{x(at):.1f} {y(count):.1f}" for at, count in points)
        yield f'<path class="{colour}" d="M{path}"/>'
        left = LEFT + number * 220
        yield f'<path class="{colour}" d="M{left} {HEIGHT - 12}h24"/>'
        yield f'<text x="{left + 30}" y="{HEIGHT - 8}">{name}, {points[-1][1] / points[-1][0]:,.0f}/s</text>'
    yield "</svg>"
