"""What a study says: a table of means over seeds with intervals, and the picture of its curves. Plain functions on rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.cells import DEFAULT, SHARES, Panel, Study
from benchmarks.studies.rows import Row

CONFIDENCE: Final = 0.95
_PANELS_A_ROW: Final = 3
_COLOURS: Final = ("#222222", "#2563a8", "#2e8b57", "#d08a2e", "#a83279", "#5b8c9e")

Rows = Mapping[str, Sequence[Row]]
"""The finished rows of each variant, one a seed."""


def table(study: Study, rows: Rows) -> str:
    """A Markdown table: for each variant and measure mean, 95 % interval over seeds (Student's t) and range, and the difference to the
    default of the same seeds. Measures that no run has are left out."""
    measures = [(name, words) for name, words in study.measures if any(name in row.final for found in rows.values() for row in found)]
    compared = DEFAULT in rows and bool(rows[DEFAULT]) and bool(measures)
    difference = [f"{measures[0][1]}: minus default"] if compared else []
    heads = ["variant", "seeds", *(words for _, words in measures), *difference, "minutes a run"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for variant in study.variants:
        found = rows.get(variant.name, ())
        if not found:
            continue
        cells = [variant.name, str(len(found)), *(spread_text(_values(found, name), name) for name, _ in measures)]
        if compared:
            cells.append("" if variant.name == DEFAULT else _difference_text(rows[DEFAULT], found, measures[0][0]))
        lines.append(f"| {' | '.join([*cells, f'{sum(row.seconds for row in found) / len(found) / 60:.1f}'])} |")
    return "\n".join(lines)


def notes(rows: Rows, missing: Sequence[str]) -> str:
    """What to know about the table: what an interval over so few seeds is worth, what is missing, where runs shared the machine."""
    found = [row for group in rows.values() for row in group]
    lines = [
        "Brackets: 95 % interval of the mean over seeds (Student's t, so wide with three), then the lowest and highest seed.",
        f"Commits: {', '.join(sorted({row.commit for row in found})) or 'none'}.",
    ]
    if most := max((row.num_beside for row in found), default=0):
        lines.append(f"Up to {most + 1} runs shared the machine: the minutes are upper bounds.")
    if missing:
        lines.append(f"Not made yet ({len(missing)}): {', '.join(missing)}.")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over few runs, by Student's t; None for fewer than two.

    Example:
        >>> low, high = interval([0.9, 1.0, 1.1])
        >>> round(low, 3), round(high, 3)
        (0.752, 1.248)
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def band(values: Sequence[float], metric: str) -> tuple[float, float]:
    """What is said of a mean, and shaded around it: its 95 % interval, for shares within 0 and 1; no number for fewer than two values."""
    low, high = interval(values) or (math.nan, math.nan)
    return (max(low, 0.0), min(high, 1.0)) if metric in SHARES and len(values) > 1 else (low, high)


def spread_text(values: Sequence[float], metric: str) -> str:
    """Mean, interval (for shares within 0 and 1) and range: "0.950 [0.91, 0.99], 0.93–0.97"."""
    if not values:
        return ""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    low, high = band(values, metric)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}], {min(values):.3f}–{max(values):.3f}"


def draw(study: Study, rows: Rows, path: Path) -> Path | None:
    """The curves: a line for the mean over seeds, and a band for its 95 % interval. None when there is nothing to draw."""
    panels = [panel for panel in study.panels if any(curve_points(rows.get(name, ()), panel.metric) for name in panel.variants)]
    if not panels:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure without pyplot: no global state, no display.
    wide = min(len(panels), _PANELS_A_ROW)
    high = math.ceil(len(panels) / wide)
    figure = Figure(figsize=(6.0 * wide, 4.2 * high), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(high, wide, squeeze=False).flat
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel, rows)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(f"{study.title}\nmean over seeds; band: its 95 % interval (Student's t)", fontsize=11, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def curve_points(rows: Sequence[Row], metric: str) -> list[tuple[int, list[float]]]:
    """The steps at which some run has the metric, each with the values of those that have: from 1, or from 0 where it was measured before
    the first step."""
    curves = [row.curve[metric] for row in rows if metric in row.curve]
    points = [_values(rows, f"{metric}_before"), *([value for value in column if value is not None] for column in zip_longest(*curves))]
    return [(step, values) for step, values in enumerate(points) if values and curves]


def _draw_panel(axes: Any, panel: Panel, rows: Rows) -> None:
    made = [name for name in panel.variants if curve_points(rows.get(name, ()), panel.metric)]
    for name, colour in zip(made, cycle(_COLOURS), strict=False):
        drawn = curve_points(rows[name], panel.metric)
        steps = [step for step, _ in drawn]
        label = f"{name} ({max(len(values) for _, values in drawn)})"
        means = [sum(values) / len(values) for _, values in drawn]
        axes.plot(steps, means, color=colour, linewidth=1.6, marker="o", markersize=2.5, label=label)
        lows, highs = zip(*(band(values, panel.metric) for _, values in drawn), strict=True)
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.1, linewidth=0)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xlabel("training step")
    axes.set_ylabel(panel.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8, title="variant (seeds)", title_fontsize=8)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row.final[name] for row in rows if name in row.final]


def _difference_text(before: Sequence[Row], after: Sequence[Row], name: str) -> str:
    known = {row.seed: row.final[name] for row in before if name in row.final}
    differences = [row.final[name] - known[row.seed] for row in after if row.seed in known and name in row.final]
    found = interval(differences)
    if not differences:
        return ""
    mean = f"{math.fsum(differences) / len(differences):+.3f}"
    return mean if found is None else f"{mean} [{found[0]:+.3f}, {found[1]:+.3f}]"
