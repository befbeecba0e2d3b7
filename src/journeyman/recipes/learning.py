"""The loop of reinforcement learning: attempt, score, update, keep; until the steps are made or nothing can be learned any more.

What an attempt is, and with which settings a step is made, is the recipe's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from journeyman.client.models import TrainableModel
from journeyman.errors import NothingToLearnError, TrainingError
from journeyman.observe.reward_health import without_spread_advice
from journeyman.recipes.open_run import OpenRun
from journeyman.recipes.places import scenarios_used
from journeyman.recipes.resume import step_key
from journeyman.recipes.told import tell
from journeyman.rewards import excluded_text
from journeyman.types.settings import Grpo
from journeyman.types.training import TrainResult
from journeyman.types.trajectory import Group

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe wants of the loop.

    Attributes:
        steps: to make in all, those made before included.
        begins_at: the model's step that the first of them begins at: the end of the warm start.
        note: one line on what a step is.
        attempt: scored groups for the step of that number (from 0) and their metrics, beginning at that place in the scenarios.
        settings_of: of the step of that number, whose groups have these metrics.
        stop_without_spread: steps in a row without any spread after which nothing can be learned; None: never.
        give_up: the error that says so, from the metrics of these steps and the last one's groups.
    """

    steps: int
    note: str
    attempt: Callable[[int, int], Awaitable[tuple[list[Group], Metrics]]]
    settings_of: Callable[[int, Metrics, Sequence[Group]], Grpo]
    stop_without_spread: int | None
    give_up: Callable[[Sequence[Metrics], Sequence[Group]], NothingToLearnError]
    begins_at: int = 0


async def learn(opened: OpenRun, model: TrainableModel, plan: Plan) -> None:
    """GRPO steps until `plan.steps` are made. A run that was killed goes on behind its last whole step."""
    progress = opened.progress
    made = model.step - plan.begins_at
    position = await asyncio.to_thread(scenarios_used, opened.store, opened.run)
    history = [row.metrics for row in await opened.steps("train")]
    empty = 0
    await opened.update(phase="train")
    progress.phase("train", total=plan.steps, note=plan.note)
    progress.advance(made)
    for number in range(made, plan.steps):
        groups, metrics = await plan.attempt(number, position)
        position += len(groups)
        grpo = plan.settings_of(number, metrics, groups)
        result = await _update(opened, model, groups, grpo, number, metrics | {"train/learning_rate": grpo.learning_rate})
        progress.step(number + 1, result.metrics)
        progress.advance(1)
        history.append(result.metrics)
        tell(progress, history, result.notes)
        empty = empty + 1 if metrics.get("reward/with_spread", 0.0) == 0.0 else 0
        if plan.stop_without_spread is not None and empty >= plan.stop_without_spread:
            raise plan.give_up(history[-empty:], groups)


def nothing_to_learn(steps: Sequence[Metrics], groups: Sequence[Group], *, seen: str = "", hint: str | None = None) -> NothingToLearnError:
    """The error of a run in which no group had spread in these steps. `groups`: the last one's; `seen`: what else to say of it; `hint`:
    the advice, where the rewards alone do not give it."""
    last, num_steps = steps[-1], len(steps)
    if "reward/mean" not in last:
        text = f"in {num_steps} steps no attempt taught anything; in the last one {excluded_text(groups)}"
        return NothingToLearnError(f"nothing to learn from: {text}", hint="mend what makes the attempts fail, then go on with --resume")
    text = f"in {num_steps} steps no group had attempts of different reward (mean reward {last['reward/mean']:.2f}{seen})"
    return NothingToLearnError(f"nothing to learn from: {text}", hint=hint or without_spread_advice(steps))


async def _update(
    opened: OpenRun, model: TrainableModel, groups: Sequence[Group], grpo: Grpo, number: int, measured: Metrics
) -> TrainResult:
    try:
        return await model.train(groups, grpo, measured=measured, key=f"{opened.run}-train-{number}")
    except TrainingError:
        # The same attempts would fail again: whoever goes on makes others.
        await asyncio.to_thread(opened.store.rollouts.forget_key, opened.run, step_key("train", number))
        raise
