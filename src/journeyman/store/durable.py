"""Files and folders that are there after a power loss, whole or not at all. Not for folders of several files: `checkpoints.py`."""

from __future__ import annotations

import os
from pathlib import Path

from journeyman.errors import StoreError


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
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


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
