"""Training on examples in steps that are kept: which examples a step takes, when held-out ones are measured, and going on after a stop.

Not for what is done with the examples: `sft.py` imitates them, `dpo.py` compares them.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from journeyman.client.models import TrainableModel
from journeyman.errors import SettingError
from journeyman.recipes.open_run import OpenRun
from journeyman.recipes.told import tell
from journeyman.store.durable import write_durably
from journeyman.types.record import Record
from journeyman.types.runs import StepMetrics
from journeyman.types.text_files import json_line
from journeyman.types.training import TrainResult

Metrics = dict[str, float]
Update = Callable[[int, list[Any]], Awaitable[TrainResult]]
Measure = Callable[[], Awaitable[Metrics]]
_Example = TypeVar("_Example", bound=Record)
_HASH_FILE = "examples.sha256"


@dataclass(frozen=True, slots=True)
class Lessons(Generic[_Example]):
    """Examples in steps.

    Attributes:
        train, heldout: the examples.
        epochs: passes over `train`, each in an order of its own that `seed` decides.
        step_size: examples of one step; the last step of an epoch may have fewer.
        limit: of the steps; None: as many as the passes take.
    """

    train: Sequence[_Example]
    heldout: Sequence[_Example]
    epochs: int
    step_size: int
    seed: str
    limit: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.step_size)

    @property
    def num_steps(self) -> int:
        whole = self.epochs * self.steps_per_epoch
        return whole if self.limit is None else min(self.limit, whole)

    def part(self, number: int) -> list[_Example]:
        """The examples of step `number` (from 0), whatever came before it."""
        epoch, index = divmod(number, self.steps_per_epoch)
        order = list(range(len(self.train)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return [self.train[place] for place in order[index * self.step_size : (index + 1) * self.step_size]]

    def digest(self) -> str:
        """A hash of all examples, by which a run that goes on knows them again."""
        found = hashlib.sha256()
        for one in (*self.train, *self.heldout):
            found.update(json_line(one).encode())
        return found.hexdigest()


def know_again(lessons: Lessons[_Example], folder: Path) -> None:
    """Keep the examples' hash with the run, or compare with the one that is there. Raises SettingError when they changed."""
    path, digest = folder / _HASH_FILE, lessons.digest()
    # An empty one is what a power loss left of an earlier version's.
    if not path.exists() or not path.stat().st_size:
        write_durably(path, f"{digest}\n".encode())
    elif path.read_text(encoding="utf-8").strip() != digest:
        raise SettingError("the examples are not those that this run began with", hint="restore the data, or start a new run with it")


async def teach(
    opened: OpenRun,
    model: TrainableModel,
    lessons: Lessons[_Example],
    update: Update,
    measure: Measure,
    *,
    evaluate_every: int,
) -> None:
    """Make the steps that are not made yet.

    Args:
        update: one training job on the examples of a step (from 0).
        measure: the held-out metrics of the model as it is; kept as phase `eval` under the number of steps made.
    """
    progress = opened.progress
    history = [row.metrics for row in await opened.steps("train")]
    made = model.step
    measured = {row.step for row in await opened.steps("eval")}
    await opened.update(phase="train")
    progress.phase("train", total=lessons.num_steps, note=f"{lessons.step_size} examples a step")
    progress.advance(made)

    async def look(number: int) -> None:
        if lessons.heldout and number not in measured:
            async with opened.costs.phase("measure"):
                metrics = await measure()
            await opened.add_step(StepMetrics(run=opened.run, phase="eval", step=number, time=time.time(), metrics=metrics))
            progress.note(f"held out, after {number} steps: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    for number in range(made, lessons.num_steps):
        if number % evaluate_every == 0:
            await look(number)
        result = await update(number, lessons.part(number))
        progress.step(number + 1, result.metrics)
        progress.advance(1, loss=result.metrics.get("train/loss", math.nan))
        history.append(result.metrics)
        tell(progress, history, result.notes)
    await look(lessons.num_steps)
