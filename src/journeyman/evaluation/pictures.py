"""The report's pictures: reward and success per step, and held-out success by variant, as PNG (matplotlib, no display needed)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from journeyman.evaluation.heldout import EvaluationSummary
from journeyman.evaluation.report import HELDOUT_LOSS, LOSS, RANKED_RIGHT, REWARD, SUCCESS, Point, Report, series

_BLUE, _GREEN, _GREY = "#2563a8", "#2e8b57", "#8a8f98"
_INCHES = (8.0, 4.2)
_LINE_CHARS, _MAX_LINES = 88, 3


def draw_steps(report: Report, path: Path) -> Path | None:
    """Reward and success per training step with their 95 % bands. None when the run has no steps with rewards."""
    reward, success = series(report.steps, REWARD), series(report.steps, SUCCESS)
    if not reward and not success:
        return None
    figure, axes = new_figure()
    _draw_series(axes, reward, _BLUE, "reward (mean)")
    _draw_series(axes, success, _GREEN, "success (share of attempts)")
    _name_steps(axes, "training step")
    axes.set_ylabel("0 to 1; bands: 95 % interval over scenarios")
    axes.set_ylim(0.0, 1.02)
    set_title(axes, f"{report.title}: training attempts per step")
    axes.legend(loc="upper left", frameon=False)
    return save_figure(figure, path)


def draw_loss(report: Report, path: Path) -> Path | None:
    """Loss over the steps, of training and of held-out examples, and held-out pairs ranked right. None without held-out examples."""
    heldout = series(report.steps, HELDOUT_LOSS, "eval")
    if not heldout:
        return None
    figure, axes = new_figure()
    _draw_series(axes, series(report.steps, LOSS), _GREY, "training loss of the step")
    _draw_series(axes, heldout, _BLUE, "held-out loss, a token")
    _draw_series(axes, series(report.steps, RANKED_RIGHT, "eval"), _GREEN, "held-out pairs ranked right (share)")
    _name_steps(axes, "steps made")
    axes.set_ylim(bottom=0.0)
    set_title(axes, f"{report.title}: loss")
    axes.legend(loc="upper right", frameon=False)
    return save_figure(figure, path)


def draw_heldout(report: Report, path: Path) -> Path | None:
    """Held-out success of each variant with 95 % intervals, one group of bars per evaluation. None without an evaluation."""
    if not report.evaluations:
        return None
    figure, axes = new_figure()
    names = [one.name for one in report.evaluations[0].variants]
    colours = [_GREY, "#d08a2e", _BLUE, _GREEN]
    num = len(report.evaluations)
    for place, evaluation in enumerate(report.evaluations):
        _draw_bars(axes, evaluation, names, place, colours)
    axes.set_xticks(range(num), [f"{one.sampling}\n{one.num_scenarios} scenarios" for one in report.evaluations])
    axes.set_xlim(-0.6, num - 0.4)
    axes.set_ylim(0.0, 108.0)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("success in %, 95 % interval")
    set_title(axes, f"{report.title}: held-out success")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(names), frameon=False)
    return save_figure(figure, path)


def set_title(axes: Any, text: str) -> None:
    """The title, broken into lines: a server's command may be long."""
    lines = textwrap.wrap(text, _LINE_CHARS, max_lines=_MAX_LINES, placeholder=" …")
    axes.set_title("\n".join(map(label, lines)), loc="left", fontsize=11)


def label(text: str) -> str:
    """One line of foreign text as matplotlib shows it: no formula, not hidden from the legend, and a box for each sign its font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(sign if font.get_char_index(ord(sign)) else "\u25a1" for sign in textwrap.shorten(text, _LINE_CHARS, placeholder=" …"))
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")


def _draw_bars(axes: Any, evaluation: EvaluationSummary, names: Sequence[str], place: int, colours: Sequence[str]) -> None:
    width = min(0.22, 0.8 / max(1, len(names)))
    for index, name in enumerate(names):
        found = [one for one in evaluation.variants if one.name == name]
        if not found:
            continue
        success = found[0].success
        x = place + (index - (len(names) - 1) / 2) * width * 1.15
        errors = [[100 * max(0.0, success.mean - success.low)], [100 * max(0.0, success.high - success.mean)]]
        axes.bar(x, 100 * success.mean, width, color=colours[index % len(colours)], label=label(name) if place == 0 else None)
        axes.errorbar(x, 100 * success.mean, yerr=errors, color="#222222", capsize=4, linewidth=1.2)
        axes.text(x, 100 * success.high + 2, f"{100 * success.mean:.0f} %", ha="center", fontsize=9)


def _name_steps(axes: Any, name: str) -> None:
    axes.set_xlabel(name)
    # One tick is enough: matplotlib would make two of a single step, and none of them a whole number.
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _draw_series(axes: Any, points: Sequence[Point], colour: str, name: str) -> None:
    if not points:
        return
    steps = [point.step for point in points]
    marker = "o" if len(points) <= 40 else None
    axes.plot(steps, [point.value for point in points], color=colour, marker=marker, markersize=3.5, label=name)
    banded = [point for point in points if point.low is not None and point.high is not None]
    at = [point.step for point in banded]
    low, high = [point.low for point in banded], [point.high for point in banded]
    if len(banded) == 1:  # a band has no width there
        axes.vlines(at, low, high, color=colour, alpha=0.3)
    else:
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)


def new_figure() -> tuple[Any, Any]:
    """An empty figure and its axes, in the look of every picture here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure without pyplot: no global state, no display, safe in a thread.
    figure = Figure(figsize=_INCHES, dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG; returns its path."""
    figure.savefig(path, format="png")
    return path
