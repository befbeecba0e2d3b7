"""What the report's pictures show; how they look is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journeyman.evaluation import pictures
from journeyman.evaluation.pictures import Curve, Level, Point, draw_bars, draw_curves
from journeyman.evaluation.statistics import Interval


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is drawn, instead of files."""
    kept: list[Any] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: kept.append(figure))
    return kept


def steps(num_steps: int, figures: list[Any]) -> Any:
    """The axes of the picture of so many steps."""
    points = [Point(3 + number, 0.6, 0.5, 0.75) for number in range(num_steps)]
    draw_curves(Path("steps.png"), "t", [Curve("reward", points, "red"), Curve("nothing", [], "blue")], x_name="step")
    (axes,) = figures[0].axes
    return axes


@pytest.mark.parametrize("num_steps", [1, 2, 5, 30])
def test_steps_are_whole_numbers_on_the_axis(num_steps: int, figures: list[Any]) -> None:
    ticks = [float(tick) for tick in steps(num_steps, figures).get_xticks()]
    assert ticks == [round(tick) for tick in ticks]


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_interval_is_shown_of_a_single_step_too(num_steps: int, figures: list[Any]) -> None:
    (interval,) = steps(num_steps, figures).collections
    heights = [float(vertex[1]) for path in interval.get_paths() for vertex in path.vertices]
    assert (min(heights), max(heights)) == (0.5, 0.75)


def test_bars_stand_where_something_was_measured_and_each_name_is_in_the_legend(figures: list[Any]) -> None:
    half = Interval(mean=0.5, low=0.4, high=0.6)
    bars = {"_own": [half, None], "$x_{$": [half, half], "none": [None, None]}
    draw_bars(Path("bars.png"), "t", ["0 shots", "2 shots"], bars, y_name="y", levels=[Level("goal", 0.9, "grey")])
    (axes,) = figures[0].axes
    assert len(axes.patches) == 3
    assert [text.get_text().replace("\\", "").strip() for text in axes.get_legend().get_texts()] == ["goal", "_own", "$x_{$", "none"]
