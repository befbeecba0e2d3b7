"""Pictures of numbers: curves over steps and bars with intervals as PNG (matplotlib, no display needed), and charts in characters."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from journeyman.evaluation.statistics import Interval

GREY, BLUE, AMBER, GREEN, PURPLE, RED = "#8a8f98", "#2563a8", "#d08a2e", "#2e8b57", "#7b4fa3", "#b3402f"
_COLOURS = (GREY, AMBER, BLUE, GREEN, PURPLE, RED)
_INCHES = (8.0, 4.2)
_LINE_CHARS, _MAX_LINES = 88, 3
_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Point:
    """One reading of a series over steps; `low` and `high` bound its 95 % interval where the run measured one."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: Sequence[Point]
    colour: str


@dataclass(frozen=True, slots=True)
class Level:
    """A line across the bars, in their unit; a band where it has an interval."""

    name: str
    value: float
    colour: str
    interval: Interval | None = None


def draw_curves(path: Path, title: str, curves: Sequence[Curve], *, x_name: str, y_name: str = "", top: float | None = None) -> None:
    """Curves over steps with their 95 % bands, from 0 to `top`."""
    figure, axes = _new_figure(title)
    for curve in curves:
        _draw_curve(axes, curve)
    axes.set_xlabel(x_name)
    # One tick is enough: matplotlib would make two of a single step, and none of them a whole number.
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_ylabel(y_name)
    axes.set_ylim(0.0, top)
    axes.legend(loc="upper left" if top is not None else "upper right", frameon=False)
    _save(figure, path)


def _draw_curve(axes: Any, curve: Curve) -> None:
    if not curve.points:
        return
    steps, values = [point.step for point in curve.points], [point.value for point in curve.points]
    axes.plot(steps, values, color=curve.colour, marker="o" if len(steps) <= 40 else None, markersize=3.5, label=curve.name)
    banded = [point for point in curve.points if point.low is not None and point.high is not None]
    at = [point.step for point in banded]
    low, high = [point.low for point in banded], [point.high for point in banded]
    if len(banded) == 1:  # a band has no width there
        axes.vlines(at, low, high, color=curve.colour, alpha=0.3)
    else:
        axes.fill_between(at, low, high, color=curve.colour, alpha=0.15, linewidth=0)


def draw_bars(
    path: Path,
    title: str,
    groups: Sequence[str],
    bars: Mapping[str, Sequence[Interval | None]],
    *,
    y_name: str,
    levels: Sequence[Level] = (),
) -> None:
    """Proportions in % with their intervals: a bar by name in each group, None where there is none."""
    figure, axes = _new_figure(title)
    width = min(0.22, 0.8 / max(1, len(bars)))
    for number, (name, intervals) in enumerate(bars.items()):
        shown = [(place, interval) for place, interval in enumerate(intervals) if interval is not None]
        at = [place + (number - (len(bars) - 1) / 2) * width * 1.1 for place, _ in shown]
        means = [100 * interval.mean for _, interval in shown]
        below = [100 * max(0.0, interval.mean - interval.low) for _, interval in shown]
        above = [100 * max(0.0, interval.high - interval.mean) for _, interval in shown]
        axes.bar(at, means, width, color=_COLOURS[number % len(_COLOURS)], label=label(name))
        axes.errorbar(at, means, yerr=[below, above], fmt="none", ecolor="#222222", capsize=4, linewidth=1.2)
        for x, mean, rest in zip(at, means, above, strict=True):
            axes.text(x, mean + rest + 2, f"{mean:.0f} %", ha="center", fontsize=8)
    for level in levels:
        if level.interval is not None:
            axes.axhspan(100 * level.interval.low, 100 * level.interval.high, color=level.colour, alpha=0.12, linewidth=0)
        axes.axhline(100 * level.value, color=level.colour, linewidth=1.5, linestyle="--", label=label(level.name))
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0.0, 108.0)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(y_name)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize=9)
    _save(figure, path)


def label(text: str) -> str:
    """One line of foreign text as matplotlib shows it: no formula, not hidden from the legend, and a box for each sign its font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(sign if font.get_char_index(ord(sign)) else "\u25a1" for sign in textwrap.shorten(text, _LINE_CHARS, placeholder=" …"))
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")


def _new_figure(title: str) -> tuple[Any, Any]:
    """An empty figure and its axes; the title is broken into lines: a server's command may be long."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure without pyplot: no global state, no display, safe in a thread.
    figure = Figure(figsize=_INCHES, dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    lines = textwrap.wrap(title, _LINE_CHARS, max_lines=_MAX_LINES, placeholder=" …")
    axes.set_title("\n".join(map(label, lines)), loc="left", fontsize=11)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="png")


def chart_lines(points: Sequence[Point], *, width: int = 64, height: int = 8, top: float = 1.0) -> list[str]:
    """Columns from 0 to `top`, one per step; more steps than `width` are averaged into columns. Empty without points.

    Example:
        >>> print("\\n".join(chart_lines([Point(1, 0.5), Point(2, 1.0)], width=2, height=2)))
        1.0 ┤ █
        0.5 ┤██
            └──
             step 1 to 2
    """
    if not points:
        return []
    values = [point.value for point in points]
    if len(values) > width:
        edges = [round(index * len(values) / width) for index in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    wide = max(1, min(3, width // len(values)))
    lines = []
    for row in range(height, 0, -1):
        cells = [_EIGHTHS[max(0, min(8, round((min(value, top) / top * height - (row - 1)) * 8)))] for value in values]
        lines.append(f"{top * row / height:.1f} ┤" + "".join(cell * wide for cell in cells).rstrip())
    lines.append("    └" + "─" * (len(values) * wide))
    return [*lines, f"     step {points[0].step}" + (f" to {points[-1].step}" if len(points) > 1 else "")]
