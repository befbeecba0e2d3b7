"""A checkpoint is complete or absent, wherever its writer is killed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file
from tests.reasons import has_reason

from journeyman.errors import StoreError
from journeyman.store import Checkpoints
from journeyman.store import checkpoints as store_checkpoints
from journeyman.store import home as store_home
from journeyman.store.checkpoints import CHECKPOINT_FORMAT, Damaged, replaced_folder

_NEW = ("format", "version")


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "weights.bin").write_text(text)
        (folder / "sub" / "optimizer.bin").write_text(text * 2)

    return write


def test_the_newest_checkpoint_is_found_with_its_memo(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None
    checkpoints.save(9, writer("nine"), {"job": "j9"})
    checkpoints.save(10, writer("ten"), {"job": "j10"})
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.memo) == (10, {"job": "j10"})
    assert (newest.folder / "weights.bin").read_text() == "ten"


def test_what_is_kept_stays_and_so_does_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(5):
        checkpoints.save(step, writer(str(step)))
    checkpoints.keep({1, 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000003", "step-000004"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))
    checkpoints.save(1, writer("new"))
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.folder / "weights.bin").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "missing", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"))
    bad = checkpoints.save(2, writer("good")).folder
    if damage == "cut":
        (bad / "weights.bin").write_text("go")
    else:
        (bad / ("weights.bin" if damage == "missing" else "checkpoint.json")).unlink()
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 1


def inspected(checkpoints: Checkpoints) -> list[tuple[str, str]]:
    """Name of each checkpoint, the newest first, and what is wrong with it."""
    return [(one.folder.name, one.reason if isinstance(one, Damaged) else "") for one in checkpoints.inspected()]


@pytest.mark.parametrize("name", ["weights.bin", "sub/optimizer.bin"])
def test_damage_that_keeps_a_files_size_is_found_when_the_checkpoint_is_read(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"))
    bad = checkpoints.save(2, writer("good")).folder / name
    bad.write_bytes(bytes(len(bad.read_bytes())))
    assert inspected(checkpoints) == [("step-000002", f"other bytes than were written: {name}"), ("step-000001", "")]


def test_what_is_wrong_with_an_incomplete_checkpoint_is_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, writer("good"))
    (tmp_path / "step-000001" / "checkpoint.json").unlink()
    (tmp_path / "step-000002" / "checkpoint.json").write_text("{")
    (tmp_path / "step-000003" / "weights.bin").write_text("go")
    reasons = [reason for _, reason in inspected(checkpoints)]
    assert reasons[0] == "missing, cut or not its own: weights.bin"
    assert reasons[1].startswith("its checkpoint.json cannot be read: JSONDecodeError")
    assert reasons[2] == "it has no checkpoint.json"


def test_a_checkpoint_without_hashes_is_taken_by_its_sizes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    manifest = checkpoints.save(1, writer("good")).folder / "checkpoint.json"
    manifest.write_text(json.dumps({name: value for name, value in json.loads(manifest.read_text()).items() if name != "sha256"}))
    assert inspected(checkpoints) == [("step-000001", "")]


def test_a_damaged_checkpoint_that_is_set_aside_is_none_any_more_and_can_be_looked_at(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"))
    bad = checkpoints.save(2, writer("bad")).folder
    (bad / "weights.bin").write_text("...")
    (damaged, _) = checkpoints.inspected()
    assert isinstance(damaged, Damaged)
    aside = checkpoints.set_aside(damaged)
    checkpoints.clean()
    assert inspected(checkpoints) == [("step-000001", "")]
    assert aside.name.startswith("damaged-step-000002-")
    assert (aside / "weights.bin").read_text() == "..."


def test_a_deletion_that_a_kill_cut_off_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"))
    undone = checkpoints.save(2, writer("undone"))
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        checkpoints.delete(undone)
    checkpoints.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_replacement_that_fails_half_way_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name.startswith(".writing-"):
            raise OSError(28, os.strerror(28), str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StoreError, match="No space left"):
        checkpoints.save(1, writer("new"))
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.folder / "weights.bin").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_every_folder_on_the_way_is_on_disk_in_the_one_above_it_and_the_new_name_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = recorded(monkeypatch)
    Checkpoints(tmp_path / "runs" / "r" / "checkpoints").save(1, writer("good"))
    assert happened[:3] == [f"synced {folder}" for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs" / "r")]
    folder = tmp_path / "runs" / "r" / "checkpoints"
    assert happened[-2:] == [f"renamed to {folder / 'step-000001'}", f"synced {folder}"]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from now on, in order."""
    happened: list[str] = []
    real_sync, rename = store_home.sync, Path.rename

    def sync(path: Path) -> None:
        happened.append(f"synced {path}")
        real_sync(path)

    def renamed(path: Path, target: Path) -> Path:
        happened.append(f"renamed to {target}")
        return rename(path, target)

    for module in (store_home, store_checkpoints):
        monkeypatch.setattr(module, "sync", sync)
    monkeypatch.setattr(Path, "rename", renamed)
    return happened


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("the trainer broke")

    with pytest.raises(RuntimeError, match="the trainer broke"):
        Checkpoints(tmp_path).save(1, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_store_error_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))

    def full(folder: Path) -> None:
        raise OSError(28, os.strerror(28), str(folder))

    with pytest.raises(StoreError, match="No space left"):
        checkpoints.save(1, full)
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.folder / "weights.bin").read_text() == "old"


def test_a_checkpoint_of_a_newer_version_is_refused_and_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))
    manifest = checkpoints.save(2, writer("new")).folder / "checkpoint.json"
    newer = json.loads(manifest.read_text()) | {"format": CHECKPOINT_FORMAT + 1, "version": "9.9.9"}
    manifest.write_text(json.dumps(newer))
    with pytest.raises(StoreError, check=has_reason("newer_version")) as caught:
        checkpoints.newest()
    assert "9.9.9" in str(caught.value.hint)
    assert manifest.exists()


def test_a_checkpoint_of_the_first_format_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    manifest = checkpoints.save(1, writer("old"), {"job": "j"}).folder / "checkpoint.json"
    manifest.write_text(json.dumps({name: value for name, value in json.loads(manifest.read_text()).items() if name not in _NEW}))
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.memo, newest.version) == (1, {"job": "j"}, "an early version")


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A disk that is full once a file has that many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("step", [1, 2], ids=["the same step again", "a new step"])
@pytest.mark.parametrize("kind", ["text", "safetensors"])
def test_a_disk_that_runs_full_half_way_leaves_the_old_checkpoint_and_says_what_to_do(tmp_path: Path, kind: str, step: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))

    def large(folder: Path) -> None:
        if kind == "text":
            (folder / "weights.bin").write_text("x" * 100_000)
        else:
            save_file({"weights": numpy.zeros(25_000, dtype=numpy.float32)}, folder / "weights.bin")

    with files_of_at_most(4096), pytest.raises(StoreError, check=has_reason("not_writable")):
        checkpoints.save(step, large)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.folder / "weights.bin").read_text() == "old"


def test_an_adapter_folder_appears_whole(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "m@1") as aside:
        (aside / "adapter.bin").write_text("x")
        assert not (tmp_path / "m@1").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m@1"]


# The child replaces os functions by ones that kill it at a named point: before or after the n-th call of one of them.
_CHILD = """
import os, signal, sys
from pathlib import Path
from journeyman.store import Checkpoints

folder, function, number, when = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
owner = os if function == "fsync" else Path
real, calls = getattr(owner, function), 0

def lethal(*args, **options):
    global calls
    calls += 1
    if calls == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **options)
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

def write(target):
    (target / "weights.bin").write_text("new")
    (target / "optimizer.bin").write_text("new")

setattr(owner, function, lethal)
Checkpoints(folder).save(int(sys.argv[5]), write, {"text": "new"})
os._exit(0)
"""

_POINTS = [
    ("write_text", 1, "after"),  # one of two files written
    ("write_text", 3, "before"),  # all files, no manifest
    ("fsync", 1, "before"),  # manifest, nothing synced
    ("fsync", 3, "after"),  # half synced
    ("rename", 1, "before"),  # complete aside
    ("rename", 1, "after"),  # first rename done
    ("rename", 2, "before"),  # replacing: the old one is aside, the new one not yet there
    ("rename", 2, "after"),
]


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
@pytest.mark.parametrize(("function", "number", "when"), _POINTS)
def test_a_kill_at_any_point_leaves_a_complete_newest_checkpoint(tmp_path: Path, function: str, number: int, when: str, step: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"), {"text": "old"})
    command = [sys.executable, "-c", _CHILD, str(tmp_path), function, str(number), when, str(step)]
    process = subprocess.run(command, timeout=60, check=False)
    has_one_rename = step == 2
    expected = 0 if function == "rename" and number == 2 and has_one_rename else -signal.SIGKILL
    assert process.returncode == expected
    checkpoints.clean()
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.folder / "weights.bin").read_text() == newest.memo["text"]
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())
    next_one = Checkpoints(tmp_path).save(3, writer("next"))
    assert Checkpoints(tmp_path).newest() == next_one
