"""A home folder may have any name: a path is a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journeyman.config import path_of
from journeyman.errors import SettingError
from journeyman.store import Store

ODD = ["what?mode=ro", "100%20 sure", "#1", "a;b&c", 'it\'s "quoted"', "grüße 家", "file:x", "[glob]*", "x/~nobody"]


@pytest.mark.parametrize("name", ODD)
def test_everything_lies_in_the_home_folder_that_was_named(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    with Store.open(home) as store:
        store.runs.create("r", kind="grpo", base="base")
    assert (home / "journeyman.db").is_file()
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(home) and not home.is_relative_to(path)]
    assert outside == []
    with Store.open(home) as store:
        assert [run.id for run in store.runs.list()] == ["r"]


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(SettingError) as caught:
        path_of("a\0b")
    assert caught.value.reason == "no_path"


def test_a_tilde_means_home_only_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert (str(path_of("~/x")), str(path_of("x/~"))) == ("/home/me/x", "x/~")


@pytest.mark.parametrize("text", [os.fsdecode(b"h\xff"), "x" * 5000, "a/" * 3000, "x" * 300])
def test_a_path_that_cannot_be_printed_or_is_too_long_is_refused(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        path_of(text)
    assert caught.value.reason == "no_path"
