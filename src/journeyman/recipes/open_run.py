"""A run that is being worked on: the loaded base model, its server and client, the store, progress and what it costs.

What every recipe needs. Not for what one recipe adds (`session.py`: the MCP server and its agent).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from journeyman.client.backend import Connection
from journeyman.errors import JourneymanError, JudgeError, SettingError
from journeyman.local import open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.resume import accept_settings
from journeyman.recipes.session import Costs
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.store.layout import RunFolder
from journeyman.types.record import Record
from journeyman.types.settings import changed_settings


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


@asynccontextmanager
async def open_run(run: str, base: str, home: Path, progress: Progress, *, workers: int | None = None) -> AsyncIterator[OpenRun]:
    """Load the base model and serve it while the block runs."""
    costs = Costs()
    with costs.phase("start"):
        progress.phase("load", note=base)
        backend = open_backend(base, home=home, num_workers=workers, note=progress.note)
    async with serving(backend) as connection:
        info = backend.engine.info
        progress.note(f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers")
        yield OpenRun(run, home, backend, connection, progress, costs)


def begin(opened: OpenRun, settings: Record, *, kind: str, base: str, is_resumed: bool, allow_changed_settings: bool = False) -> None:
    """Create the run, or go on with it under `settings`; says which of them are not the defaults, and which changed.

    Raises SettingError for a new run under an id that is taken, or settings that a resumed run cannot take.
    """
    store, progress, run = opened.store, opened.progress, opened.run
    if not is_resumed and any(info.id == run for info in store.runs.list()):
        raise SettingError(f"there is a run {run!r} in {opened.home} already", hint=f"go on with it: --resume {run}; or give another --run")
    info = store.runs.create(run, kind=kind, base=base, settings=settings.model_dump(mode="json"))
    progress.note(f"run {info.id} in {opened.folder.path}" + (f", resumed at step {info.step}" if is_resumed else ""))
    if changed := [f"{name} = {value}" for name, value in changed_settings(settings).items()]:
        progress.note("not the defaults: " + ", ".join(changed))
    if is_resumed:
        for change in accept_settings(store, run, settings, are_allowed=allow_changed_settings):
            progress.note(f"goes on with {change}")


@asynccontextmanager
async def kept_state(opened: OpenRun) -> AsyncIterator[None]:
    """The run's row tells how the block ended."""
    runs = opened.store.runs
    runs.update(opened.run, state="running")
    try:
        yield
    except asyncio.CancelledError:
        runs.update(opened.run, state="stopped")
        raise
    except JudgeError as error:
        # The budget is spent, the judge is away or a reward function failed: mended, the run goes on with --resume.
        runs.update(opened.run, state="stopped", error=error.message)
        raise
    except Exception as error:
        runs.update(opened.run, state="failed", error=error.message if isinstance(error, JourneymanError) else repr(error))
        raise
    runs.update(opened.run, state="done", phase="done")
