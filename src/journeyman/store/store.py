"""The store of a home folder: every noun in one place.

    store = Store.open(Path(".journeyman"))
    store.runs       create, get, list, update, add_step, steps                          (runs.py)
    store.models     create, find, list, add_adapter, adapters, orphan_adapters          (models.py)
    store.rollouts   open, get, find_by_token, append_turn, turns, seal, trajectory, ... (rollouts.py)
    store.jobs       add, get, find, set_status, unfinished                              (runs.py)
    store.undo_after back to an earlier step of a run
    store.home       where the files lie                                                 (home.py)

Synchronous and thread-safe: call it from any thread. What a method wrote is durable when it returns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sqlalchemy import Integer, cast, delete, func, select, update

from journeyman.config import path_of
from journeyman.store.database import ADAPTERS, JOBS, ROLLOUTS, RUNS, STEPS, Database
from journeyman.store.home import HomeFolder
from journeyman.store.models import AdapterRow, Models
from journeyman.store.rollouts import Rollouts
from journeyman.store.runs import JobTable, Runs


@dataclass(frozen=True, slots=True)
class Undone:
    """What there was of later steps: their numbers, and the versions that are published no more."""

    steps: tuple[int, ...] = ()
    adapters: tuple[AdapterRow, ...] = ()


class Store:
    """Use `Store.open`; close it, or use it as a context manager."""

    def __init__(self, home: HomeFolder, database: Database) -> None:
        self.home = home
        self._database = database
        self.runs = Runs(database)
        self.models = Models(database, home.path)
        self.rollouts = Rollouts(database)
        self.jobs = JobTable(database)

    @classmethod
    def open(cls, home: Path) -> Store:
        """Open the store under `home`, creating both when absent.

        Raises:
            StoreError: the folder is read-only, the disk is full, or a newer version of Journeyman wrote the store.
        """
        folder = HomeFolder(path_of(home).resolve())
        return cls(folder, Database(folder.database))

    def undo_after(self, run: str, model: str, step: int) -> Undone:
        """Forget the steps of `run` after `step`, all of it or nothing: they will be made again. Not their folders.

        Their rows go, measurements of their versions among them; the keys of their jobs are free for other jobs; attempts that their
        versions made are found by no key, since the versions to come may have other weights.
        """
        made_later = (JOBS.c.run == run) & (JOBS.c.model == model) & (func.json_extract(JOBS.c.result, "$.step") > step)
        with self._database.write() as connection:
            rows = connection.execute(select(STEPS.c.step).where(STEPS.c.run == run, STEPS.c.step > step).distinct()).scalars().all()
            adapters = tuple(row for row in self.models.published(connection, run, model) if row.step > step)
            connection.execute(delete(STEPS).where(STEPS.c.run == run, STEPS.c.step > step))
            connection.execute(
                update(ADAPTERS).where(ADAPTERS.c.run == run, ADAPTERS.c.model == model, ADAPTERS.c.step > step).values(state="orphaned")
            )
            connection.execute(update(JOBS).where(made_later).values(key=None))
            version = cast(func.substr(ROLLOUTS.c.model, len(model) + 2), Integer)
            of_model = ROLLOUTS.c.model.startswith(f"{model}@", autoescape=True)
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == run, of_model, version > step).values(key=None))
            connection.execute(update(RUNS).where(RUNS.c.id == run, RUNS.c.step > step).values(step=step, updated_at=time.time()))
        return Undone(tuple(sorted(rows)), adapters)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
