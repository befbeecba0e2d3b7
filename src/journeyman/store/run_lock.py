"""One process at a time trains in a run: an operating system lock on a file, gone when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from journeyman.errors import StoreError


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
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                f"run {run!r} is being trained by another process (id {holder or 'unknown'})",
                hint="wait for it or stop it; to train something else meanwhile, give it a run of its own",
            ) from error
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
