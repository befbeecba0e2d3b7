"""A run that goes on after damage, a kill between two rows, or beside another process: every step once, every number as it would be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.reasons import has_reason
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import STEPS, RecordingProgress, Train
from tests.recipes.test_grpo import only_run

from journeyman.errors import SettingError, StoreError
from journeyman.evaluation import Report
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import mcp
from journeyman.recipes.settings import McpTrain
from journeyman.store import Store
from journeyman.store.locks import RunLock
from journeyman.store.runs import Runs
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Dpo, Grpo, Sft


def damage(home: Path, *steps: int, run: str = "one") -> None:
    """Nobody can read the checkpoints of these steps any more."""
    for step in steps:
        (home / "runs" / run / "checkpoints" / f"step-{step:06d}" / "checkpoint.json").write_text("{")


def rows_of(home: Path, run: str = "one") -> list[tuple[str, int, dict[str, float]]]:
    """What does not depend on how fast the machine is."""
    with Store.open(home) as store:
        found = store.runs.steps(run)
    timed = ("second", "probe_change", "num_kept")
    return sorted(
        (row.phase, row.step, {name: value for name, value in row.metrics.items() if not any(word in name for word in timed)})
        for row in found
    )


@pytest.mark.parametrize(("method", "num_damaged"), [("grpo", 1), ("grpo", 2), ("sft", 2), ("dpo", 2)])
async def test_after_damaged_checkpoints_the_run_ends_as_one_that_was_never_stopped(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path, method: str, num_damaged: int
) -> None:
    train, home = methods[method], tmp_path / "damaged"
    await train(tmp_path / "whole", SilentProgress())
    weight, attempted = model.trainers[-1].weight, model.tasks()
    model.forget()
    await stopped_after(model, train(home, SilentProgress()), step=3)
    damage(home, *(3, 2)[:num_damaged])
    model.forget()
    progress = RecordingProgress()
    await train(home, progress, resume=True)
    last = 3 - num_damaged
    assert model.trainers[-1].step == STEPS
    assert model.trainers[-1].weight == pytest.approx(weight, rel=1e-12)
    assert rows_of(home) == rows_of(tmp_path / "whole")
    assert f"resumed at step {last}" in progress.notes
    assert any("step-000003 is damaged" in warning for warning in progress.warnings)
    assert any(f"after step {last} is set aside" in warning for warning in progress.warnings)
    assert progress.steps == list(range(last + 1, STEPS + 1))
    if method == "grpo":
        # The attempts of the step that comes next are there; those of versions that are made again are made again.
        made_anew = [f"doubler@{step}" for step in range(last + 1, STEPS)]
        assert {name: model.tasks()[name] for name in made_anew} == {name: attempted[name] for name in made_anew}
    await train(home, SilentProgress(), resume=True, steps=STEPS + 1)
    assert model.trainers[-1].step == STEPS + 1


async def stopped_after(model: FakeModel, training: Awaitable[Report], *, step: int) -> None:
    """The run is stopped inside the step after `step`."""
    task = asyncio.ensure_future(training)
    loop = asyncio.get_running_loop()
    model.stop_at, model.stop = step, lambda: loop.call_soon_threadsafe(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    model.stop_at = None


async def test_drills_after_a_damaged_checkpoint_are_made_again_and_counted_once(
    model: FakeModel, settings: McpTrain, tmp_path: Path
) -> None:
    def after_three_drills(task: str, number: int) -> bool:
        return model.trainers[-1].step > 2 and number % 2 == 1

    model.is_right = after_three_drills
    warm = settings.warm_start.model_copy(update={"max_updates": 30, "updates_per_probe": 2, "min_executed": 0.4})
    short = settings.model_copy(update={"warm_start": warm, "num_heldout": 1})
    await mcp.train(short, SilentProgress(), home=tmp_path / "whole", run="one")
    weight = model.trainers[-1].weight
    model.forget()
    await stopped_after(model, mcp.train(short, SilentProgress(), home=tmp_path / "damaged", run="one"), step=2)
    damage(tmp_path / "damaged", 2)
    model.forget()
    progress = RecordingProgress()
    await mcp.train(short, progress, home=tmp_path / "damaged", resume="one")
    assert "resumed at step 1" in progress.notes
    probes = [("eval", step) for step in range(4)]
    expected = [*probes, ("train", 4), ("train", 5), ("warmup", 1), ("warmup", 2), ("warmup", 3)]
    assert [row[:2] for row in rows_of(tmp_path / "damaged")] == [row[:2] for row in rows_of(tmp_path / "whole")] == expected
    assert model.trainers[-1].step == 5
    # The fake weight is a sum in the order in which attempts ended.
    assert model.trainers[-1].weight == pytest.approx(weight, rel=1e-12)


async def test_a_run_whose_checkpoints_are_all_damaged_ends_with_that_and_not_with_untrained_weights(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path
) -> None:
    await methods["grpo"](tmp_path / "home", SilentProgress(), steps=2)
    before = rows_of(tmp_path / "home")
    damage(tmp_path / "home", 0, 1, 2)
    with pytest.raises(StoreError, match=r"no checkpoint of this run can be read.*step-000002.*step-000001.*step-000000"):
        await methods["grpo"](tmp_path / "home", SilentProgress(), resume=True)
    assert rows_of(tmp_path / "home") == before
    assert only_run(tmp_path / "home").state == "failed"


@pytest.mark.parametrize("method", ["grpo", "sft", "dpo"])
async def test_a_second_process_that_would_go_on_with_a_live_run_changes_nothing_of_it(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path, method: str
) -> None:
    train, home = methods[method], tmp_path / "home"
    await train(home, SilentProgress(), steps=2)
    with Store.open(home) as store:
        store.runs.update("one", state="running", phase="train")
    before, rows_before = only_run(home), rows_of(home)
    folder = home / "runs" / "one"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lock = RunLock(folder / ".training.lock", "one")  # the process that trains it
    files[folder / ".training.lock"] = (folder / ".training.lock").read_bytes()
    changed = {"dpo": Dpo(learning_rate=0.5)} if method == "dpo" else {"sft": Sft(learning_rate=0.5)}
    if method == "grpo":
        changed = {"grpo": Grpo(learning_rate=0.5)}
    with pytest.raises(StoreError, match=r"run 'one' is being trained by another process \(id \d+\)"):
        await train(home, SilentProgress(), resume=True, allow=True, steps=9, **changed)
    lock.release()
    assert only_run(home) == before
    assert rows_of(home) == rows_before
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


@contextmanager
def full_disk(*, step: int) -> Iterator[None]:
    """The row of that step cannot be written, as when the process is killed right before it."""
    real = Runs.add_step

    def add(runs: Runs, row: StepMetrics) -> None:
        if row.step == step and row.phase == "train":
            raise StoreError("the disk is full")
        real(runs, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runs, "add_step", add)
        yield


@pytest.mark.parametrize("method", ["grpo", "sft", "dpo"])
async def test_a_row_that_could_not_be_written_is_there_when_the_run_goes_on(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path, method: str
) -> None:
    train, home = methods[method], tmp_path / "killed"
    await train(tmp_path / "whole", SilentProgress())
    weight = model.trainers[-1].weight
    model.forget()
    with full_disk(step=2):
        await stopped_after(model, train(home, SilentProgress()), step=2)
    assert ("train", 2) not in [row[:2] for row in rows_of(home)]
    model.forget()
    await train(home, SilentProgress(), resume=True)
    assert rows_of(home) == rows_of(tmp_path / "whole")
    assert model.trainers[-1].weight == weight


@pytest.mark.parametrize("method", ["sft", "dpo"])
async def test_a_step_that_was_made_is_not_asked_for_again_under_another_schedule(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path, method: str
) -> None:
    train, home = methods[method], tmp_path / "home"
    with full_disk(step=2):
        await train(home, SilentProgress(), steps=2)
    await train(home, SilentProgress(), resume=True, steps=STEPS + 2)
    assert [row[1] for row in rows_of(home) if row[0] == "train"] == list(range(1, STEPS + 3))


async def test_a_run_does_not_go_on_with_fewer_tasks_than_it_began_with(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path
) -> None:
    train, home = methods["grpo"], tmp_path / "home"
    await train(home, SilentProgress(), steps=1)
    tasks = home / "runs" / "one" / "scenarios.jsonl"
    whole = tasks.read_text()
    tasks.write_text("".join(whole.splitlines(keepends=True)[:3]))
    with pytest.raises(SettingError, check=has_reason("other_data")):
        await train(home, SilentProgress(), resume=True, steps=2)
    tasks.write_text(whole)
    await train(home, SilentProgress(), resume=True, steps=2)
    # A run of an earlier version has no hash: it is kept from now on.
    tasks.with_suffix(".sha256").unlink()
    await train(home, SilentProgress(), resume=True, steps=3)
    assert tasks.with_suffix(".sha256").read_text().endswith(" 8\n")


async def test_a_hash_of_examples_that_a_power_loss_left_empty_does_not_stop_the_run(
    model: FakeModel, methods: Mapping[str, Train], tmp_path: Path
) -> None:
    train, home = methods["sft"], tmp_path / "home"
    await train(home, SilentProgress(), steps=1)
    (home / "runs" / "one" / "examples.sha256").write_text("")
    await train(home, SilentProgress(), resume=True, steps=2)
    assert len((home / "runs" / "one" / "examples.sha256").read_text()) == 65
