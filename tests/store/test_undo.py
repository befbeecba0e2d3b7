"""Back to an earlier step: nothing that the store has of later ones is found any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journeyman.store import Store
from journeyman.store.models import AdapterRow
from journeyman.store.rollouts import RolloutRow
from journeyman.store.runs import JobRow
from journeyman.types.runs import StepMetrics
from journeyman.types.training import FinishRollout, JobStatus, TrainResult


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A run whose model `m_1` has made 12 steps; and another run."""
    with Store.open(tmp_path / "home") as opened:
        for run in ("r", "other"):
            opened.runs.create(run, kind="model", base="b")
            opened.runs.update(run, step=12)
            for step in (2, 3, 12):
                opened.runs.add_step(StepMetrics(run=run, phase="train", step=step, time=step, metrics={"a": 1.0}))
                opened.models.add_adapter(AdapterRow(run, "m_1", step, opened.home.run(run).adapters / f"m_1@{step}", "f"))
                opened.jobs.add(JobRow(run, "m_1", "grpo", f"{run}-{step}", "hash", JobStatus(id=f"{run}{step}", state="queued")))
                result = TrainResult(step=step, adapter=f"m_1@{step}", metrics={})
                opened.jobs.set_status(JobStatus(id=f"{run}{step}", state="done", result=result))
                name = f"{run}-{step}"
                opened.rollouts.open(RolloutRow(name, f"m_1@{step}", "s", 1, run=run, key="train/0"), name)
                opened.rollouts.seal(name, FinishRollout())
        opened.runs.add_step(StepMetrics(run="r", phase="eval", step=12, time=12.5, metrics={"b": 1.0}))
        yield opened


def test_rows_versions_keys_and_attempts_of_later_steps_are_forgotten_and_earlier_ones_are_not(store: Store) -> None:
    undone = store.undo_after("r", "m_1", 2)
    assert (undone.steps, [row.step for row in undone.adapters]) == ((3, 12), [3, 12])
    assert [row.step for row in store.runs.steps("r")] == [2]
    assert store.runs.get("r").step == 2
    assert [row.step for row in store.models.adapters("r", "m_1")] == [2]
    assert [step for step in (2, 3, 12) if store.jobs.find("r", "m_1", f"r-{step}") is not None] == [2]
    assert store.jobs.get("r12").status.state == "done"
    assert [step for step in (2, 3, 12) if store.rollouts.list_keyed("r", f"m_1@{step}", "train")] == [2]
    assert store.rollouts.trajectory("r-12").model == "m_1@12"


def test_another_run_stays_as_it_is_and_so_does_one_that_has_no_later_steps(store: Store) -> None:
    before = store.runs.get("other")
    store.undo_after("r", "m_1", 2)
    again = store.undo_after("r", "m_1", 2)
    assert (again.steps, again.adapters) == ((), ())
    assert store.runs.get("other") == before
    assert [row.step for row in store.runs.steps("other")] == [2, 3, 12]
    assert len(store.models.adapters("other", "m_1")) == 3
    assert store.jobs.find("other", "m_1", "other-12") is not None
    assert store.rollouts.list_keyed("other", "m_1@12", "train")
