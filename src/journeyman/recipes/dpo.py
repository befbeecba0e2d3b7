"""Learning from pairs of a better and a worse reply: `journeyman train FILE.yaml` with `method: dpo`.

    settings = DpoTrain(data=DpoData(source="pairs.jsonl"))
    report = await train(settings, SilentProgress(), home=Path(".journeyman"), run="first")

A step is a few updates and is kept when it is done: a run that was stopped or killed goes on with `is_resumed=True`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from journeyman.client.models import TrainableModel
from journeyman.evaluation import Report
from journeyman.observe.progress import Progress
from journeyman.recipes.example_data import Examples, dpo_data
from journeyman.recipes.lessons import Lessons, Measure, Update, know_again, teach
from journeyman.recipes.open_run import OpenRun, begin, kept_state, open_model, open_run
from journeyman.recipes.run_report import heldout_numbers, make_report, training_numbers, write_result
from journeyman.recipes.schedule import rate_factor
from journeyman.recipes.settings import DpoTrain
from journeyman.types.settings import Dpo
from journeyman.types.training import TrainResult

_MEASURES = ("loss", "ranked_right", "reward_accuracy", "reward_margin", "chosen_logprob_change", "rejected_logprob_change")


async def train(
    settings: DpoTrain, progress: Progress, *, home: Path, run: str, is_resumed: bool = False, allow_changed_settings: bool = False
) -> Report:
    """Train, measure on held-out pairs, report; the report and `result.json` are also written into the run's folder.

    Raises SettingError and InputError for settings and data that cannot be used, TrainingError and its kin.
    """
    progress.phase("data", note="every example is read as tokens once")
    data = dpo_data(settings, home)
    lessons = make_lessons(settings, data)
    async with open_run(run, settings.base, home, progress, retention=settings.retention) as opened:
        begun = await begin(
            opened,
            settings,
            kind="dpo",
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
            return await asyncio.to_thread(_report, opened, settings, model, data)


def make_lessons(settings: DpoTrain, data: Examples[Any]) -> Lessons[Any]:
    """The data in steps."""
    size = settings.dpo.batch_size * settings.updates_per_step
    seed = f"{settings.seed}/{settings.dpo.seed}"
    return Lessons(data.train, data.heldout, settings.dpo.epochs, size, seed, settings.steps)


def step_settings(settings: DpoTrain, num_steps: int, number: int) -> Dpo:
    """The settings of step `number` (from 0) of so many: see `DpoTrain.dpo`."""
    factor = rate_factor(number, num_steps, warmup_steps=settings.warmup_steps, decay_to=settings.decay_to)
    # The passes over the data are made of steps; a step sees each of its pairs once.
    return settings.dpo.model_copy(update={"learning_rate": settings.dpo.learning_rate * factor, "epochs": 1})


def _updating(settings: DpoTrain, model: TrainableModel, lessons: Lessons[Any]) -> Update:
    async def update(number: int, pairs: list[Any]) -> TrainResult:
        step = step_settings(settings, lessons.num_steps, number)
        return await model.train_dpo(pairs, step, measured={"train/learning_rate": step.learning_rate}, key=f"{model.run}-train-{number}")

    return update


def _measuring(settings: DpoTrain, model: TrainableModel, data: Examples[Any]) -> Measure:
    async def measure() -> dict[str, float]:
        found = await model.measure_pairs(data.heldout, settings.dpo)
        return {f"heldout/{name}": found[name] for name in _MEASURES if name in found}

    return measure


def _report(opened: OpenRun, settings: DpoTrain, model: TrainableModel, data: Examples[Any]) -> Report:
    report = make_report(
        opened,
        settings,
        title=f"{settings.base} learns {settings.name}",
        target=data.note,
        judge="none: the pairs say which reply is better",
        adapter=model.adapter,
    )
    final = heldout_numbers(report) | training_numbers(
        report, ("train/reward_accuracy", "train/reward_margin", "train/chosen_logprob_change")
    )
    write_result(report, opened.folder.report, settings, recipe=settings.name, method="dpo", seed=settings.seed, final=final)
    return report
