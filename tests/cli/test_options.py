"""What is read from the options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from journeyman.cli.options import TargetOptions, ToolOptions, grouped, pairs
from journeyman.errors import SettingError


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, typer.Argument()]
    size: Annotated[int, typer.Option("--size", min=1)] = 3
    target: TargetOptions = field(default_factory=TargetOptions)


CALLS: list[tuple[Outer, ToolOptions, bool]] = []


def remember(outer: Outer, choice: ToolOptions, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Remember what was given."""
    CALLS.append((outer, choice, loud))


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["a"], (Outer("a"), ToolOptions(), False)),
        (
            ["a", "--size", "4", "--loud", "--server", "cmd", "--env", "A=b", "--env", "C=d", "--allow-writes", "--tools", "x,y"],
            (Outer("a", 4, TargetOptions("cmd", env=["A=b", "C=d"])), ToolOptions("x,y", None, True), True),
        ),
    ],
)
def test_a_command_gets_its_groups_of_options_whole_also_one_inside_another(words: list[str], call: tuple[object, ...]) -> None:
    app = typer.Typer()
    app.command()(grouped(remember))
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CALLS.pop() == call


def test_an_option_of_a_group_is_checked_as_any_other() -> None:
    app = typer.Typer()
    app.command()(grouped(remember))
    assert CliRunner().invoke(app, ["a", "--size", "0"]).exit_code == 2


def test_only_tool_options_that_were_given_become_settings() -> None:
    assert ToolOptions().given() == {}
    assert ToolOptions("a, b", "c", True).given() == {"tools": ("a", "b"), "read_only": ("c",), "allow_writes": True}
    with pytest.raises(SettingError) as caught:
        ToolOptions(read_only=" , ").given()
    assert caught.value.reason == "no_names"


def test_headers_and_variables_are_split_at_the_first_separator() -> None:
    assert pairs(["Authorization: Bearer a:b"], ":", "--header") == {"Authorization": "Bearer a:b"}
    assert pairs(["KEY=a=b", "EMPTY="], "=", "--env") == {"KEY": "a=b", "EMPTY": ""}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (TargetOptions(), "no_target"),
        (TargetOptions(env=["A=b"]), "no_target"),
        (TargetOptions("cmd", "http://localhost/mcp"), "both_targets"),
        (TargetOptions("", ""), "both_targets"),
        (TargetOptions("cmd", headers=["A: b"]), "other_kind_of_target"),
        (TargetOptions(url="http://localhost/mcp", env=["A=b"]), "other_kind_of_target"),
        (TargetOptions(url="localhost:8000"), "no_url"),
        (TargetOptions(url=""), "no_url"),
        (TargetOptions("cmd", env=["novalue"]), "malformed_key"),
        (TargetOptions("cmd", env=["=value"]), "malformed_key"),
    ],
)
def test_options_that_name_no_server_are_refused(options: TargetOptions, reason: str) -> None:
    with pytest.raises(SettingError) as caught:
        options.target()
    assert caught.value.reason == reason


def test_a_command_is_split_as_a_shell_would_and_keeps_its_variables() -> None:
    target = TargetOptions("python -m 'my server'", env=["A=b"]).target()
    assert target.command == ("python", "-m", "my server")
    assert target.revealed().env == {"A": "b"}


def test_a_url_keeps_its_headers() -> None:
    target = TargetOptions(url="http://localhost/mcp", headers=["Authorization: Bearer x"]).target()
    assert (target.url, target.revealed().headers) == ("http://localhost/mcp", {"Authorization": "Bearer x"})
