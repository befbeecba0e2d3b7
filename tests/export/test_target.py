"""What stands at the place of an export is never lost by accident, and nothing half-written stays."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.errors import SettingError, StoreError
from journeyman.export.export import MANIFEST, check_room, check_target, fresh_folder


def earlier_export(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    (folder / "weights").write_text("old")
    return folder


def test_a_free_place_and_an_empty_folder_are_taken(tmp_path: Path) -> None:
    check_target(tmp_path / "new", may_replace=False)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", may_replace=False)


def test_an_earlier_export_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = earlier_export(tmp_path / "out")
    with pytest.raises(SettingError) as caught:
        check_target(target, may_replace=False)
    assert caught.value.reason == "already_exported"
    check_target(target, may_replace=True)


def test_a_folder_that_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(SettingError) as caught:
            check_target(place, may_replace=True)
        assert caught.value.reason == "not_an_export"


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        check_room(tmp_path / "not" / "there" / "yet", 10**15)
    assert caught.value.reason == "no_room"
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_and_what_was_there_before(tmp_path: Path) -> None:
    def write_too_much() -> None:
        with fresh_folder(target) as folder:
            (folder / "weights").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    target = earlier_export(tmp_path / "out")
    with pytest.raises(StoreError, match="No space left"):
        write_too_much()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "weights").read_text() == "old"


@pytest.mark.parametrize("name", ["a[1]", "*", "?", "what? 100%20 #1", "a'b", "[!x]", "日本", "{a,b}", "a b", "~x"])
def test_any_name_is_a_place_and_only_its_own_left_overs_go(name: str, tmp_path: Path) -> None:
    (tmp_path / f".writing-{name}-1234").mkdir()
    (tmp_path / ".writing-x-1234").mkdir()
    (tmp_path / ".writing-a1-1234").mkdir()
    with fresh_folder(tmp_path / name) as folder:
        (folder / "weights").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {name, ".writing-x-1234", ".writing-a1-1234"}


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with fresh_folder(tmp_path / "out") as folder:
            (folder / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_kill_leaves_no_export_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "out"
    program = f"""
import os, signal
from pathlib import Path
from journeyman.export.export import fresh_folder
with fresh_folder(Path({str(target)!r})) as folder:
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=100, check=False)
    assert result.returncode == -signal.SIGKILL
    assert not target.exists()
    with fresh_folder(target) as folder:
        (folder / "weights").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "weights").read_text() == "whole"


def test_an_export_beside_this_one_is_no_left_over(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with fresh_folder(target) as first:
        (first / "weights").write_text("first")
        with fresh_folder(target) as second:
            (second / "weights").write_text("second")
        assert (first / "weights").read_text() == "first"
    assert (target / "weights").read_text() == "first"
