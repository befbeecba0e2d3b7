"""Every shipped settings file is trained by `journeyman train`, as from a fresh clone: only the base is tiny, and little is done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from journeyman.cli.app import run
from journeyman.recipes.settings import CONFIGS

_FEW_GROUPS = ("num_train=4", "num_heldout=2", "steps=1", "groups_per_step=2", "group_size=2")
_FEW_EXAMPLES = ("data.num_heldout=2", "steps=2", "updates_per_step=1", "evaluate_every=1")
SMALL: Mapping[str, tuple[str, ...]] = {
    "mcp": (
        *("num_train=4", "num_heldout=2", "steps=1", "workers=1"),
        *("warm_start.updates_per_probe=1", "warm_start.max_updates=1", "warm_start.sft.batch_size=2"),
        *("warm_start.probe_scenarios=1", "warm_start.probe_attempts=2"),
        *("rollouts.groups_per_step=1", "rollouts.group_size=2", "rollouts.max_refills=0"),
        *("rollouts.max_turns=1", "rollouts.max_tokens=8"),
    ),
    "yes_no_maybe": _FEW_GROUPS,
    "r1_zero": (*_FEW_GROUPS, "heldout_attempts=1"),
    "sft": (*_FEW_EXAMPLES, "sft.batch_size=2", "heldout_replies=2", "reply_tokens=8"),
    "dpo": (*_FEW_EXAMPLES, "dpo.batch_size=2"),
}
"""What is made small in each file."""
MEASURED: Mapping[str, tuple[str, ...]] = {
    "mcp": ("heldout/base", "heldout/trained", "train/reward"),
    "yes_no_maybe": ("heldout/base", "heldout/trained", "train/reward"),
    "r1_zero": ("heldout/base", "heldout/trained", "train/reward"),
    "sft": ("heldout/loss", "heldout/loss_before", "heldout/trained"),
    "dpo": ("heldout/ranked_right", "heldout/loss", "train/reward_margin"),
}
"""What each must end with."""


def numbers_in(value: Any) -> list[Any]:
    """The numbers of a result, and the None that JSON has for those that are none."""
    if isinstance(value, Mapping):
        return [number for inner in value.values() for number in numbers_in(inner)]
    return [number for inner in value for number in numbers_in(inner)] if isinstance(value, list) else [value]


def test_every_shipped_file_is_trained_here() -> None:
    assert set(SMALL) == set(MEASURED) == {path.stem for path in CONFIGS.glob("*.yaml")}


@pytest.mark.e2e
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_shipped_file_trains_to_a_report_with_numbers(
    name: str, long_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing of the checkout is needed
    changed = [word for one in (f"base={long_model}", *SMALL[name]) for word in ("--set", one)]
    code = run(["train", f"{name}.yaml", "--home", "home", "--run", "one", *changed])
    assert code == 0, capsys.readouterr().err
    report = Path("home/runs/one/report")
    assert (report / "report.html").stat().st_size > 1000
    result = json.loads((report / "result.json").read_text(encoding="utf-8"))
    assert len(result["steps"]) == (2 if name in ("sft", "dpo") else 1)
    assert set(MEASURED[name]) <= result["final"].keys()
    found = numbers_in([result["final"], result["steps"], result["seconds"]])
    assert len(found) > 10
    assert all(isinstance(number, int | float) and math.isfinite(number) for number in found), result
