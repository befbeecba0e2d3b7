"""The loop of reinforcement learning: what it says where groups stay without spread (where they lie decides, not their mean), and that a
step that was stopped has the same rewards when it is resumed, whatever had ended by then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.recipes.backend import FakeModel
from tests.recipes.own_functions import module_of

from journeyman.errors import JudgeError
from journeyman.observe.progress import SilentProgress
from journeyman.observe.reward_health import Metrics, without_spread_advice
from journeyman.recipes.grpo import train
from journeyman.recipes.loop import nothing_to_learn
from journeyman.recipes.settings import ChatOrFunction, GrpoTrain


def step(mean: float, bottom: float, top: float, **kinds: float) -> Metrics:
    metrics = {"reward/mean": mean, "reward/success": mean, "reward/with_spread": 0.0, "reward/num_groups": bottom + top}
    alike = {"reward/num_alike_at_bottom": bottom, "reward/num_alike_at_top": top, "rollout/executed": 1.0}
    return metrics | alike | {f"reward/kind/{name}": rate for name, rate in kinds.items()}


SOLVED = "solves these tasks already"


@pytest.mark.parametrize(
    ("steps", "named", "unnamed"),
    [
        ([step(1.0, 0, 4)], SOLVED, "fail"),
        ([step(0.95, 0, 4, add=1.0, divide=0.9)], SOLVED, "never succeed"),
        ([step(0.67, 1, 2, add=1.0, multiply=1.0, divide=0.0)], "divide", SOLVED),
        ([step(0.95, 1, 19, add=1.0, divide=0.0)], "divide", SOLVED),
        # A kind that the last step did not have, and an earlier one had.
        ([step(0.5, 1, 1, divide=0.0, add=1.0), step(1.0, 0, 2, add=1.0)], "divide", SOLVED),
        ([step(0.0, 4, 0)], "all attempts fail", SOLVED),
        ([step(0.7, 1, 3)], "all attempts succeed", SOLVED),
        ([step(0.5, 2, 2)], "larger groups", SOLVED),
    ],
)
def test_the_advice_follows_from_where_the_groups_lie(steps: list[Metrics], named: str, unnamed: str) -> None:
    hint = str(nothing_to_learn(steps, [], without_spread_advice).hint)
    assert named in hint
    assert unnamed not in hint


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
