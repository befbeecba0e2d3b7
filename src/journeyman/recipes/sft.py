"""Imitating examples: `journeyman train FILE.yaml` with `method: sft`.

    settings = SftTrain(data=SftData(source="conversations.jsonl"))
    report = await train(settings, SilentProgress(), home=Path(".journeyman"), run="first")

A step is a few updates and is kept when it is done: a run that was stopped or killed goes on with `is_resumed=True`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from journeyman.client.models import Model, TrainableModel
from journeyman.client.rollout import Rollout
from journeyman.evaluation import Evaluation, Report
from journeyman.evaluation import evaluate as evaluate_variants
from journeyman.observe.progress import Progress
from journeyman.recipes.example_data import Examples, sft_data
from journeyman.recipes.lessons import Lessons, Measure, Update, know_again, teach
from journeyman.recipes.open_run import OpenRun, begin, kept_state, open_model, open_run
from journeyman.recipes.run_report import curl_line, evaluation_numbers, heldout_numbers, make_report, write_result
from journeyman.recipes.schedule import rate_factor
from journeyman.recipes.settings import SftTrain
from journeyman.rewards import Rubric
from journeyman.types.names import BASE
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Sft
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
    lessons = make_lessons(settings, data)
    async with open_run(run, settings.base, home, progress, retention=settings.retention) as opened:
        begun = await begin(
            opened,
            settings,
            kind="sft",
            base=settings.base,
            is_resumed=is_resumed,
            allow_changed_settings=allow_changed_settings,
            rate_of=lambda one, number: step_settings(one, make_lessons(one, data).num_steps, number).learning_rate,
        )
        progress.note(f"{data.note}; {len(data.train)} to train on, {len(data.heldout)} held out")
        for fault in data.faults:
            progress.warn(f"left out: {fault}")
        await asyncio.to_thread(know_again, lessons, opened.folder.path)
        async with kept_state(opened):
            model = await open_model(opened, begun, settings.name, settings.lora)
            await teach(
                opened,
                model,
                lessons,
                _updating(settings, model, lessons),
                _measuring(settings, model, data),
                evaluate_every=settings.evaluate_every,
            )
            return await _report(opened, settings, model, data)


def make_lessons(settings: SftTrain, data: Examples[Any]) -> Lessons[Any]:
    """The data in steps."""
    size = settings.sft.batch_size * settings.updates_per_step
    seed = f"{settings.seed}/{settings.sft.seed}"
    return Lessons(data.train, data.heldout, settings.sft.epochs, size, seed, settings.steps)


def step_settings(settings: SftTrain, num_steps: int, number: int) -> Sft:
    """The settings of step `number` (from 0) of so many: see `SftTrain.sft`."""
    factor = rate_factor(number, num_steps, warmup_steps=settings.warmup_steps, decay_to=settings.decay_to)
    # The passes over the data are made of steps; a step sees each of its examples once.
    return settings.sft.model_copy(update={"learning_rate": settings.sft.learning_rate * factor, "epochs": 1})


def _updating(settings: SftTrain, model: TrainableModel, lessons: Lessons[Any]) -> Update:
    async def update(number: int, examples: list[Any]) -> TrainResult:
        step = step_settings(settings, lessons.num_steps, number)
        rate, key = {"train/learning_rate": step.learning_rate}, f"{model.run}-train-{number}"
        return await model.train_sft(examples, step, phase="train", measured=rate, key=key)

    return update


def _measuring(settings: SftTrain, model: TrainableModel, data: Examples[Any]) -> Measure:
    async def measure() -> dict[str, float]:
        return {"heldout/loss": await model.loss(data.heldout, when_too_long=settings.sft.when_too_long)}

    return measure


async def _report(opened: OpenRun, settings: SftTrain, model: TrainableModel, data: Examples[Any]) -> Report:
    questions = [task for task in map(_question, range(len(data.heldout)), data.heldout) if task is not None]
    evaluations = []
    if questions[: settings.heldout_replies]:
        evaluations.append(await _evaluate(opened, settings, model, questions[: settings.heldout_replies]))
    first = next((task.data["messages"] for task in questions), None)
    curl = None if first is None else curl_line({"model": model.name, "temperature": 0, "messages": first})
    return await asyncio.to_thread(_written, opened, settings, data.note, evaluations, model.adapter, curl)


def _written(opened: OpenRun, settings: SftTrain, target: str, evaluations: Sequence[Evaluation], adapter: str, curl: str | None) -> Report:
    report = make_report(
        opened,
        settings,
        title=f"{settings.base} learns {settings.name}",
        target=target,
        judge="exact: 1 when the reply is the example's, word for word",
        evaluations=evaluations,
        adapter=adapter,
        curl=curl,
    )
    final = heldout_numbers(report) | evaluation_numbers(report)
    write_result(report, opened.folder.report, settings, recipe=settings.name, method="sft", seed=settings.seed, final=final)
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
        given: dict[str, Any] = {"tools": scenario.data["tools"]} if scenario.data["tools"] else {}
        messages = scenario.data["messages"]
        limit = settings.reply_tokens
        await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=limit, temperature=0, **given)

    variants: dict[str, Model] = {BASE: opened.connection.base_model()}
    if model.step:
        variants["trained"] = opened.connection.served_model(model.adapter)
    await opened.update(phase="evaluate")
    async with opened.costs.phase("evaluate"):
        return await evaluate_variants(answer, questions, variants, Rubric([exact]), progress=opened.progress)
