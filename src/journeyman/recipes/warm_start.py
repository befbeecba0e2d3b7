"""Drills until attempts differ: reinforcement learning needs groups in which some attempts are better than others.

Drills are calls sampled from the tool schemas and worded like tasks; some go on with a made-up result and an answer in words. They never
show a real result. The warm start is stopped early on purpose: a model drilled to the end has nothing left to compare.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from journeyman.client.gather import gather, iterate
from journeyman.client.models import TrainableModel
from journeyman.recipes.resume import attempts_shape, step_key
from journeyman.recipes.run import warm_steps
from journeyman.recipes.session import Session
from journeyman.recipes.settings import WarmStart
from journeyman.rewards import excluded_text, reward_metrics
from journeyman.scenarios.drills import drills
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.types.scenarios import kind_of
from journeyman.types.trajectory import Group


async def warm_start(session: Session, model: TrainableModel, scenarios: ScenarioSet) -> int:
    """Drill until groups have spread, unless reinforcement learning has begun already; returns the step that the warm start ended at."""
    if await session.steps("train"):
        return await asyncio.to_thread(warm_steps, session.store, session.run)
    await session.update(phase="warmup")
    settings = session.settings.warm_start
    num_made = model.step  # a step is made of the drills between two probes
    while True:
        updates = num_made * settings.updates_per_probe
        session.progress.phase(
            "warm start", total=settings.probe_scenarios * settings.probe_attempts, note=f"probe after {updates} updates"
        )
        async with session.costs.phase("warm start, probes"):
            metrics = await _probe(session, model, scenarios, num_made)
        await session.keep_measured(model.step, metrics)
        session.progress.note(
            f"after {updates} drill updates: {metrics['rollout/executed']:.0%} of attempts made a call that ran, "
            f"{metrics.get('reward/success', 0.0):.0%} succeeded, {metrics.get('reward/with_spread', 0.0):.0%} of groups have spread"
        )
        if is_ready(metrics, settings):
            return model.step
        if updates >= settings.max_updates:
            session.progress.warn(f"no spread to speak of after {updates} drill updates; going on with what there is")
            return model.step
        session.progress.phase("warm start", total=100, note=f"drills {updates + 1}-{updates + settings.updates_per_probe}")
        await _drill(session, model, scenarios, num_made)
        num_made += 1


def is_ready(metrics: dict[str, float], settings: WarmStart) -> bool:
    """Whether reinforcement learning has something to compare. Of a judge without successes only spread is asked."""
    if metrics.get("reward/tools_with_success", 1.0) < settings.min_tools:
        return False
    return metrics.get("reward/success", 0.0) >= settings.enough_success or (
        metrics.get("rollout/executed", 0.0) >= settings.min_executed
        and metrics.get("reward/success", 1.0) >= settings.min_success
        and metrics.get("reward/with_spread", 0.0) >= settings.min_with_spread
    )


async def _probe(session: Session, model: TrainableModel, scenarios: ScenarioSet, number: int) -> dict[str, float]:
    settings = session.settings
    size = settings.warm_start.probe_scenarios
    chosen = iterate(scenarios.train, groups_per_step=size, seed=settings.seed, kind=kind_of).batch(0)
    groups = await gather(
        session.agent(),
        chosen,
        model=model,
        group_size=settings.warm_start.probe_attempts,
        max_concurrent=session.pool.max_concurrent,
        timeout_seconds=settings.rollouts.timeout_seconds,
        progress=session.progress,
        key=f"{step_key('warmup', number)}/{attempts_shape(settings)}",
        seed=settings.seed,
    )
    judged = await session.judge.score(groups)
    if text := excluded_text(judged):
        session.progress.warn(text)
    metrics = reward_metrics(judged, settings.grpo) | {"rollout/executed": executed_share(judged)}
    return metrics | tools_with_success(judged)


def tools_with_success(groups: Sequence[Group]) -> dict[str, float]:
    """The share of tools that some attempt used with success; nothing where the judge has no successes."""
    succeeded: dict[str, bool] = {}
    for group in groups:
        successes = [one.verdict.is_success for one in group if one.verdict is not None and one.verdict.is_success is not None]
        for call in group.scenario.witness.calls if group.scenario.witness is not None and successes else ():
            succeeded[call.tool] = succeeded.get(call.tool, False) or any(successes)
    return {"reward/tools_with_success": sum(succeeded.values()) / len(succeeded)} if succeeded else {}


def executed_share(groups: Sequence[Group]) -> float:
    """The share of attempts in which some call ran without error."""
    attempts = [one for group in groups for one in group]
    return sum(any(not event.is_error for event in one.tool_events) for one in attempts) / max(len(attempts), 1)


async def _drill(session: Session, model: TrainableModel, scenarios: ScenarioSet, number: int) -> None:
    settings = session.settings.warm_start
    count = settings.sft.batch_size * settings.updates_per_probe
    rng = random.Random(f"drills/{session.settings.seed}/{number}")
    agent = session.agent()
    examples = [agent.example(drill) for drill in drills(scenarios, rng, count)]
    reported = 0

    def on_progress(fraction: float) -> None:
        nonlocal reported
        percent = int(100 * fraction)
        session.progress.advance(percent - reported)
        reported = percent

    result = await model.train_sft(examples, settings.sft, on_progress=on_progress, key=f"{session.run}-warmup-{number}")
    for note in result.notes:
        session.progress.note(note)
