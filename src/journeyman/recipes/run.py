"""A run that is being worked on: opened, held against other processes, gone on with where its model stands, its steps shown and its end
kept. What every recipe needs.

Not for what one recipe adds (`session.py`: the MCP server and its agent), nor for which settings may change (`resume.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from journeyman.client.backend import Connection
from journeyman.client.models import TrainableModel
from journeyman.errors import JourneymanError, JudgeError, SettingError
from journeyman.local import open_backend, serving
from journeyman.observe.health import is_finding, news
from journeyman.observe.progress import Progress
from journeyman.observe.reward_health import Metrics
from journeyman.recipes.report import Costs
from journeyman.recipes.resume import accept_settings, is_other_judge, step_key
from journeyman.recipes.settings import McpTrain, NamedTraining, non_default_settings
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.store.home import RunFolder
from journeyman.types.names import check_name
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import LoraSettings, Retention
from journeyman.types.training import TrainResult


@dataclass(slots=True, kw_only=True)
class OpenRun:
    """Everything open while a run trains or is evaluated: the loaded base model, its server and client, the store, and what it costs.

    `history`: the metrics of the training steps so far.
    """

    run: str
    home: Path
    backend: Backend
    connection: Connection
    progress: Progress
    costs: Costs
    history: list[Metrics] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.backend.store

    @property
    def folder(self) -> RunFolder:
        return self.store.home.run(self.run)

    async def update(self, **values: Any) -> None:
        """Write these values into the run's row; the store works in a thread, as for all that is asked of it while others wait."""
        await asyncio.to_thread(self.store.runs.update, self.run, **values)

    async def steps(self, phase: str) -> tuple[StepMetrics, ...]:
        return await asyncio.to_thread(self.store.runs.steps, self.run, phase)

    async def keep_measured(self, step: int, metrics: Metrics) -> None:
        """Keep what was measured of the version of that step. (The row of a training step is the service's to write.)"""
        row = StepMetrics(run=self.run, phase="eval", step=step, time=time.time(), metrics=metrics)
        await asyncio.to_thread(self.store.runs.add_step, row)

    async def start_training(self, num_made: int, total: int, note: str) -> None:
        """Show where the training stands, of which so many steps are made."""
        self.history = [row.metrics for row in await self.steps("train")]
        await self.update(phase="train")
        self.progress.phase("train", total=total, note=note)
        self.progress.advance(num_made)

    def show_step(self, number: int, result: TrainResult, **values: float) -> None:
        """Show step `number` (from 0): what it shows that the one before did not, and the notes of its training call.

        The call has findings among its notes, for programs that read no more than those.
        """
        self.history.append(result.metrics)
        self.progress.step(number + 1, result.metrics)
        self.progress.advance(1, **values)
        for finding in news(self.history):
            (self.progress.note if finding.level == "normal" else self.progress.warn)(str(finding))
        for note in result.notes:
            if not is_finding(note):
                self.progress.note(note)


@asynccontextmanager
async def open_run(
    run: str,
    base: str,
    home: Path,
    progress: Progress,
    *,
    workers: int | None = None,
    retention: Retention | None = None,
    costs: Costs | None = None,
) -> AsyncIterator[OpenRun]:
    """Load the base model and serve it while the block runs. `retention`: which checkpoints and adapters stay on disk."""
    check_name(run, "the id of a run")
    costs = costs or Costs()
    async with costs.phase("start"):
        progress.phase("load", note=base)
        backend = await asyncio.to_thread(open_backend, base, home=home, num_workers=workers, note=progress.note, retention=retention)
    costs.count_tokens(lambda: backend.sampling.num_sampled_tokens)
    async with serving(backend) as connection:
        info = backend.engine.info
        progress.note(f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers")
        yield OpenRun(run=run, home=home, backend=backend, connection=connection, progress=progress, costs=costs)


@dataclass(frozen=True, slots=True)
class Held:
    """A run that no other process trains, and what is done about it once its model is open and it is known which step is next.

    Attributes:
        is_judged_anew: what a judge said of the step in flight is forgotten: it would say something else now.
        rate_text: what the settings do to the learning rate of a run that has made so many steps; empty for nothing.
    """

    is_resumed: bool = False
    is_judged_anew: bool = False
    rate_text: Callable[[int], str] = field(default=lambda _: "")


def hold(
    opened: OpenRun,
    settings: NamedTraining | McpTrain,
    *,
    kind: str,
    is_resumed: bool,
    allow_changed_settings: bool,
    rate_of: Callable[[Any, int], float],
) -> Held:
    """Create the run, or go on with it under `settings`; notes which of them are not the defaults, and which changed. Blocks on the store.

    From now on no other process trains in it.

    `rate_of`: the learning rate that settings give a step (from 0), to say what a change does to it.

    Raises:
        StoreError: another process trains in the run; nothing of it was changed.
        SettingError: a new run under an id that is taken, or settings that a resumed run cannot take.
    """
    opened.backend.hold_run(opened.run)
    store, progress, run = opened.store, opened.progress, opened.run
    if not is_resumed and any(info.id == run for info in store.runs.list()):
        hint = f"go on with it: --resume {run}; or give another --run"
        raise SettingError(f"there is a run {run!r} in {opened.home} already", hint=hint, reason="run_exists")
    info = store.runs.create(run, kind=kind, base=settings.base, settings=settings.model_dump(mode="json"))
    progress.note(f"run {info.id} in {opened.folder.path}")
    changed = non_default_settings(settings).items()
    if listed := [f"{name} = {value}" for name, value in changed if name.partition(".")[0] != "target"]:  # the title has the server
        progress.note("not the defaults: " + ", ".join(listed))
    held = Held()
    if is_resumed:
        before = type(settings).model_validate(info.settings)
        changes = accept_settings(store, run, settings, are_allowed=allow_changed_settings)
        for change in changes:
            progress.note(f"goes on with {change}")
        rate_text = partial(rate_change, before=partial(rate_of, before), after=partial(rate_of, settings))
        held = Held(True, is_other_judge(changes), rate_text)
    opened.costs.keep_in(opened.folder.costs)
    return held


async def open_model(opened: OpenRun, held: Held, name: str, lora: LoraSettings) -> TrainableModel:
    """The run's model where it stopped, and the run's verdicts as far as the model is. Notes which step that is.

    Errors as `Connection.model`.
    """
    model = await opened.connection.model(name, run=opened.run, lora=lora)
    for note in opened.backend.opening_notes(name):
        opened.progress.warn(note)
    if held.is_resumed:
        opened.progress.note(f"resumed at step {model.step}")
    num_made = await asyncio.to_thread(_forget_verdicts, opened, held, model.step)
    if text := held.rate_text(num_made):
        opened.progress.note(text)
    return model


def _forget_verdicts(opened: OpenRun, held: Held, step: int) -> int:
    """Forget what another judge said of the step in flight; returns the steps that were made since the warm start."""
    num_made = step - warm_steps(opened.store, opened.run)
    if held.is_judged_anew:
        for phase, number in (("train", num_made), ("warmup", step)):
            opened.store.rollouts.forget_verdicts(opened.run, step_key(phase, number))
    return num_made


def warm_steps(store: Store, run: str) -> int:
    """The step that the warm start is at, or ended at; 0 where there was none."""
    rows = store.runs.steps(run)
    trained = {row.step for row in rows if row.phase == "train"}  # earlier versions kept steps of `method: sft` under both phases
    return max((row.step for row in rows if row.phase == "warmup" and row.step not in trained), default=0)


@asynccontextmanager
async def kept_state(opened: OpenRun) -> AsyncIterator[None]:
    """Keep in the run's row how the block ended."""
    await opened.update(state="running")
    try:
        yield
    except (asyncio.CancelledError, SystemExit):  # an exit: nobody reads the program's output any more
        await opened.update(state="stopped")
        raise
    except JudgeError as error:
        # The budget is spent, the judge is away or a reward function failed: mended, the run goes on with --resume.
        await opened.update(state="stopped", error=error.message)
        raise
    except Exception as error:
        await opened.update(state="failed", error=error.message if isinstance(error, JourneymanError) else repr(error))
        raise
    await opened.update(state="done", phase="done")


def run_id_of(name: str) -> str:
    """The name and the time."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def rate_factor(number: int, steps: int, *, warmup_steps: int = 0, decay_to: float = 1.0) -> float:
    """What the learning rate of step `number` (from 0) of `steps` is multiplied by.

    It rises over `warmup_steps` in equal parts, then falls in a straight line to `decay_to` at the last step.

    Example:
        >>> [round(rate_factor(number, 5, warmup_steps=2, decay_to=0.5), 2) for number in range(5)]
        [0.33, 0.67, 1.0, 0.75, 0.5]
    """
    if number < warmup_steps:
        return (number + 1) / (warmup_steps + 1)
    done = (number - warmup_steps) / max(steps - 1 - warmup_steps, 1)
    return 1.0 - min(done, 1.0) * (1.0 - decay_to)


def rate_change(num_made: int, before: Callable[[int], float], after: Callable[[int], float]) -> str:
    """What a resume behind so many steps does to the learning rate under other settings; empty when it goes on as it would have.

    Args:
        before, after: the learning rate of a step (from 0) under the old settings and under the new ones.
    """
    if num_made == 0 or after(num_made) == before(num_made):
        return ""
    return (
        f"the learning rate was {before(num_made - 1):.2e} in step {num_made} and will be {after(num_made):.2e} in step {num_made + 1}: "
        "there the schedule of the settings as they are now has it"
    )
