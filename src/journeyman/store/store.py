"""The store of a home folder: every noun in one place.

    store = Store.open(Path(".journeyman"))
    store.runs       create, get, list, update, add_step, steps                          (runs.py)
    store.models     create, find, list, add_adapter, adapters, orphan_adapters          (models.py)
    store.rollouts   open, get, find_by_token, append_turn, turns, seal, trajectory, ... (rollouts.py)
    store.jobs       add, get, find, set_status, unfinished                              (jobs.py)
    store.undo_after back to an earlier step of a run                                    (undo.py)
    store.home       where the files lie                                                 (layout.py)

Synchronous and thread-safe: call it from any thread. What a method wrote is durable when it returns.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from journeyman.config import path_of
from journeyman.store.database import Database
from journeyman.store.jobs import JobTable
from journeyman.store.layout import HomeFolder
from journeyman.store.models import Models
from journeyman.store.rollouts import Rollouts
from journeyman.store.runs import Runs
from journeyman.store.undo import Undone, undo_after


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
        """Forget the steps of `run` after `step`, all of it or nothing."""
        return undo_after(self._database, self.models, run, model, step)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
