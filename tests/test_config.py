"""Settings from files, overrides and the environment, with errors that name the nearest valid key."""

from __future__ import annotations

import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from journeyman import config
from journeyman.config import cache_folder, command_line, home_folder, load_settings, parse_override, read_yaml
from journeyman.errors import SettingError
from journeyman.types.record import Record
from journeyman.types.settings import Grpo, LoraSettings, Sft


class Recipe(Record):
    steps: int = 3
    training: Grpo | Sft = Grpo()
    lora: LoraSettings = LoraSettings()
    names: tuple[str, ...] = ()


def test_later_sources_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("steps: 5\nlora: {rank: 4, alpha: 8}\ntraining: {method: grpo, learning_rate: 2e-4}\n")
    recipe = load_settings(Recipe, path, ["lora.rank=8", "names=[a, b]"], {"steps": 7})
    assert (recipe.steps, recipe.lora.rank, recipe.lora.alpha, recipe.names) == (7, 8, 8.0, ("a", "b"))
    assert recipe.training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("stepz=1", "did you mean 'steps'?"),
        ("lora.ranks=1", "did you mean 'rank'?"),
        ("lora.zzz=1", "known here: alpha, rank, seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(override: str, advice: str) -> None:
    with pytest.raises(SettingError, match="unknown setting") as caught:
        load_settings(Recipe, overrides=[override])
    assert advice in str(caught.value)


def test_a_value_that_does_not_fit_is_named_with_what_was_given() -> None:
    with pytest.raises(SettingError, match=r"lora\.rank: .* \(given: 0\)"):
        load_settings(Recipe, overrides=["lora.rank=0"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=3", (("a",), 3)),
        ("a.b=2e-4", (("a", "b"), 2e-4)),
        ("a=true", (("a",), True)),
        ("a=null", (("a",), None)),
        ("a=x=y", (("a",), "x=y")),
        ("a=", (("a",), None)),
        ("a=apple", (("a",), "apple")),
        ("a=3e", (("a",), "3e")),
    ],
)
def test_overrides_are_read_as_yaml(text: str, expected: object) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    "text", ["a", "=3", "a..b=3", "a=[1", "a=2024-99-99", "a=" + "[" * 5000, 'a="\\ud800"', "a=!!python/name:os.system"]
)
def test_unreadable_overrides_are_refused(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_override(text)
    assert caught.value.hint is not None


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(SettingError, match="holds a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(SettingError, match="is not YAML"):
        read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_folders_come_from_the_argument_then_the_environment_then_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYMAN_HOME", str(tmp_path / "env"))
    assert home_folder(tmp_path / "given") == tmp_path / "given"
    assert home_folder() == tmp_path / "env"
    monkeypatch.setenv("JOURNEYMAN_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert home_folder() == tmp_path / ".journeyman"
    monkeypatch.setenv("JOURNEYMAN_CACHE", "~/c")
    assert cache_folder() == Path.home() / "c"


def test_engine_processes_are_those_given_then_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.PROCESSES_VARIABLE, "3")
    assert (config.engine_processes(), config.engine_processes(0)) == (3, 0)
    monkeypatch.delenv(config.PROCESSES_VARIABLE)
    assert config.engine_processes() is None


class TestCommands:
    @pytest.fixture
    def script(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The program that was started, in a folder with a blank in its name, which is on the search path."""
        script = tmp_path / "my project" / ".venv" / "bin" / "journeyman"
        script.parent.mkdir(parents=True)
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "argv", [str(script), "mcp", "train"])
        monkeypatch.setenv("PATH", str(script.parent))
        return script

    def test_a_program_below_the_working_folder_is_named_by_its_relative_path(self, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(script.parents[2])
        assert command_line("serve", "--run", "a b", "--home", Path("/x")) == ".venv/bin/journeyman serve --run 'a b' --home /x"

    def test_elsewhere_it_is_its_name_where_the_search_path_leads_to_it_and_its_whole_path_where_not(
        self, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert command_line("doctor") == "journeyman doctor"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert command_line("doctor") == f"{shlex.quote(str(script))} doctor"

    def test_without_a_started_script_the_one_beside_this_python_is_named(self, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["-c"])
        monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
        monkeypatch.chdir(script.parents[2])
        assert command_line("doctor") == ".venv/bin/journeyman doctor"
        script.unlink()
        assert command_line("doctor") == "journeyman doctor"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("part: {1: 2}", "no_name"),
        ("part: {~: 2}", "no_name"),
        ("on: 2", "no_name"),
        ("list: [{2001-01-01: 2}]", "no_name"),
        ("size: 0x" + "f" * 5000, "number_too_large"),
        ("list: [0b" + "1" * 20_000 + "]", "number_too_large"),
        ("size: !!bool maybe", "no_yaml"),
        ("size: !!timestamp soon", "no_yaml"),
        ("list: [{a: 1, a: 2}]", "repeated_key"),
        ('name: "\\udfff"', "half_surrogate"),
        ("list: " + "[" * 500 + "]" * 500, "too_deep"),
        ("a: &a [*a]", "too_deep"),
        ("a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{x: *{a}, y: *{a}}}\n" for a, b in pairwise("abcdefghijklmnopqrstu")), "too_many_aliases"),
    ],
)
def test_a_settings_file_that_no_setting_can_be_read_from_is_refused_by_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        read_yaml(path)
    assert caught.value.reason == reason
