"""A fake model behind the recipes, and settings small enough for it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.recipes import own_functions
from tests.recipes.backend import FakeModel

from journeyman.evaluation import Report
from journeyman.mcp.target import McpTarget
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import data as run_data
from journeyman.recipes import dpo, grpo, sft
from journeyman.recipes import run as open_runs
from journeyman.recipes.settings import DpoData, DpoTrain, GrpoTrain, McpTrain, Rollouts, SftData, SftTrain, WarmStart
from journeyman.types.settings import Dpo, Sft

SERVER = Path(__file__).parent / "number_server.py"
TARGET = McpTarget(command=(sys.executable, str(SERVER)))
STEPS = 5
Train = Callable[..., Awaitable[Report]]


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """What recipes load instead of a base model."""
    fake = FakeModel(tiny_tokenizer)
    monkeypatch.setattr(open_runs, "open_backend", fake.open)
    monkeypatch.setattr(run_data, "open_renderer", fake.renderer)
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


@pytest.fixture
def doubler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrpoTrain:
    """A GRPO run of two steps on functions in the current folder."""
    return own_functions.doubler(tmp_path, monkeypatch)


@pytest.fixture
def one_step(doubler: GrpoTrain) -> GrpoTrain:
    """The same with one step and nothing held out."""
    return doubler.model_copy(update={"steps": 1, "num_heldout": 0})


@pytest.fixture
def methods(doubler: GrpoTrain) -> Mapping[str, Train]:
    """`train(home, progress, resume=..., steps=...)` for each method, on functions and data in the current folder."""
    own_functions.write_rows("rows.jsonl", own_functions.rows(12))
    own_functions.write_rows("pairs.jsonl", own_functions.good_pairs())
    of_grpo = doubler.model_copy(update={"num_heldout": 0})
    of_sft = SftTrain(
        name="doubler",
        base="fake-model",
        data=SftData(source="rows.jsonl", num_heldout=4),
        sft=Sft(batch_size=2, epochs=20),
        updates_per_step=2,
        evaluate_every=1,
        heldout_replies=0,
    )
    of_dpo = DpoTrain(
        name="doubler",
        base="fake-model",
        data=DpoData(source="pairs.jsonl", num_heldout=4),
        dpo=Dpo(batch_size=2, epochs=20),
        updates_per_step=2,
        evaluate_every=1,
    )

    def with_grpo(home: Path, progress: Any, *, resume: bool = False, allow: bool = False, **change: Any) -> Awaitable[Report]:
        changed = of_grpo.model_copy(update={"steps": STEPS} | change)
        name = {"resume": "one"} if resume else {"run": "one"}
        return grpo.train(changed, progress, home=home, allow_changed_settings=allow, **name)

    def with_examples(train: Train, settings: SftTrain | DpoTrain) -> Train:
        def start(home: Path, progress: Any, *, resume: bool = False, allow: bool = False, **change: Any) -> Awaitable[Report]:
            changed = settings.model_copy(update={"steps": STEPS} | change)
            return train(changed, progress, home=home, run="one", is_resumed=resume, allow_changed_settings=allow)

        return start

    return {"grpo": with_grpo, "sft": with_examples(sft.train, of_sft), "dpo": with_examples(dpo.train, of_dpo)}


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
