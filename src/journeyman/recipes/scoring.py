"""Who scores the attempts of `method: grpo`: reward functions named by dotted path, a model, both, or the rollout function itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from journeyman.errors import JourneymanError, JudgeError
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
        """Raises JudgeError for a reward outside 0 to 1."""
        return [group.model_copy(update={"trajectories": tuple(_with_own_reward(one) for one in group)}) for group in groups]


def reward_functions(rewards: Mapping[str, float]) -> list[tuple[RewardFunction, float]]:
    """The functions at these dotted paths with their weights. Raises SettingError for one that cannot be used."""
    return [
        (_reported(load_function(path, setting="rewards", parameters=("scenario", "trajectory")), path), weight)
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


def _reported(function: Callable[..., Any], path: str) -> RewardFunction:
    """The function, told only of attempts that ended by themselves, and whose failure names it."""

    @functools.wraps(function)
    async def reward(scenario: Scenario, trajectory: Trajectory) -> float | None:
        # What broke the attempt (a server, a time limit) is no judgement of the model: without reward it is left out and counted.
        if trajectory.error is not None:
            return None
        try:
            value = function(scenario, trajectory)
            return await value if inspect.isawaitable(value) else value  # type: ignore[no-any-return]
        except JourneymanError:
            raise
        except Exception as error:  # the user's function: whatever it was, the user is told which function and which attempt
            raise JudgeError(
                f"the reward function {path} raised {type(error).__name__}: {error} (attempt {trajectory.id} at {scenario.id!r})",
                hint="mend it and go on with --resume; --debug shows the traceback",
            ) from error

    return reward


def _with_own_reward(attempt: Trajectory) -> Trajectory:
    reward = attempt.reward if attempt.error is None else None
    if reward is not None and not 0.0 <= reward <= 1.0:
        raise JudgeError(f"the rollout of {attempt.scenario_id!r} set the reward {reward}", hint="set run.reward to a number from 0 to 1")
    explanation = "" if reward is not None else "the rollout set no reward" if attempt.error is None else "the attempt failed"
    return attempt.model_copy(update={"reward": reward, "verdict": Verdict(judge="rollout", score=reward, explanation=explanation)})
