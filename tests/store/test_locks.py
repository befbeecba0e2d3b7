"""A folder is deleted only while nobody can begin to serve it."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from pathlib import Path

import pytest

from journeyman.store.locks import ServedFolder, claim, is_served


def made(path: Path, content: str = "x") -> Path:
    path.mkdir()
    (path / "weights").write_text(content)
    return path


def test_a_folder_that_is_served_cannot_be_claimed(tmp_path: Path) -> None:
    folder = made(tmp_path / "m@1")
    served = ServedFolder(folder)
    assert claim(folder) is None
    served.release()
    claimed = claim(folder)
    assert claimed is not None
    assert is_served(folder)
    claimed.release()
    assert not is_served(folder)
    assert folder.is_dir()


def test_a_claimed_folder_that_is_deleted_is_gone_and_one_that_was_gone_is_no_error(tmp_path: Path) -> None:
    folder = made(tmp_path / "m@1")
    for _ in range(2):
        claimed = claim(folder)
        assert claimed is not None
        claimed.delete()
        assert not folder.exists()


async def test_whoever_waited_for_a_folder_that_was_deleted_is_told_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "m@1")
    claimed = claim(folder)
    assert claimed is not None
    waiting = waiter(monkeypatch)
    serving = asyncio.create_task(asyncio.to_thread(ServedFolder, folder))
    await asyncio.to_thread(waiting.wait, 30)
    claimed.delete()
    with pytest.raises(FileNotFoundError):
        await serving


async def test_whoever_waited_for_a_folder_that_was_replaced_has_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "m@1")
    claimed = claim(folder)
    assert claimed is not None
    waiting = waiter(monkeypatch)
    serving = asyncio.create_task(asyncio.to_thread(ServedFolder, folder))
    await asyncio.to_thread(waiting.wait, 30)
    folder.rename(tmp_path / "old")
    made(folder, "new")
    claimed.release()
    served = await serving
    assert is_served(folder)
    assert not is_served(tmp_path / "old")
    served.release()


def waiter(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when somebody has opened a folder and is about to lock it."""
    lock, waiting = fcntl.flock, threading.Event()

    def flock(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH:
            waiting.set()
        lock(descriptor, how)

    monkeypatch.setattr("journeyman.store.locks.fcntl.flock", flock)
    return waiting
