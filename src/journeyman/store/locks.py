"""Locks of the operating system, gone when their process ends, however it ends.

One process at a time trains in a run (`RunLock`, on a file of the run), and a folder that some process on this machine serves is never
deleted (`ServedFolder`, shared; `claim`, exclusive; on the folder itself).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Final

from journeyman.errors import StoreError
from journeyman.types.runs import RunInfo

#: Why a run that says of itself that it is running is shown as stopped.
GONE: Final = "its process is gone"

_PATIENCE_SECONDS = 0.5


class RunLock:
    """Held from `RunLock(path)` to `release()`. Raises StoreError when another process (or another lock here) holds it."""

    def __init__(self, path: Path, run: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror}",
                hint="make the home folder writable, or give another one with --home",
                reason="not_writable",
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                f"run {run!r} is being trained by another process (id {holder or 'unknown'})",
                hint="wait for it or stop it; to train something else meanwhile, give it a run of its own",
                reason="run_in_use",
            ) from error
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def _is_training(path: Path) -> bool:
    """Whether any process, this one included, trains under this lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def as_it_is(info: RunInfo, lock: Path) -> RunInfo:
    """The run as it is to be shown: one whose process was killed could not say so itself."""
    if info.state != "running" or _is_training(lock):
        return info
    return info.model_copy(update={"state": "stopped", "error": info.error or GONE})


def _lock(descriptor: int) -> None:
    # Whoever only asks whether the lock is held has it for an instant: that is no other trainer.
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class ServedFolder:
    """Held from `ServedFolder(path)` to `release()`; several holders at once are fine. Raises OSError when there is no such folder."""

    def __init__(self, path: Path) -> None:
        while True:
            self._descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                # What was opened may have been deleted, or replaced, while somebody else held it.
                if os.path.samestat(os.fstat(self._descriptor), os.stat(path)):
                    return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


class Claim:
    """A folder that nobody holds, and that nobody can take until `delete` or `release`. Made by `claim`; `None`: there is no folder."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def delete(self) -> None:
        """Delete the folder, and let go of it."""
        try:
            shutil.rmtree(self._path, ignore_errors=True)
        finally:
            self.release()

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def claim(path: Path) -> Claim | None:
    """Take a folder in order to delete it; None when any process, this one included, holds it. Does not wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Claim(path, None)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return Claim(path, descriptor)


def is_served(path: Path) -> bool:
    """Whether any process, this one included, holds `path`. A folder that is not there is not served."""
    claimed = claim(path)
    if claimed is not None:
        claimed.release()
    return claimed is None
