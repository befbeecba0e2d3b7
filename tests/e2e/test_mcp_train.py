"""`journeyman mcp train` as a user runs it: one command, one process, a real server, a real engine and trainer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

SERVER = shlex.join([sys.executable, str(Path(__file__).parents[1] / "recipes" / "number_server.py")])
SMALL = {
    "num_train": 6,
    "num_heldout": 3,
    "warm_start.updates_per_probe": 1,
    "warm_start.max_updates": 1,
    "warm_start.probe_scenarios": 2,
    "warm_start.probe_attempts": 2,
    "rollouts.groups_per_step": 2,
    "rollouts.group_size": 4,
    "rollouts.max_refills": 0,
    "rollouts.max_turns": 2,
    "rollouts.max_tokens": 24,
}


def journeyman(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from journeyman.cli import main; main()", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)


def train(base: str, home: Path, *words: str, seconds: float = 110, **settings: object) -> subprocess.CompletedProcess[str]:
    chosen = [word for name, value in (SMALL | settings).items() for word in ("--set", f"{name}={value}")]
    return journeyman("mcp", "train", "--server", SERVER, "--base", base, "--home", str(home), *chosen, *words, seconds=seconds)


def shown_run(home: Path) -> dict[str, Any]:
    listed = journeyman("runs", "list", "--home", str(home), "--json", seconds=60)
    (info,) = json.loads(listed.stdout)
    shown = journeyman("runs", "show", info["id"], "--home", str(home), "--json", seconds=60)
    assert shown.returncode == 0, shown.stderr
    return dict(json.loads(shown.stdout))


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_one_command_trains_reports_and_can_go_on(tiny_model: Path, tmp_path: Path) -> None:
    done = train(str(tiny_model), tmp_path, "--steps", "1")
    assert done.returncode == 0, done.stderr
    run = shown_run(tmp_path)
    assert (run["state"], run["step"], [step["phase"] for step in run["steps"]]) == ("done", 2, ["eval", "warmup", "eval", "train"])
    assert f"journeyman serve --run {run['id']} --home {tmp_path}" in done.stdout
    assert "curl -s http://127.0.0.1:8100/v1/chat/completions" in done.stdout
    report = Path(run["report"])
    assert (report / "report.html").stat().st_size > 1000
    assert json.loads((report / "report.json").read_text())["evaluations"][0]["num_scenarios"] == 3
    assert num_adapted_modules(tiny_model, Path(run["adapters"][-1]["folder"])) == 2 * 7

    refused = journeyman("mcp", "train", "--resume", run["id"], "--seed", "1", "--home", str(tmp_path), seconds=60)
    assert (refused.returncode, "cannot go on with these settings changed: seed" in refused.stderr) == (2, True)
    more = journeyman("mcp", "train", "--resume", run["id"], "--steps", "2", "--home", str(tmp_path), seconds=110)
    assert more.returncode == 0, more.stderr
    run = shown_run(tmp_path)
    made = [step["step"] for step in run["steps"] if step["phase"] != "eval"]
    assert (run["state"], run["step"], made) == ("done", 3, [1, 2, 3])


@pytest.mark.e2e
@pytest.mark.real_model
@pytest.mark.timeout(300)
def test_the_real_model_goes_through_the_whole_recipe(smollm2_folder: Path, tmp_path: Path) -> None:
    done = train("smollm2-135m", tmp_path, "--steps", "1", seconds=280, **{"warm_start.sft.batch_size": 4})
    assert done.returncode == 0, done.stderr
    run = shown_run(tmp_path)
    assert (run["state"], run["base"], [step["phase"] for step in run["steps"]]) == (
        "done",
        "smollm2-135m",
        ["eval", "warmup", "eval", "train"],
    )
    assert run["steps"][1]["metrics"]["train/loss"] > 0
    assert num_adapted_modules(smollm2_folder, Path(run["adapters"][-1]["folder"])) == 30 * 7


def num_adapted_modules(base: Path, adapter: Path) -> int:
    """Load the adapter as anyone would, with PEFT on the base model; returns how many layers it adapts (all of them: none is zero)."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():  # PEFT asks transformers for a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    ups = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert all(weight.abs().sum() > 0 for weight in ups)
    return len(ups)
