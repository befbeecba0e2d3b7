"""Advice can be followed: an option that is named exists for that command, and its value is not the default already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.observe.test_health import BAD

from journeyman.observe.health import findings
from journeyman.recipes.settings import GrpoTrain, McpTarget, McpTrain
from journeyman.types.record import Record

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
OPTION = re.compile(r"--set ([\w.]+)=([^\s`,)]+)")
DEFAULTS: dict[str, Record] = {
    "mcp": McpTrain(target=McpTarget(command=("server",))),
    "grpo": GrpoTrain(scenarios="tasks.jsonl", rewards={"own.reward": 1.0}),
}


def options() -> Iterator[tuple[str, str, str]]:
    """Command, name and value of each option in the page's table and in the hints of the recipes that tell of nothing to learn."""
    for line in PAGE.splitlines():
        if line.startswith("| ") and "--set" in line:
            for method, cell in zip(("mcp", "grpo"), line.strip("|").split("|")[1:], strict=True):
                yield from ((method, *found) for found in OPTION.findall(cell))
    for method in ("mcp", "grpo"):
        source = (ROOT / "src" / "journeyman" / "recipes" / f"{method}.py").read_text(encoding="utf-8")
        yield from ((method, *found) for found in OPTION.findall(source))


def changed(settings: Record, name: str, value: Any) -> Record:
    """The settings with one changed, checked as those of a run are."""
    data: dict[str, Any] = settings.model_dump()
    part = data
    *parents, last = name.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    return type(settings).model_validate(data)


@pytest.mark.parametrize(("method", "name", "value"), sorted(set(options())))
def test_an_option_that_is_advised_is_one_of_the_command_and_changes_something(method: str, name: str, value: str) -> None:
    defaults = DEFAULTS[method]
    assert changed(defaults, name, yaml.safe_load(value)) != defaults


def test_options_stand_in_the_table_alone_and_some_for_each_command() -> None:
    assert {method for method, _, _ in options()} == {"mcp", "grpo"}
    prose = [line for line in PAGE.splitlines() if not line.startswith("| ")]
    assert not OPTION.search("\n".join(prose))


@pytest.mark.parametrize("name", sorted(BAD))
def test_advice_names_no_option_because_commands_call_them_differently(name: str) -> None:
    assert all("--set" not in str(finding) for finding in findings(BAD[name][0]))
