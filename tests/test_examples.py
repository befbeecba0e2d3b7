"""The shipped examples work: the settings file is valid, and the program trains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from journeyman.cli.app import run

ROOT = Path(__file__).resolve().parents[1]
OWN_TASKS = ROOT / "examples" / "own_tasks"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of examples/own_tasks as the current folder."""
    shutil.copytree(OWN_TASKS, tmp_path / "own_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "own_tasks")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    return tmp_path / "own_tasks"


def test_own_tasks_and_rewards_are_valid_in_their_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "mine.yaml", "--validate", "--home", "home"]) == 0
    assert "mine.yaml is valid: method grpo" in capsys.readouterr().out
    rewards = sys.modules["my_rewards"]
    scores = [
        (rewards.is_polite(None, SimpleNamespace(answer=answer)), rewards.is_short(None, SimpleNamespace(answer=answer)))
        for answer in ("Thank you, Friday it is.", "No.", "Thank you! " * 40, None)
    ]
    assert scores == [(1, 1), (0, 1), (1, 0), (0, 0)]


def test_the_settings_of_own_tasks_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    [shown] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "scenarios: tasks.jsonl" in block]
    shipped = yaml.safe_load((OWN_TASKS / "mine.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(shown) == shipped
    tasks = [json.loads(line) for line in (OWN_TASKS / "tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({one["task"] for one in tasks}) == len(tasks) > 2 * shipped["num_heldout"]


@pytest.mark.e2e
def test_the_agent_in_plain_python_trains_and_compares(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "own_agent.py"), "--base", str(tiny_model), "--steps", "2"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.findall(r"^(step \d|base|trained)", result.stdout, re.MULTILINE) == ["step 1", "step 2", "base", "trained"]
