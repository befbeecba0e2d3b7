from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from journeyman.config import load_settings
from journeyman.errors import SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.mcp_settings import McpTrain
from journeyman.recipes.session import make_judge

TARGET = {"command": [sys.executable]}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"step": 3}, "steps"),
        ({"rollouts": {"group_sise": 4}}, "group_size"),
        ({"warm_start": {"sft": {"batchsize": 4}}}, "batch_size"),
        ({"rollouts": {"group_size": 1}}, "group_size"),
        ({"rollouts": {"isolation": "sometimes"}}, "isolation"),
        ({"num_heldout": 0}, "num_heldout"),
    ],
)
def test_a_setting_that_is_unknown_or_out_of_range_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        load_settings(McpTrain, given={"target": TARGET, **given})


def test_settings_survive_the_store() -> None:
    settings = load_settings(McpTrain, given={"target": TARGET, "tools": ["a", "b"], "grpo": {"clip_low": 0.1}})
    assert McpTrain.model_validate(settings.model_dump(mode="json")) == settings


def test_the_judge_is_evidence_or_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = load_settings(McpTrain, given={"target": TARGET})
    where: dict[str, Any] = {"run": "r", "home": tmp_path, "progress": SilentProgress()}
    assert make_judge(settings, **where).name == "evidence"
    assert "gpt-5-mini" in make_judge(settings.model_copy(update={"judge": "openai/gpt-5-mini"}), **where).name
    with pytest.raises(SettingError, match="evidence judge has no options"):
        make_judge(load_settings(McpTrain, given={"target": TARGET, "judge_options": {"rubric": "be kind"}}), **where)
