"""A step that was stopped has the same rewards when it is resumed, whatever had ended by then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.recipes.backend import FakeModel
from tests.recipes.own_functions import module_of

from journeyman.errors import JudgeError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.grpo import train
from journeyman.recipes.settings import ChatOrFunction, GrpoTrain


async def test_attempts_in_progress_when_a_reward_function_fails_are_kept_and_made_once(
    model: FakeModel, one_step: GrpoTrain, tmp_path: Path
) -> None:
    # The second group cannot end before the first has been scored, and that fails.
    failing = one_step.model_copy(
        update={
            "rewards": {f"{module_of(one_step)}.breaks_first": 1.0},
            "rollout": ChatOrFunction(function=f"{module_of(one_step)}.held"),
        }
    )
    with pytest.raises(JudgeError) as caught:
        await asyncio.wait_for(train(failing, SilentProgress(), home=tmp_path, run="one"), 60)
    assert caught.value.reason == "reward_failed"
    assert model.num_drawn("doubler@0") == 4
    (tmp_path / "mended").touch()
    report = await train(failing, SilentProgress(), home=tmp_path, resume="one")
    assert [step.metrics["reward/mean"] for step in report.steps] == [0.5]
    assert model.num_drawn("doubler@0") == 4


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_step_stopped_at_any_attempt_has_the_same_rewards_when_it_is_resumed(
    model: FakeModel, one_step: GrpoTrain, tmp_path: Path, at: int
) -> None:
    loop, drawn, task = asyncio.get_running_loop(), 0, None

    def is_right(text: str, number: int) -> bool:
        nonlocal drawn
        drawn += 1
        if drawn == at and task is not None:
            loop.call_soon_threadsafe(task.cancel)
        return number % 2 == 1

    model.is_right = is_right
    task = asyncio.create_task(train(one_step, SilentProgress(), home=tmp_path, run="one"))
    await asyncio.wait([task], timeout=60)
    assert task.cancelled()
    report = await train(one_step, SilentProgress(), home=tmp_path, resume="one")
    assert [step.metrics["reward/mean"] for step in report.steps] == [0.5]
