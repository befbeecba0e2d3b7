"""Where things lie under a home folder, and how a file there is written so that it survives a power loss, whole or not at all.

Not for folders of several files: `checkpoints.py`.

journeyman.db
runs/<run>/config.json, scenarios.jsonl, adapters/<model>@<step>/, checkpoints/step-000007/, report/, evaluations/, costs.json, exports/
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from journeyman.errors import StoreError
from journeyman.types.names import check_name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def scenarios(self) -> Path:
        return self.path / "scenarios.jsonl"

    @property
    def adapters(self) -> Path:
        return self.path / "adapters"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def costs(self) -> Path:
        return self.path / "costs.json"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def lock(self) -> Path:
        return self.path / ".training.lock"


@dataclass(frozen=True, slots=True)
class HomeFolder:
    """The folder that holds everything; absolute."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "journeyman.db"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, run: str) -> RunFolder:
        """Raises InputError for an id that is no name of a folder in `runs`."""
        check_name(run, "the id of a run")
        return RunFolder(self.runs / run)


def write_durably(path: Path, data: bytes) -> None:
    """Put `data` in the place of what `path` holds: written aside, synced, renamed. Its folders are made. Raises StoreError."""
    aside = path.with_name(f".{path.name}.part")
    try:
        make_folder(path.parent)
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}",
            hint=f"free some disk space, or make {path.parent} writable; what was there before is untouched",
            reason="not_writable",
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them synced into the one that it lies in. One that is there stays as it is."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """What a file holds, or which names a folder has, is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
