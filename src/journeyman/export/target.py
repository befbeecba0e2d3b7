"""The folder an export is written to: written aside and renamed when it has been checked, so that it is whole or not there.

Not for what is in it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journeyman.errors import SettingError, StoreError
from journeyman.store.checkpoints import Reached, pass_by, replaced_folder
from journeyman.store.locks import ServedFolder, is_served

MANIFEST = "journeyman.json"


def check_target(target: Path, *, may_replace: bool) -> None:
    """Raises SettingError when something stands at `target` that may not be replaced: only an earlier export ever may."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        raise SettingError(f"{target} is there already and is no export", hint="give another folder with --out; it will be made")
    if not may_replace:
        raise SettingError(f"{target} is there already", hint="replace that export with --force, or give another folder with --out")


def check_room(target: Path, num_bytes: int) -> None:
    """Raises StoreError when the disk of `target` has no room for `num_bytes`."""
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise StoreError(
            f"the export needs {num_bytes / 1e9:.2f} GB under {target.parent}, where {free / 1e9:.2f} GB are free",
            hint="free some disk space, or give a folder on another disk with --out",
        )


@contextlib.contextmanager
def fresh_folder(target: Path, reached: Reached = pass_by) -> Iterator[Path]:
    """A folder to fill; when the block ends well it becomes `target`, otherwise nothing of it stays.

    What killed exports of the same target left behind is removed. Raises StoreError when the disk is full or cannot be written.
    """
    _clean(target)
    with replaced_folder(target, reached, "export") as aside:
        held = ServedFolder(aside)  # an export beside this one must not take it for a left-over
        try:
            yield aside
        finally:
            held.release()


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _clean(target: Path) -> None:
    for left in target.parent.glob(f".writing-{glob.escape(target.name)}-*"):
        if left.is_dir() and not is_served(left):
            shutil.rmtree(left, ignore_errors=True)
