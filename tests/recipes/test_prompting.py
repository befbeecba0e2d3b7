"""Prompting a model on the held-out tasks of a GRPO run: real runs with a fake model, rewards of the user's own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, serve
from tests.recipes.conftest import RecordingProgress
from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.cli.app import run as command
from journeyman.engine.fake import FakeEngine
from journeyman.errors import SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import plateau
from journeyman.recipes import run as open_runs
from journeyman.recipes.grpo import train
from journeyman.recipes.plateau import measure_plateau
from journeyman.recipes.prompting import PlateauSettings
from journeyman.recipes.settings import ChatOrFunction, GrpoTrain, ModelJudge
from journeyman.service.backend import Backend
from journeyman.store import Store

CONTEXT_LENGTH = 8192
REWARDS = """
def is_double(scenario, trajectory):
    return float(trajectory.answer == str(2 * scenario.data["number"]))


async def agent(scenario, run):
    run.reward = 1.0
"""


class Model:
    """What recipes load for a base model: it doubles with an adapter, after worked examples, or where `is_able` says so."""

    def __init__(self, tokenizer: Any) -> None:
        self.prompts: list[str] = []
        self.is_able: Callable[[str], bool] = lambda prompt: False
        self.num_opened = 0
        self._tokenizer = tokenizer

    def open(self, base: str, *, home: Path, **_: Any) -> Backend:
        self.num_opened += 1

        def reply(prompt: str) -> str:
            self.prompts.append(prompt)
            tasks = [part for part in prompt.split("<|im_start|>") if part.startswith("user")]
            number = "".join(sign for sign in tasks[-1] if sign.isdigit())
            is_right = len(tasks) > 1 or engine.requests[-1].adapter is not None or self.is_able(prompt)
            return str(2 * int(number)) if is_right and number else "What a day."

        engine = FakeEngine(reply, self._tokenizer, context_length=CONTEXT_LENGTH, base=base)
        return Backend(engine, Renderer(self._tokenizer, CONTEXT_LENGTH), Store.open(home), lambda *_: (FakeTrainer(), {}))


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Model:
    fake = Model(tiny_tokenizer)
    for module in (open_runs, plateau, sys.modules["journeyman.local"]):
        monkeypatch.setattr(module, "open_backend", fake.open)
    return fake


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrpoTrain:
    """Twelve tasks in a file, four of them held out; rewards in a module whose name no other test has."""
    name = f"own_rewards_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(REWARDS)
    write_tasks(tmp_path / "tasks.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return GrpoTrain(
        name="doubler",
        base="fake-model",
        scenarios="tasks.jsonl",
        num_heldout=4,
        rollout=ChatOrFunction(system="You double."),
        rewards={f"{name}.is_double": 1.0},
        steps=0,
        groups_per_step=2,
        group_size=2,
    )


def write_tasks(path: Path, answer: Callable[[int], object] | None = None) -> None:
    rows: list[dict[str, Any]] = [{"task": f"Double {number}.", "data": {"number": number}} for number in range(1, 13)]
    for row in rows if answer is not None else []:
        row["data"]["answer"] = answer(row["data"]["number"])  # type: ignore[misc]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed(settings: GrpoTrain, **values: object) -> GrpoTrain:
    return GrpoTrain.model_validate(settings.model_dump() | values)


class TestMeasuring:
    async def test_a_run_that_trained_nothing_yet_is_told_what_prompts_and_worked_examples_reach(
        self, model: Model, settings: GrpoTrain, tmp_path: Path
    ) -> None:
        write_tasks(tmp_path / "tasks.jsonl", answer=lambda number: 2 * number)
        await train(settings, SilentProgress(), home=tmp_path, run="r")
        model.prompts.clear()
        wanted = PlateauSettings(model="fake-model", run="r", shots=(0, 2), prompts={"kind": "Be kind."})
        found = await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        shown = {cell.name: cell.result.success.mean for cell in found.cells}
        assert shown == {"own, 0 shots": 0.0, "own, 2 shots": 1.0, "kind, 0 shots": 0.0, "kind, 2 shots": 1.0}
        assert (found.num_scenarios, found.verdict, found.trained) == (4, "undecided", None)
        assert any("is_double 1.00" in reason for reason in found.reasons)
        assert not any("tool" in reason for reason in found.reasons)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"plateau.json", "plateau.md", "plateau.png", "cells"}
        assert any("You double." in prompt for prompt in model.prompts)
        assert any("Be kind." in prompt for prompt in model.prompts)
        heldout = {prompt.split("<|im_start|>user\n")[-1] for prompt in model.prompts}
        assert len(heldout) == 4
        assert not any(before in heldout for prompt in model.prompts for before in prompt.split("<|im_start|>user\n")[1:-1])

    async def test_the_runs_own_best_attempts_are_worked_examples_and_its_trained_model_is_compared(
        self, model: Model, settings: GrpoTrain, tmp_path: Path
    ) -> None:
        model.is_able = lambda prompt: len(model.prompts) % 2 == 0  # of two attempts at a task one is right: groups have spread
        await train(changed(settings, steps=2), SilentProgress(), home=tmp_path, run="r")
        model.is_able = lambda prompt: False
        wanted = PlateauSettings(model="fake-model", run="r", shots=(0, 1), prompts={})
        found = await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert [cell.result.success.mean for cell in found.cells] == [0.0, 1.0]
        assert found.trained is not None
        assert (found.trained.name, found.trained.success.mean) == ("doubler@2", 1.0)
        opened = model.num_opened
        assert await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out") == found
        assert model.num_opened == opened

    async def test_without_worked_examples_prompts_alone_are_tried_and_that_is_said(
        self, model: Model, settings: GrpoTrain, tmp_path: Path
    ) -> None:
        write_tasks(tmp_path / "tasks.jsonl", answer=lambda number: f"answer {number}")  # which the run's reward does not take
        await train(settings, SilentProgress(), home=tmp_path, run="r")
        wanted = PlateauSettings(model="fake-model", run="r")
        found = await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert [cell.name for cell in found.cells] == ["own, 0 shots", "think, 0 shots", "terse, 0 shots"]
        assert "0 training tasks have a reply of reward 1" in found.notes[0]
        assert "2 and 4 shots were not tried" in found.notes[0]
        asked = wanted.model_copy(update={"shots": (0, 2)})
        with pytest.raises(SettingError) as caught:
            await measure_plateau(asked, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert caught.value.reason == "too_few_examples"

    async def test_a_mended_reward_function_is_asked_again(self, model: Model, settings: GrpoTrain, tmp_path: Path) -> None:
        await train(settings, SilentProgress(), home=tmp_path, run="r")
        wanted = PlateauSettings(model="fake-model", run="r", prompts={})
        await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        module = tmp_path / f"{next(iter(settings.rewards)).rpartition('.')[0]}.py"
        for text, count in ((REWARDS, 1), (REWARDS + "\n# mended\n", 0)):
            module.write_text(text)
            progress = RecordingProgress()
            await measure_plateau(wanted, progress, home=tmp_path, folder=tmp_path / "out")
            assert sum("measured before" in note for note in progress.notes) == count

    async def test_a_providers_model_that_takes_neither_temperature_nor_seed_is_prompted(
        self, model: Model, settings: GrpoTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await train(settings, SilentProgress(), home=tmp_path, run="r")

        def script(body: dict[str, Any]) -> Answer:
            for name in ("temperature", "seed"):
                if name in body:
                    return Answer.error(400, f"{name} is not supported")
            number = "".join(sign for sign in body["messages"][-1]["content"] if sign.isdigit())
            return Answer(str(2 * int(number)) if number else "Hello.")

        with serve(script) as server:
            monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
            wanted = PlateauSettings(model="vllm/big", run="r", prompts={}, goal=0.2)
            found = await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert found.verdict == "prompting is enough"
        assert {body["max_tokens"] for body in server.requests if len(body["messages"]) > 1} == {1024}


class TestRefusals:
    @pytest.mark.parametrize(
        ("what", "reason"),
        [("function", "own_rollout"), ("judge", "no_rewards"), ("heldout", "too_few_held_out"), ("tasks", "no_tasks_yet")],
    )
    async def test_a_run_that_cannot_be_prompted_says_why(self, what: str, reason: str, settings: GrpoTrain, tmp_path: Path) -> None:
        module = next(iter(settings.rewards)).rpartition(".")[0]
        changes: dict[str, dict[str, object]] = {
            "function": {"rollout": ChatOrFunction(function=f"{module}.agent")},
            "judge": {"rewards": {}, "judge": ModelJudge(model="openai/gpt-5-mini")},
        }
        with Store.open(tmp_path) as store:
            store.runs.create(
                "r", kind="grpo", base="fake-model", settings=changed(settings, **changes.get(what, {})).model_dump(mode="json")
            )
            if what != "tasks":
                tasks = store.home.run("r").scenarios
                tasks.parent.mkdir(parents=True, exist_ok=True)
                tasks.write_text((tmp_path / "tasks.jsonl").read_text())
        wanted = PlateauSettings(model="fake-model", run="r")
        with pytest.raises(SettingError) as caught:
            await measure_plateau(wanted, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert caught.value.reason == reason
        assert caught.value.hint
        assert not (tmp_path / "out").exists()


class TestCommand:
    async def test_the_command_takes_a_grpo_run_and_writes_into_its_report(self, model: Model, settings: GrpoTrain, tmp_path: Path) -> None:
        await train(settings, SilentProgress(), home=tmp_path, run="r")
        (tmp_path / "mine.txt").write_text("Twice, please.")
        model.is_able = lambda prompt: "Twice, please." in prompt
        words = [
            "eval",
            "r",
            "--prompt-only",
            "fake-model",
            "--home",
            str(tmp_path),
            "--prompt",
            str(tmp_path / "mine.txt"),
            "--limit",
            "3",
        ]
        assert await in_thread(words) == 0
        written = json.loads((tmp_path / "runs" / "r" / "report" / "plateau-fake-model" / "plateau.json").read_text())
        assert (written["best"], written["num_scenarios"]) == ("mine, 0 shots", 3)
        assert written["server"] == "run r"

    def test_options_of_a_server_are_refused_beside_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command(["eval", "r", "--prompt-only", "m", "--seed", "3", "--home", str(tmp_path)]) == 2
        assert "its tasks and rewards" in capsys.readouterr().err


async def in_thread(words: list[str]) -> int:
    """The command has an event loop of its own."""
    return await asyncio.to_thread(command, words)
