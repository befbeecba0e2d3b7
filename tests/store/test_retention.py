"""What is kept of a run: the newest, the best, every n-th; and what a process serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.store.checkpoints import kept_steps, missing_metric, version_scores
from journeyman.store.locks import ServedFolder, is_served
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Retention

SCORES = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.1}


@pytest.mark.parametrize(
    ("retention", "newest", "kept"),
    [
        (Retention(best=0), 2, {8, 9}),
        (Retention(best=1), 2, {3, 8, 9}),  # the newest of two that are equally good
        (Retention(best=2), 1, {2, 3, 9}),
        (Retention(best=9), 1, {1, 2, 3, 4, 9}),
        (Retention(best=1, best_is="lowest"), 1, {4, 9}),
        (Retention(best=3, best_is="lowest"), 1, {1, 3, 4, 9}),
        (Retention(best=0, every=4), 1, {0, 4, 8, 9}),
        (Retention(best=1, every=5), 20, set(range(10))),
    ],
)
def test_the_newest_the_best_and_every_nth_are_kept(retention: Retention, newest: int, kept: set[int]) -> None:
    assert kept_steps(range(10), newest, retention, SCORES) == kept


def test_a_step_that_is_gone_does_not_come_back_for_its_score() -> None:
    assert kept_steps([3, 4, 5], 1, Retention(best=1), {1: 1.0, 3: 0.2, 4: 0.3}) == {4, 5}


def test_more_may_be_asked_for_than_there_are_scores() -> None:
    assert kept_steps(range(6), 1, Retention(best=3), {1: 0.5, 2: 0.9}) == {1, 2, 5}


def test_a_training_metric_tells_about_the_version_that_made_the_attempts() -> None:
    rows = [
        StepMetrics(run="r", phase=phase, step=step, time=0.0, metrics=metrics)
        for phase, step, metrics in [("train", 3, {"reward/mean": 0.7}), ("train", 4, {}), ("eval", 5, {"reward/mean": 0.9})]
    ]
    assert version_scores(rows, "reward/mean") == {2: 0.7, 5: 0.9}


def train_rows(count: int, phase: str = "train") -> list[StepMetrics]:
    metrics = {"train/reward_mean": 0.5, "reward/success": 0.25}
    return [StepMetrics(run="r", phase=phase, step=step, time=0.0, metrics=metrics) for step in range(1, count + 1)]


def test_a_metric_that_no_step_has_is_told_of_with_those_near_it_or_all() -> None:
    line = missing_metric(train_rows(2), Retention(metric="train/reward_meen"))
    assert line is not None
    assert "'train/reward_meen'" in line
    assert "did you mean train/reward_mean?" in line
    assert "reward/success, train/reward_mean" in str(missing_metric(train_rows(2), Retention(metric="x")))
    others = [row.model_copy(update={"metrics": {"train/loss": 0.5}}) for row in train_rows(2)]
    assert "'train/reward_mean'" in str(missing_metric(others, Retention(best=2)))


@pytest.mark.parametrize(
    ("rows", "retention"),
    [
        (train_rows(2), Retention(metric="reward/success")),
        (train_rows(2), Retention(metric="x", best=0)),
        (train_rows(1), Retention(metric="x")),  # a program adds its own after the step
        (train_rows(9, "warmup"), Retention(metric="x")),
        ([row.model_copy(update={"metrics": {}}) for row in train_rows(2)], Retention()),  # nothing was chosen
    ],
)
def test_a_metric_that_is_there_or_may_come_is_not_told_of(rows: list[StepMetrics], retention: Retention) -> None:
    assert missing_metric(rows, retention) is None


def test_a_folder_is_served_while_anybody_holds_it(tmp_path: Path) -> None:
    assert not is_served(tmp_path)
    first, second = ServedFolder(tmp_path), ServedFolder(tmp_path)
    first.release()
    assert is_served(tmp_path)
    second.release()
    assert not is_served(tmp_path)
    assert not is_served(tmp_path / "none")
