"""Imitating examples: `journeyman train FILE.yaml` with `method: sft`; and the loop over examples, which `dpo.py` shares.

    settings = SftTrain(data=SftData(source="conversations.jsonl"))
    report = await train(settings, SilentProgress(), home=Path(".journeyman"), run="first")

A step is a few updates and is kept when it is done: a run that was stopped or killed goes on with `is_resumed=True`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from journeyman.client.models import Model, TrainableModel
from journeyman.client.rollout import Rollout
from journeyman.evaluation import Evaluation, Report
from journeyman.evaluation import evaluate as evaluate_variants
from journeyman.observe.progress import Progress
from journeyman.recipes.data import Examples, ExampleSteps, keep_digest, sft_data
from journeyman.recipes.report import curl_line, evaluation_numbers, heldout_numbers, make_report, write_result
from journeyman.recipes.run import OpenRun, hold, kept_state, open_model, open_run, rate_factor
from journeyman.recipes.settings import DpoTrain, SftTrain
from journeyman.rewards import Rubric
from journeyman.types.names import BASE
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.training import SftExample, TrainResult
from journeyman.types.trajectory import Trajectory


async def train(
    settings: SftTrain, progress: Progress, *, home: Path, run: str, is_resumed: bool = False, allow_changed_settings: bool = False
) -> Report:
    """Train, measure on held-out examples, report; the report and `result.json` are also written into the run's folder.

    Raises SettingError and InputError for settings and data that cannot be used, TrainingError and its kin.
    """
    progress.phase("data", note="every example is read as tokens once")
    data = sft_data(settings, home)
    training = open_training(
        settings, data, progress, home=home, run=run, is_resumed=is_resumed, allow_changed_settings=allow_changed_settings
    )
    async with training as (opened, model):

        async def measure() -> dict[str, float]:
            return {"heldout/loss": await model.loss(data.heldout, when_too_long=settings.sft.when_too_long)}

        await learn(opened, model, settings, data, partial(model.train_sft, phase="train"), measure)
        return await _report(opened, settings, model, data)


def in_steps(settings: SftTrain | DpoTrain, data: Examples[Any]) -> ExampleSteps[Any]:
    """The data in steps."""
    of_update = settings.of_update
    size, seed = of_update.batch_size * settings.updates_per_step, f"{settings.seed}/{of_update.seed}"
    return ExampleSteps(data.train, data.heldout, of_update.epochs, size, seed, settings.steps)


def learning_rate(settings: SftTrain | DpoTrain, num_steps: int, number: int) -> float:
    """That of step `number` (from 0) of so many: see `ExampleTraining`."""
    factor = rate_factor(number, num_steps, warmup_steps=settings.warmup_steps, decay_to=settings.decay_to)
    return settings.of_update.learning_rate * factor


@asynccontextmanager
async def open_training(
    settings: SftTrain | DpoTrain,
    data: Examples[Any],
    progress: Progress,
    *,
    home: Path,
    run: str,
    is_resumed: bool,
    allow_changed_settings: bool,
) -> AsyncIterator[tuple[OpenRun, TrainableModel]]:
    """The run on these examples and its model where it stopped; how the block ends is kept. Errors as `hold` and `open_model`."""

    def rate_of(one: SftTrain | DpoTrain, number: int) -> float:
        return learning_rate(one, in_steps(one, data).num_steps, number)

    async with open_run(run, settings.base, home, progress, retention=settings.retention) as opened:
        held = await asyncio.to_thread(
            hold,
            opened,
            settings,
            kind=settings.method,
            is_resumed=is_resumed,
            allow_changed_settings=allow_changed_settings,
            rate_of=rate_of,
        )
        progress.note(f"{data.note}; {len(data.train)} to train on, {len(data.heldout)} held out")
        for fault in data.faults:
            progress.warn(f"left out: {fault}")
        await asyncio.to_thread(keep_digest, in_steps(settings, data), opened.folder.path)
        async with kept_state(opened):
            yield opened, await open_model(opened, held, settings.name, settings.lora)


async def learn(
    opened: OpenRun,
    model: TrainableModel,
    settings: SftTrain | DpoTrain,
    data: Examples[Any],
    update: Callable[..., Awaitable[TrainResult]],
    measure: Callable[[], Awaitable[dict[str, float]]],
) -> None:
    """Make the steps that are not made yet.

    Args:
        update: one training job on examples, `TrainableModel.train_sft` or `train_dpo`.
        measure: the held-out metrics of the model as it is.
    """
    steps = in_steps(settings, data)
    measured = {row.step for row in await opened.steps("eval")}

    async def look(number: int) -> None:
        if not steps.heldout or number in measured:
            return
        async with opened.costs.phase("measure"):
            metrics = await measure()
        await opened.keep_measured(number, metrics)
        listed = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        opened.progress.note(f"held out, after {number} steps: {listed}")

    num_made = model.step
    await opened.start_training(num_made, steps.num_steps, f"{steps.step_size} examples a step")
    for number in range(num_made, steps.num_steps):
        if number % settings.evaluate_every == 0:
            await look(number)
        rate = learning_rate(settings, steps.num_steps, number)
        # The passes over the data are made of steps; a step sees each of its examples once.
        step = settings.of_update.model_copy(update={"learning_rate": rate, "epochs": 1})
        rates, key = {"train/learning_rate": rate}, f"{opened.run}-train-{number}"
        result = await update(steps.of_step(number), step, measured=rates, key=key)
        opened.show_step(number, result, loss=result.metrics.get("train/loss", math.nan))
    await look(steps.num_steps)


async def _report(opened: OpenRun, settings: SftTrain, model: TrainableModel, data: Examples[Any]) -> Report:
    questions = [task for task in map(_question, range(len(data.heldout)), data.heldout) if task is not None]
    asked = questions[: settings.heldout_replies]
    evaluations = [await _evaluate(opened, settings, model, asked)] if asked else []
    curl = None if not questions else curl_line({"model": model.name, "temperature": 0, "messages": questions[0].data["messages"]})
    report = await asyncio.to_thread(
        make_report,
        opened,
        settings,
        title=f"{settings.base} learns {settings.name}",
        target=data.note,
        judge="exact: 1 when the reply is the example's, word for word",
        evaluations=evaluations,
        adapter=model.adapter,
        curl=curl,
    )
    final = heldout_numbers(report) | evaluation_numbers(report)
    await asyncio.to_thread(write_result, report, opened, settings, recipe=settings.name, method="sft", final=final)
    return report


def _question(number: int, example: Record) -> Scenario | None:
    """A held-out conversation without its last reply, to be answered; None for what is no chat, or ends in a call."""
    if not isinstance(example, SftExample):
        return None
    *given, last = example.messages
    if last.role != "assistant" or last.tool_calls or not last.content or not given:
        return None
    data = {"messages": [one.wire() for one in given], "tools": [one.model_dump() for one in example.tools], "expected": last.content}
    return Scenario(id=f"heldout-{number}", task=given[-1].content or "", split="heldout", data=data)


def exact(scenario: Scenario, trajectory: Trajectory) -> float:
    """1 when the reply is the example's, white space at its ends and between words aside."""
    return float((trajectory.answer or "").split() == str(scenario.data["expected"]).split())


async def _evaluate(opened: OpenRun, settings: SftTrain, model: TrainableModel, questions: Sequence[Scenario]) -> Evaluation:
    async def answer(scenario: Scenario, run: Rollout) -> None:
        tools: dict[str, Any] = {"tools": scenario.data["tools"]} if scenario.data["tools"] else {}
        messages, limit = scenario.data["messages"], settings.reply_tokens
        await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=limit, temperature=0, **tools)

    variants: dict[str, Model] = {BASE: opened.connection.base_model()}
    if model.step:
        variants["trained"] = opened.connection.served_model(model.adapter)
    await opened.update(phase="evaluate")
    async with opened.costs.phase("evaluate"):
        return await evaluate_variants(answer, questions, variants, Rubric([exact]), progress=opened.progress)
