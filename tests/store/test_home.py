"""A file that is written is there after a power loss: whole, or as it was before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.reasons import has_reason

from journeyman.errors import StoreError
from journeyman.store.home import write_durably


def test_a_file_is_synced_before_it_takes_its_name_and_the_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        happened.append(f"synced {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        happened.append(f"renamed to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_durably(tmp_path / "run" / "costs.json", b"1")
    assert happened == [f"synced {tmp_path.name}", "synced .costs.json.part", "renamed to costs.json", "synced run"]
    assert (tmp_path / "run" / "costs.json").read_bytes() == b"1"


def test_a_file_that_cannot_be_written_stays_as_it_was_and_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "costs.json"
    write_durably(path, b"1")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, check=has_reason("not_writable")):
        write_durably(path, b"2")
    assert path.read_bytes() == b"1"
