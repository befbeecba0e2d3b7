"""Who scores the attempts of `method: grpo`: reward functions named by dotted path, a model, both, or the rollout function itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from journeyman.errors import REWARD_FAILED, JudgeError
from journeyman.observe.progress import Progress
from journeyman.recipes.dotted_path import load_function
from journeyman.recipes.grpo_settings import GrpoTrain, ModelJudge
from journeyman.rewards import Rubric, Ruler, RulerOptions
from journeyman.rewards.judge import Judge
from journeyman.rewards.rubric import Part, RewardFunction
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Verdict


class OwnReward:
    """Takes the reward that the rollout function set on its run; an attempt without one is left out."""

    name = "rollout"
    description = "0 to 1, as the rollout function sets run.reward"

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        """A reward outside 0 to 1 is missing at that attempt. Raises JudgeError (`reward_failed`) where all that were set are."""
        own = [one.reward for group in groups for one in group if one.error is None and one.reward is not None]
        wrong = [reward for reward in own if not 0.0 <= reward <= 1.0]
        if wrong and len(wrong) == len(own):
            raise JudgeError(_out_of_range(wrong[0]), hint="set run.reward to a number from 0 to 1", reason=REWARD_FAILED)
        return [group.model_copy(update={"trajectories": tuple(_with_own_reward(one) for one in group)}) for group in groups]


def reward_functions(rewards: Mapping[str, float]) -> list[tuple[RewardFunction, float]]:
    """The functions at these dotted paths with their weights. Raises SettingError for one that cannot be used."""
    return [
        (_of_ended(load_function(path, setting="rewards", parameters=("scenario", "trajectory"))), weight)
        for path, weight in rewards.items()
    ]


def make_judge(settings: GrpoTrain, *, run: str, home: Path, progress: Progress) -> tuple[Judge, Ruler | None]:
    """Who scores, and the model among it, which must be closed. Raises SettingError, LlmError as `Ruler` does."""
    ruler = None if settings.judge is None else _ruler(settings.judge, run, home, progress)
    functions = reward_functions(settings.rewards)
    if not functions:
        return ruler or OwnReward(), ruler
    parts: list[tuple[Part, float]] = [*functions]
    return Rubric(parts if ruler is None else [(ruler, 1.0), *parts]), ruler


def _ruler(judge: ModelJudge, run: str, home: Path, progress: Progress) -> Ruler:
    options = RulerOptions(rubric=judge.rubric, budget=judge.budget)
    return Ruler(judge.model, options=options, home=home, run=run, warn=progress.warn)


def _of_ended(function: Callable[..., Any]) -> RewardFunction:
    """The function, told only of attempts that ended by themselves."""

    @functools.wraps(function)
    async def reward(scenario: Scenario, trajectory: Trajectory) -> float | None:
        # What broke the attempt (a server, a time limit) is no judgement of the model: without reward it is left out and counted.
        if trajectory.error is not None:
            return None
        value = function(scenario, trajectory)
        return await value if inspect.isawaitable(value) else value  # type: ignore[no-any-return]

    return reward


def _with_own_reward(attempt: Trajectory) -> Trajectory:
    reward = attempt.reward if attempt.error is None else None
    explanation = ""
    if reward is None:
        explanation = "the rollout set no reward" if attempt.error is None else f"the attempt failed: {attempt.error.type}"
    elif not 0.0 <= reward <= 1.0:
        explanation, reward = _out_of_range(reward), None
    return attempt.model_copy(update={"reward": reward, "verdict": Verdict(judge="rollout", score=reward, explanation=explanation)})


def _out_of_range(reward: float) -> str:
    return f"the rollout set the reward {reward:g}, which is not from 0 to 1"
