"""A folder that some process on this machine serves is never deleted: a shared lock of the operating system on the folder itself.

The lock is gone when its process ends, however it ends. Not for keeping two trainers apart: see `run_lock.py`.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class ServedFolder:
    """Held from `ServedFolder(path)` to `release()`; several holders at once are fine. Raises OSError when there is no such folder."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        os.close(self._descriptor)


def is_served(path: Path) -> bool:
    """Whether any process, this one included, holds `path`. A folder that is not there is not served."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
