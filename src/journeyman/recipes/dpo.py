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
from journeyman.recipes.data import Examples, dpo_data
from journeyman.recipes.report import heldout_numbers, make_report, training_numbers, write_result
from journeyman.recipes.run import OpenRun
from journeyman.recipes.settings import DpoTrain
from journeyman.recipes.sft import learn, open_training

_MEASURES = ("loss", "ranked_right", "reward_accuracy", "reward_margin", "chosen_logprob_change", "rejected_logprob_change")


async def train(
    settings: DpoTrain, progress: Progress, *, home: Path, run: str, is_resumed: bool = False, allow_changed_settings: bool = False
) -> Report:
    """Train, measure on held-out pairs, report; the report and `result.json` are also written into the run's folder.

    Raises SettingError and InputError for settings and data that cannot be used, TrainingError and its kin.
    """
    progress.phase("data", note="every example is read as tokens once")
    data = dpo_data(settings, home)
    training = open_training(
        settings, data, progress, home=home, run=run, is_resumed=is_resumed, allow_changed_settings=allow_changed_settings
    )
    async with training as (opened, model):

        async def measure() -> dict[str, float]:
            measured = await model.measure_pairs(data.heldout, settings.dpo)
            return {f"heldout/{name}": measured[name] for name in _MEASURES if name in measured}

        await learn(opened, model, settings, data, model.train_dpo, measure)
        return await asyncio.to_thread(_report, opened, settings, model, data)


def _report(opened: OpenRun, settings: DpoTrain, model: TrainableModel, data: Examples[Any]) -> Report:
    report = make_report(
        opened,
        settings,
        title=f"{settings.base} learns {settings.name}",
        target=data.note,
        judge="none: the pairs say which reply is better",
        adapter=model.adapter,
    )
    names = ("train/reward_accuracy", "train/reward_margin", "train/chosen_logprob_change")
    final = heldout_numbers(report) | training_numbers(report, names)
    write_result(report, opened, settings, recipe=settings.name, method="dpo", final=final)
    return report
