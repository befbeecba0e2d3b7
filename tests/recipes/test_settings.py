from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from journeyman.config import load_settings
from journeyman.errors import SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.session import make_judge
from journeyman.recipes.settings import McpTrain, non_default_settings
from journeyman.types.losses import OverlongPenalty, TokenTruncate
from journeyman.types.settings import AdamSettings, Dpo, Grpo, LoraSettings, Sft

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


@pytest.mark.parametrize(
    ("override", "header"),
    [
        ("grpo.updates=2", {"grpo.updates": 2}),
        ("grpo.learning_rate=1e-4", {"grpo.learning_rate": 1e-4}),
        ("grpo.min_spread=0.001", {"grpo.min_spread": 0.001}),
        ("grpo.loss=bnpo", {"grpo.loss": "bnpo"}),
        ("grpo.clip_low=0.1", {"grpo.loss.clip_low": 0.1}),
        ("grpo.kl_coefficient=0.02", {"grpo.kl_coefficient": 0.02}),
        ("warm_start.sft.batch_size=4", {"warm_start.sft.batch_size": 4}),
        ("warm_start.sft.adam.beta1=0.5", {"warm_start.sft.adam.beta1": 0.5}),
        ("rollouts.group_size=4", {"rollouts.group_size": 4}),
        # What the recipe says anyway is no news.
        ("grpo.learning_rate=3e-4", {}),
        ("warm_start.sft.learning_rate=5e-4", {}),
    ],
)
def test_a_setting_changes_itself_only_and_the_header_shows_just_that(override: str, header: dict[str, Any]) -> None:
    plain = load_settings(McpTrain, given={"target": TARGET})
    given = load_settings(McpTrain, given={"target": TARGET}, overrides=[override])
    changed = {name: value for name, value in non_default_settings(given).items() if not name.startswith("target")}
    assert changed == header
    before, after = _leaves(plain.model_dump()), _leaves(given.model_dump())
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert differing == {name + ".kind" if name == "grpo.loss" else name for name in header}


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        out |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return out


def test_the_header_lists_what_differs_from_the_defaults() -> None:
    assert non_default_settings(Grpo()) == {}
    assert non_default_settings(Grpo(learning_rate=3e-4, loss="gspo", clip_high=0.001)) == {
        "learning_rate": 3e-4,
        "loss": "gspo",
        "loss.clip_high": 0.001,
    }
    assert non_default_settings(Grpo(clip_low=0.1, adam=AdamSettings(beta2=0.95))) == {"loss.clip_low": 0.1, "adam.beta2": 0.95}
    assert non_default_settings(Grpo(mismatch=TokenTruncate())) == {"mismatch": "token_truncate"}
    assert non_default_settings(Grpo(overlong=OverlongPenalty(max_tokens=9, cache_tokens=3)))["overlong.max_tokens"] == 9
    assert non_default_settings(Sft(epochs=2)) == {"epochs": 2}
    assert non_default_settings(LoraSettings()) == {}
    assert non_default_settings(Dpo(loss="simpo", gamma=0.5, epochs=2)) == {"loss": "simpo", "loss.gamma": 0.5, "epochs": 2}
