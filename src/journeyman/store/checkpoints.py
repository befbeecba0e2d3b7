"""Checkpoint folders: written aside, synced, renamed, so that `kill -9` at any point leaves the newest complete one readable.

A checkpoint is `step-000007/` holding what the trainer wrote and `checkpoint.json`: the step, what the service wants to remember,
and name and size of every file. Not for what is inside: the trainer writes and reads that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.errors import StoreError

_MANIFEST = "checkpoint.json"
_COMPLETE = re.compile(r"step-(\d{6,})")
_ASIDE = ".writing-"
_REPLACED = ".replaced-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint. `memo` is what the writer wanted to remember with it."""

    step: int
    folder: Path
    memo: Mapping[str, Any]


class Checkpoints:
    """The checkpoints under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, step: int, write: Callable[[Path], None], memo: Mapping[str, Any] | None = None) -> Checkpoint:
        """Make a checkpoint of what `write` puts into the folder it is given; complete and durable when this returns.

        A checkpoint of the same step is replaced. Raises StoreError when the disk is full or the folder cannot be written; then
        nothing of it stays, and what was there before is untouched.
        """
        target = self._folder / f"step-{step:06d}"
        with replaced_folder(target) as aside:
            write(aside)
            manifest = {"step": step, "memo": dict(memo or {}), "files": _sizes(aside)}
            (aside / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return Checkpoint(step, target, dict(memo or {}))

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint with the highest step; damaged ones are passed over."""
        return next(iter(self.list()), None)

    def list(self) -> tuple[Checkpoint, ...]:
        """All complete checkpoints, the highest step first."""
        if not self._folder.is_dir():
            return ()
        found = (_load(entry) for entry in self._folder.iterdir() if _COMPLETE.fullmatch(entry.name))
        complete = [checkpoint for checkpoint in found if checkpoint is not None]
        return tuple(sorted(complete, key=lambda checkpoint: checkpoint.step, reverse=True))

    def keep_newest(self, count: int) -> None:
        """Delete all complete checkpoints but the `count` newest."""
        for checkpoint in self.list()[max(count, 1) :]:
            self.delete(checkpoint)

    def delete(self, checkpoint: Checkpoint) -> None:
        # Renamed first: a kill half-way through the deletion must not leave half a checkpoint under a good name.
        doomed = checkpoint.folder.with_name(f"{_REPLACED}{checkpoint.folder.name}-{secrets.token_hex(4)}")
        checkpoint.folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed writer left behind. Only for the one process that writes here."""
        clean_leftovers(self._folder)


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A fresh folder to fill; when the block ends well it is synced and renamed to `target`, otherwise removed.

    Raises StoreError when the disk is full or the place cannot be written.
    """
    suffix = f"{target.name}-{secrets.token_hex(4)}"
    aside = target.with_name(_ASIDE + suffix)
    try:
        aside.mkdir(parents=True)
        yield aside
        _sync_tree(aside)
        replaced = target.with_name(_REPLACED + suffix)
        if target.exists():
            target.rename(replaced)
        aside.rename(target)
        _sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {target}: {error.strerror or error}",
            hint=f"free some disk space, or make {target.parent} writable; what was there before is untouched",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clean_leftovers(folder: Path) -> None:
    """Remove half-written and half-deleted folders that a killed process left in `folder`."""
    if not folder.is_dir():
        return
    entries = [entry.name for entry in folder.iterdir()]
    for name in entries:
        path = folder / name
        original = _original_name(name)
        if original is not None and original not in entries and name.startswith(_REPLACED) and _load(path) is not None:
            # Killed between the two renames of a replacement: the older one is still the newest complete one of its step.
            path.rename(folder / original)
        elif original is not None:
            shutil.rmtree(path, ignore_errors=True)


def _original_name(name: str) -> str | None:
    for prefix in (_ASIDE, _REPLACED):
        if name.startswith(prefix):
            return name.removeprefix(prefix).rpartition("-")[0]
    return None


def _load(folder: Path) -> Checkpoint | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sizes = _sizes(folder)
        sizes.pop(_MANIFEST, None)
        if sizes != manifest["files"]:
            return None
        return Checkpoint(int(manifest["step"]), folder, manifest["memo"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not complete


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
