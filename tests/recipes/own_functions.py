"""What a user of a recipe has: tasks, rewards and an agent in a module (a file that no other test has), rows of examples, and pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.recipes.settings import ChatOrFunction, GrpoTrain

FUNCTIONS = """
import asyncio
from pathlib import Path

import journeyman as jm


def tasks(count, seed):
    return [jm.Scenario(id=f"t{seed}-{number}", task=f"Double {number}.") for number in range(count)]


def is_call(scenario, trajectory):
    return float("tool_call" in (trajectory.answer or ""))


async def is_short(scenario, trajectory):
    return None if "2" in scenario.task else 0.5


def too_much(scenario, trajectory):
    return 7


def breaks(scenario, trajectory):
    if not Path("mended").exists():
        raise KeyError("nothing there")
    return is_call(scenario, trajectory)


def one_argument(trajectory):
    return 1.0


async def agent(scenario, run):
    messages = [{"role": "user", "content": scenario.task}]
    reply = await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=400, seed=run.seed)
    run.reward = float("tool_call" in reply.choices[0].message.content)


async def held(scenario, run):
    await agent(scenario, run)
    if not Path("mended").exists():
        first.setdefault("id", scenario.id)
        if scenario.id != first["id"]:
            await has_failed.wait()


def breaks_first(scenario, trajectory):
    if not Path("mended").exists():
        has_failed.set()
        raise KeyError("nothing there")
    return is_call(scenario, trajectory)


first = {}
has_failed = asyncio.Event()
number = 3
"""


def doubler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrpoTrain:
    """Settings of a short run; its functions are in a file of the current folder from now on."""
    name = f"own_functions_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return GrpoTrain(
        name="doubler",
        base="fake-model",
        scenarios=f"{name}.tasks",
        num_train=8,
        num_heldout=4,
        rollout=ChatOrFunction(max_tokens=400),
        rewards={f"{name}.is_call": 1.0},
        steps=2,
        groups_per_step=2,
        group_size=2,
    )


def module_of(settings: GrpoTrain) -> str:
    return settings.scenarios.rpartition(".")[0]


def write_rows(name: str, lines: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows(number: int) -> list[dict[str, Any]]:
    """Conversations whose reply the fake model gives at every second attempt: the call that doubles the number."""
    call = '<tool_call>\n{{"name": "double", "arguments": {{"number": {0}}}}}\n</tool_call>'
    asked = [{"role": "user", "content": f"Double {at}."} for at in range(number)]
    return [{"messages": [one, {"role": "assistant", "content": call.format(at)}]} for at, one in enumerate(asked)]


def good_pairs() -> list[dict[str, Any]]:
    return [{"prompt": f"Double {at}.", "chosen": f"{2 * at}", "rejected": "no idea"} for at in range(1, 13)]
