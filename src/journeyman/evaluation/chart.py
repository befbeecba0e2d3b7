"""A small chart of a series in characters, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from journeyman.evaluation.report import Point

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def chart_lines(points: Sequence[Point], *, width: int = 64, height: int = 8, top: float = 1.0) -> list[str]:
    """Columns from 0 to `top`, one per step; more steps than `width` are averaged into columns. Empty without points.

    Example:
        >>> print("\\n".join(chart_lines([Point(step=1, value=0.5), Point(step=2, value=1.0)], height=2)))
        1.0 ┤ █
        0.5 ┤██
            └──
             step 1 to 2
    """
    if not points:
        return []
    values = _fit([point.value for point in points], width)
    wide = max(1, min(3, width // len(values)))
    lines = []
    for row in range(height, 0, -1):
        cells = [_EIGHTHS[max(0, min(8, round((min(value, top) / top * height - (row - 1)) * 8)))] for value in values]
        lines.append(f"{top * row / height:.1f} ┤" + "".join(cell * wide for cell in cells).rstrip())
    lines.append("    └" + "─" * (len(values) * wide))
    steps = f"step {points[0].step}" + (f" to {points[-1].step}" if len(points) > 1 else "")
    return [*lines, f"     {steps}"]


def _fit(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: means of consecutive ones."""
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
