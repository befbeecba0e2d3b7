"""What the report's pictures show; how they look is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journeyman.evaluation import Report, pictures
from journeyman.types.runs import StepMetrics


def drawn(num_steps: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The axes of the picture of so many steps."""
    metrics = {"reward/mean": 0.6, "reward/low": 0.5, "reward/high": 0.75}
    steps = tuple(StepMetrics(run="r", phase="train", step=3 + number, time=0.0, metrics=metrics) for number in range(num_steps))
    kept: list[Any] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: kept.append(figure))
    pictures.draw_steps(Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0, steps=steps), Path("steps.png"))
    (axes,) = kept[0].axes
    return axes


@pytest.mark.parametrize("num_steps", [1, 2, 5, 30])
def test_steps_are_whole_numbers_on_the_axis(num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [float(tick) for tick in drawn(num_steps, monkeypatch).get_xticks()]
    assert ticks == [round(tick) for tick in ticks]


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_interval_is_shown_of_a_single_step_too(num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (interval,) = drawn(num_steps, monkeypatch).collections
    heights = [float(vertex[1]) for path in interval.get_paths() for vertex in path.vertices]
    assert (min(heights), max(heights)) == (0.5, 0.75)
