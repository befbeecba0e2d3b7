"""A run that is being worked on: the loaded base model, its server and client, the store, progress and what it costs.

What every recipe needs. Not for what one recipe adds (`session.py`: the MCP server and its agent).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from journeyman.client.backend import Connection
from journeyman.client.models import TrainableModel
from journeyman.errors import JourneymanError, JudgeError, SettingError
from journeyman.local import open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.costs import Costs
from journeyman.recipes.places import warm_steps
from journeyman.recipes.resume import accept_settings, is_other_judge, step_key
from journeyman.recipes.schedule import rate_change
from journeyman.rewards.judge import Judge
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.store.layout import RunFolder
from journeyman.types.names import check_name
from journeyman.types.record import Record
from journeyman.types.retention import Retention
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import LoraSettings, changed_settings
from journeyman.types.trajectory import Group


@dataclass(slots=True)
class OpenRun:
    """Everything open while a run trains or is evaluated."""

    run: str
    home: Path
    backend: Backend
    connection: Connection
    progress: Progress
    costs: Costs

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

    async def add_step(self, step: StepMetrics) -> None:
        await asyncio.to_thread(self.store.runs.add_step, step)


@asynccontextmanager
async def open_run(
    run: str, base: str, home: Path, progress: Progress, *, workers: int | None = None, retention: Retention | None = None
) -> AsyncIterator[OpenRun]:
    """Load the base model and serve it while the block runs. `retention`: which checkpoints and adapters stay on disk."""
    check_name(run, "the id of a run")
    costs = Costs()
    async with costs.phase("start"):
        progress.phase("load", note=base)
        backend = await asyncio.to_thread(open_backend, base, home=home, num_workers=workers, note=progress.note, retention=retention)
    costs.count_tokens(lambda: backend.sampling.num_sampled_tokens)
    async with serving(backend) as connection:
        info = backend.engine.info
        progress.note(f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers")
        yield OpenRun(run, home, backend, connection, progress, costs)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that is this process's own, and what is done about it once its model is open and it is known which step is next.

    Attributes:
        is_judged_anew: what a judge said of the step in flight is forgotten: it would say something else now.
        rate_text: what the settings do to the learning rate of a run that has made so many steps; empty for nothing.
    """

    is_resumed: bool = False
    is_judged_anew: bool = False
    rate_text: Callable[[int], str] = field(default=lambda _: "")


async def begin(
    opened: OpenRun,
    settings: Record,
    *,
    kind: str,
    base: str,
    is_resumed: bool,
    allow_changed_settings: bool = False,
    untold: str | None = None,
    rate_of: Callable[[Any, int], float] | None = None,
) -> Begun:
    """Create the run, or go on with it under `settings`; says which of them are not the defaults (but for `untold`), and which changed.

    From now on no other process trains in it.

    `rate_of`: the learning rate that settings give a step (from 0), to say what a change does to it.

    Raises:
        StoreError: another process trains in the run; nothing of it was changed.
        SettingError: a new run under an id that is taken, or settings that a resumed run cannot take.
    """
    return await asyncio.to_thread(
        _begin,
        opened,
        settings,
        kind=kind,
        base=base,
        is_resumed=is_resumed,
        allow_changed_settings=allow_changed_settings,
        untold=untold,
        rate_of=rate_of,
    )


def _begin(
    opened: OpenRun,
    settings: Record,
    *,
    kind: str,
    base: str,
    is_resumed: bool,
    allow_changed_settings: bool,
    untold: str | None,
    rate_of: Callable[[Any, int], float] | None,
) -> Begun:
    opened.backend.hold_run(opened.run)
    store, progress, run = opened.store, opened.progress, opened.run
    if not is_resumed and any(info.id == run for info in store.runs.list()):
        raise SettingError(f"there is a run {run!r} in {opened.home} already", hint=f"go on with it: --resume {run}; or give another --run")
    info = store.runs.create(run, kind=kind, base=base, settings=settings.model_dump(mode="json"))
    progress.note(f"run {info.id} in {opened.folder.path}")
    if changed := [f"{name} = {value}" for name, value in changed_settings(settings).items() if not _is_part(name, untold)]:
        progress.note("not the defaults: " + ", ".join(changed))
    begun = Begun()
    if is_resumed:
        before = type(settings).model_validate(info.settings)
        changes = accept_settings(store, run, settings, are_allowed=allow_changed_settings)
        for change in changes:
            progress.note(f"goes on with {change}")
        rate_text = None if rate_of is None else partial(rate_change, before=partial(rate_of, before), after=partial(rate_of, settings))
        begun = Begun(True, is_other_judge(changes), rate_text or Begun().rate_text)
    opened.costs.keep_in(opened.folder.costs)
    return begun


async def open_model(opened: OpenRun, begun: Begun, name: str, lora: LoraSettings, *, warm_phase: str | None = None) -> TrainableModel:
    """The run's model where it stopped, and the run as far as the model is: see `places.py`. Says which step that is.

    `warm_phase`: the phase whose steps come before the training itself, if there is one. Errors as `Connection.model`.
    """
    model = await opened.connection.model(name, run=opened.run, lora=lora)
    for note in opened.backend.opening_notes(name):
        opened.progress.warn(note)
    if begun.is_resumed:
        opened.progress.note(f"resumed at step {model.step}")
    made = await asyncio.to_thread(_found_place, opened, begun, model.step, warm_phase)
    if text := begun.rate_text(made):
        opened.progress.note(text)
    return model


def _found_place(opened: OpenRun, begun: Begun, step: int, warm_phase: str | None) -> int:
    """Bring the run's verdicts to where its model is; returns the steps that were made since the warm start."""
    made = step - warm_steps(opened.store, opened.run, warm_phase)
    if begun.is_judged_anew:
        for phase, number in (("train", made), ("warmup", step)):
            opened.store.rollouts.forget_verdicts(opened.run, step_key(phase, number))
    return made


def _is_part(name: str, of: str | None) -> bool:
    return of is not None and (name == of or name.startswith(f"{of}."))


@asynccontextmanager
async def kept_state(opened: OpenRun) -> AsyncIterator[None]:
    """The run's row tells how the block ended."""
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
