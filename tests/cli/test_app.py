from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.cli import doctor as doctor_command
from journeyman.cli import models as models_command
from journeyman.cli.app import run
from journeyman.errors import JourneymanError, ModelNotFoundError


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")


def failing(error: BaseException) -> object:
    def fail(*_arguments: object) -> object:
        raise error

    return fail


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("mcp", "eval", "serve", "runs", "models", "doctor", "chat"):
        assert command in shown


@pytest.mark.parametrize("command", ["mcp", "mcp train", "mcp tools", "mcp scenarios", "eval", "serve", "runs compare", "doctor", "chat"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert "Usage: journeyman" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"journeyman \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_an_unknown_option_is_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--no\x1b]0;x\x07"],
        ["\x9b31m"],
        ["eval", "run", "\u202e[bold]"],
        ["mcp", "tools", "--header", "Authorization:", "Bearer", "sk-proj-abc123def456"],
        ["mcp", "train", "sk-proj-abc123def456"],
    ],
)
def test_what_is_wrong_with_the_words_is_told_through_the_door(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert [sign for sign in shown if not sign.isprintable() and sign != "\n"] == []
    assert "abc123" not in shown


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list", "--home", ""],
        ["runs", "list", "--home="],
        ["mcp", "train", "--server", "cmd", "--resume", ""],
        ["chat", "", "--message", "hello"],
        ["data", "preview", "rows.jsonl", "--base", ""],
        ["train", ""],
    ],
)
def test_an_empty_word_is_no_path_and_no_name(words: list[str], refused: list[JourneymanError]) -> None:
    assert run(words) == 2
    assert refused[-1].reason == "empty_word"


@pytest.mark.parametrize("words", [["--system", ""], ["--system="], ["-m", ""], ["--message="]])
def test_a_message_may_be_empty(words: list[str], refused: list[JourneymanError], tmp_path: Path) -> None:
    assert run(["chat", "--message", "hello", *words, "--home", str(tmp_path)]) == 2
    assert refused[-1].reason == "no_model"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BaseExceptionGroup("group", [KeyboardInterrupt()]), 130),
        (BaseExceptionGroup("group", [SystemExit(3)]), 70),
        (BrokenPipeError(errno.EPIPE, "a pipe of the work, not the output"), 70),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (SystemExit("said"), 1),
    ],
)
def test_whatever_ends_a_command_has_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(doctor_command, "home_folder", failing(error))
    assert run(["doctor"]) == code
    assert len(list(tmp_path.glob("journeyman-*.txt"))) == (code == 70)
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_ours_is_a_message_a_hint_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "fetch", "smolm2-135m"]) == ModelNotFoundError.exit_code
    shown = capsys.readouterr()
    assert "error: there is no base model 'smolm2-135m'" in shown.err
    assert "what to do: did you mean 'smollm2-135m'?" in shown.err
    assert "Traceback" not in shown.err + shown.out


def test_debug_anywhere_shows_the_traceback_instead(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "fetch", "smolm2-135m", "--debug"]) == ModelNotFoundError.exit_code
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ModelNotFoundError" in shown


def test_an_unforeseen_error_is_one_line_and_its_traceback_is_kept_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(doctor_command, "home_folder", failing(RuntimeError("boom")))
    assert run(["doctor"]) == 70
    shown = capsys.readouterr().err
    assert "unexpected RuntimeError: boom" in shown
    assert "Traceback" not in shown
    [kept] = tmp_path.glob("journeyman-*.txt")
    assert str(kept) in shown
    assert "boom" in kept.read_text()


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "home_folder", failing(KeyboardInterrupt()))
    assert run(["doctor"]) == 130


def test_models_list_says_what_is_in_the_cache(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOURNEYMAN_CACHE", str(tmp_path))
    assert models_command.models is not None
    assert run(["models", "list"]) == 0
    assert "not fetched yet" in capsys.readouterr().out


def test_the_program_starts_quickly_and_needs_no_terminal() -> None:
    code = "import time; from journeyman.cli import main\ntry:\n    main()\nfinally:\n    assert time.process_time() < 1.0"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage: journeyman" in result.stdout


@pytest.mark.parametrize(
    "words", [["eval", "{}"], ["train", "sft.yaml", "--from-run", "{}"], ["serve", "--run", "{}"], ["data", "preview", "{}"], ["{}"]]
)
def test_words_that_are_no_text_are_refused_and_not_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    odd = "SECRET" + os.fsdecode(b"\xff")
    assert run([word.replace("{}", odd) for word in words]) == 2
    shown = capsys.readouterr()
    assert f"word {words.index('{}') + 1} " in shown.err
    assert "SECRET" not in shown.out + shown.err
