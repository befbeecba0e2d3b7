"""The loop of reinforcement learning: attempt, score, update, keep; until the steps are made or nothing can be learned any more. And who
scores: reward functions named by dotted path, a model, both, or the rollout function itself.

What an attempt is, and with which settings a step is made, is the recipe's: `grpo.py` and `mcp.py`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.client.attempts import RolloutFunction
from journeyman.client.gather import Batches, gather
from journeyman.client.models import TrainableModel
from journeyman.errors import REWARD_FAILED, JudgeError, NothingToLearnError, TrainingError
from journeyman.observe.progress import Progress
from journeyman.observe.reward_health import Metrics
from journeyman.recipes.functions import load_function
from journeyman.recipes.resume import step_key
from journeyman.recipes.run import OpenRun
from journeyman.recipes.settings import GrpoTrain, ModelJudge
from journeyman.rewards import Rubric, Ruler, RulerOptions, excluded_text, reward_metrics
from journeyman.rewards.judge import Judge, Part, RewardFunction
from journeyman.shaping import has_spread
from journeyman.store import Checkpoints, Store
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Grpo
from journeyman.types.training import TrainResult
from journeyman.types.trajectory import Group, Trajectory, Verdict

#: A step in which fewer of the wanted groups have spread attempts more scenarios, if it may.
ENOUGH_WITH_SPREAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What GRPO steps are made of.

    Attributes:
        scenarios: one at a time.
        seed: of the attempts.
        steps: to make in all, those made before included.
        begins_at: the model's step that the first of them begins at: the end of the warm start.
        max_refills: how often a step attempts more scenarios while few groups have spread.
        stop_without_spread: steps in a row without any spread after which nothing can be learned; None: never.
        grpo: decides what counts as spread.
        settings_of: the settings of the step of that number (from 0), in which so many groups have spread.
        shape: a hash of how attempts are made, which their keys end in.
        measure: metrics of attempts beside those of their rewards.
        advice: for steps in which no group had spread.
    """

    rollout: RolloutFunction
    judge: Judge
    scenarios: Batches
    seed: int
    steps: int
    begins_at: int = 0
    num_groups: int
    group_size: int
    max_refills: int = 0
    max_concurrent: int = 32
    timeout_seconds: float
    stop_without_spread: int | None
    grpo: Grpo
    settings_of: Callable[[int, int], Grpo]
    shape: str
    measure: Callable[[Sequence[Group]], Metrics] = lambda _: {}
    advice: Callable[[Sequence[Metrics]], str]


async def learn(opened: OpenRun, model: TrainableModel, loop: Loop) -> None:
    """Attempt, score, update, until `loop.steps` are made. A run that was killed goes on behind its last whole step.

    Raises NothingToLearnError.
    """
    num_made = model.step - loop.begins_at
    position = await asyncio.to_thread(_scenarios_used, opened.store, opened.run)
    num_empty = 0
    await opened.start_training(num_made, loop.steps, f"GRPO, {loop.num_groups} x {loop.group_size}")
    for number in range(num_made, loop.steps):
        groups, metrics = await _attempt(opened, model, loop, number, position)
        position += len(groups)
        num_with_spread = sum(has_spread(group, loop.grpo) for group in groups)
        grpo = loop.settings_of(number, num_with_spread)
        result = await _update(opened, model, groups, grpo, number, metrics | {"train/learning_rate": grpo.learning_rate})
        opened.show_step(number, result)
        num_empty = 0 if num_with_spread else num_empty + 1
        if loop.stop_without_spread is not None and num_empty >= loop.stop_without_spread:
            raise nothing_to_learn(opened.history[-num_empty:], groups, loop.advice)


async def _attempt(opened: OpenRun, model: TrainableModel, loop: Loop, number: int, position: int) -> tuple[list[Group], Metrics]:
    """Scored groups for step `number` and their metrics, of the scenarios from `position` on.

    What was attempted (and judged) before the run was stopped inside this very step is taken as it was.
    """
    key = f"{step_key('train', number)}/{loop.shape}"
    kept = {one.trajectory_id for one in await model.kept_attempts(key)}
    if kept:
        opened.progress.note(f"step {number + 1} goes on with {len(kept)} attempts that were made before the stop")
    started = time.perf_counter()
    groups: list[Group] = []
    wanted = loop.num_groups
    for _ in range(1 + loop.max_refills):
        first = position + len(groups)
        groups += await gather(
            loop.rollout,
            [loop.scenarios.batch(index)[0] for index in range(first, first + wanted)],
            model=model,
            group_size=loop.group_size,
            max_concurrent=loop.max_concurrent,
            timeout_seconds=loop.timeout_seconds,
            score=loop.judge.score,
            key=f"{key}/{first}",
            seed=loop.seed,
        )
        num_with_spread = sum(has_spread(group, loop.grpo) for group in groups)
        if num_with_spread >= ENOUGH_WITH_SPREAD * loop.num_groups:
            break
        wanted = loop.num_groups - num_with_spread
    if excluded := excluded_text(groups):
        opened.progress.warn(excluded)
    return groups, _metrics(groups, loop, kept, time.perf_counter() - started)


def _metrics(groups: Sequence[Group], loop: Loop, kept: set[str], seconds: float) -> Metrics:
    attempts = [one for group in groups for one in group]
    metrics = {
        **reward_metrics(groups, loop.grpo),
        **loop.measure(groups),
        "rollout/num_groups": float(len(groups)),
        "rollout/num_sampled_tokens": float(sum(one.num_sampled_tokens for one in attempts)),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": sum(one.num_sampled_tokens for one in attempts if one.id not in kept) / seconds,
    }
    return metrics | ({"rollout/num_kept": float(sum(one.id in kept for one in attempts))} if kept else {})


async def _update(
    opened: OpenRun, model: TrainableModel, groups: Sequence[Group], grpo: Grpo, number: int, measured: Mapping[str, float]
) -> TrainResult:
    try:
        return await model.train(groups, grpo, measured=measured, key=f"{opened.run}-train-{number}")
    except TrainingError:
        # The same attempts would fail again: whoever goes on makes others.
        await asyncio.to_thread(opened.store.rollouts.forget_key, opened.run, step_key("train", number))
        raise


def nothing_to_learn(steps: Sequence[Metrics], groups: Sequence[Group], advice: Callable[[Sequence[Metrics]], str]) -> NothingToLearnError:
    """The error of a run in which no group had spread in these steps. `groups`: the last one's."""
    last, num_steps = steps[-1], len(steps)
    if "reward/mean" not in last:
        text = f"in {num_steps} steps no attempt taught anything; in the last one {excluded_text(groups)}"
        hint = "mend what makes the attempts fail, then go on with --resume"
        return NothingToLearnError(f"nothing to learn from: {text}", hint=hint, reason="no_rewards")
    executed = last.get("rollout/executed")
    seen = "" if executed is None else f", {executed:.0%} of attempts made a call that ran"
    text = f"in {num_steps} steps no group had attempts of different reward (mean reward {last['reward/mean']:.2f}{seen})"
    return NothingToLearnError(f"nothing to learn from: {text}", hint=advice(steps), reason="no_spread")


def _scenarios_used(store: Store, run: str) -> int:
    """Groups that the run has trained on: the place in its scenarios.

    Both the newest checkpoint and the rows may hold too few and never too many: a row is missing when the disk was full, and early
    checkpoints did not count.
    """
    newest = Checkpoints(store.home.run(run).checkpoints).newest()
    kept = 0.0 if newest is None else newest.memo.get("num_groups", 0.0)
    return int(max(kept, sum(row.metrics.get("train/num_groups", 0.0) for row in store.runs.steps(run, "train"))))


class KeepingJudge:
    """Another judge whose every verdict is kept with its rollout: to be looked at later, and so that none is paid for twice."""

    def __init__(self, judge: Judge, store: Store) -> None:
        self._judge, self._store = judge, store

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def description(self) -> str:
        return self._judge.description

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        # A group whose attempts all have verdicts was judged before the run was stopped.
        is_judged = [all(one.verdict is not None for one in group) for group in groups]
        fresh = await self._judge.score([group for group, is_known in zip(groups, is_judged, strict=True) if not is_known])
        attempts = [one for group in fresh for one in group if one.id]
        verdicts = {one.id: one.verdict for one in attempts if one.verdict is not None}
        await asyncio.to_thread(self._store.rollouts.set_rewards, {one.id: one.reward for one in attempts}, verdicts)
        next_fresh = iter(fresh)
        return [group if is_known else next(next_fresh) for group, is_known in zip(groups, is_judged, strict=True)]


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
