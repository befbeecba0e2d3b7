"""What `--help` says stands there whole: rich takes text in brackets for markup unless it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from journeyman.cli.app import build, run


def commands(found: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that lead to it."""
    inner = getattr(found, "commands", None)
    if inner is None:
        yield names, found
    for name, command in (inner or {}).items():
        yield from commands(command, *names, name)


COMMANDS = [pytest.param(names, command, id=" ".join(names)) for names, command in commands(typer.main.get_command(build()))]
DEFAULT = re.compile(r"\[default: [^\]]*\]")


@pytest.mark.parametrize(("names", "command"), COMMANDS)
def test_every_default_that_is_stated_is_shown_and_no_sentence_is_left_with_a_hole(
    names: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run([*names, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if re.search(r" \.(\s|$)", line)] == []
    stated = [default for option in command.params for default in DEFAULT.findall(getattr(option, "help", None) or "")]
    assert [default for default in stated if default not in shown] == []


def test_there_are_stated_defaults_and_nested_commands_to_look_at() -> None:
    assert ("mcp", "train") in [param.values[0] for param in COMMANDS]
    helps = [option.help or "" for param in COMMANDS for option in param.values[1].params if getattr(option, "help", None)]
    assert sum(bool(DEFAULT.search(text)) for text in helps) > 15
