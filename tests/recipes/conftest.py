"""A fake model behind the recipes, and settings small enough for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.backend import FakeModel

from journeyman.observe.progress import SilentProgress
from journeyman.recipes import session
from journeyman.recipes.mcp_settings import McpTrain, Rollouts, WarmStart
from journeyman.scenarios.target import McpTarget

SERVER = Path(__file__).parent / "number_server.py"
TARGET = McpTarget(command=(sys.executable, str(SERVER)))


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """What recipes load instead of a base model."""
    fake = FakeModel(tiny_tokenizer)
    monkeypatch.setattr(session, "open_backend", fake.open)
    return fake


@pytest.fixture
def settings() -> McpTrain:
    return McpTrain(
        target=TARGET,
        base="fake-model",
        steps=2,
        num_train=8,
        num_heldout=4,
        warm_start=WarmStart(max_updates=0, probe_scenarios=2, probe_attempts=2),
        rollouts=Rollouts(groups_per_step=2, group_size=2, max_refills=0, max_tokens=400, max_turns=2),
    )


class RecordingProgress(SilentProgress):
    """Remembers notes, warnings and steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)
