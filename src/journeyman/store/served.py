"""A folder that some process on this machine serves is never deleted: a shared lock of the operating system on the folder itself.

The lock is gone when its process ends, however it ends. Not for keeping two trainers apart: see `run_lock.py`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path


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
