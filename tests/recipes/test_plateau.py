"""Prompting a model on the scenarios of a server or a run: a real MCP server, a fake model or a real HTTP server in place of a provider."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, serve
from tests.recipes.conftest import TARGET, RecordingProgress
from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.cli.app import run
from journeyman.cli.evaluate import read_counts, read_prompts
from journeyman.engine.fake import FakeEngine
from journeyman.errors import InputError, LlmError, SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import plateau as recipe
from journeyman.recipes.plateau import measure_plateau
from journeyman.recipes.prompting import TOOL_PROMPTS, PlateauSettings
from journeyman.recipes.settings import McpTrain
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.types.messages import Message
from journeyman.types.runs import CreateRun
from journeyman.types.training import CreateModel, SftExample, SftJob

CONTEXT_LENGTH = 8192
SETTINGS = PlateauSettings(
    model="fake-model", target=TARGET, limit=6, shots=(0, 2), prompts={"default": "Use the tools.", "kind": "Be kind."}
)


def doubling(needs_shots: bool = True) -> Callable[[list[dict[str, Any]]], str | list[dict[str, int]]]:
    """A model that solves a task once it has seen worked examples (or at once): messages -> an answer, or calls."""

    def reply(messages: list[dict[str, Any]]) -> str | list[dict[str, int]]:
        last = max(place for place, message in enumerate(messages) if message["role"] == "user")
        results = re.findall(r'"twice": ?(\d+)', " ".join(str(message["content"]) for message in messages[last:]))
        if results:
            return f"Twice that is {' and '.join(results)}."
        if needs_shots and last < 3:
            return "I would rather talk about the weather."
        return [{"number": int(number)} for number in re.findall(r"\d+", str(messages[last]["content"]))]

    return reply


class Model:
    """What the recipe loads for a base model. With an adapter it needs no worked examples."""

    def __init__(self, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokenizer = tokenizer
        self.engines: list[FakeEngine] = []
        self.num_opened = 0
        monkeypatch.setattr(sys.modules["journeyman.local"], "open_backend", self.open)
        monkeypatch.setattr(recipe, "open_backend", self.open)

    def open(self, base: str, *, home: Path, **_: Any) -> Backend:
        self.num_opened += 1
        engine = FakeEngine(self._reply, self.tokenizer, context_length=CONTEXT_LENGTH, base=base)
        self.engines.append(engine)
        return Backend(engine, Renderer(self.tokenizer, CONTEXT_LENGTH), Store.open(home), lambda *_: (FakeTrainer(), {}))

    def _reply(self, prompt: str) -> str:
        messages = []
        for part in prompt.split("<|im_start|>")[1:-1]:
            role, _, content = part.removesuffix("\n").removesuffix("<|im_end|>").partition("\n")
            messages.append({"role": "tool" if "<tool_response>" in content else role, "content": content})
        said = doubling(needs_shots=self.engines[-1].requests[-1].adapter is None)(messages)
        if isinstance(said, str):
            return said
        return "\n".join(f"<tool_call>\n{json.dumps({'name': 'double', 'arguments': call})}\n</tool_call>" for call in said)


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(tiny_tokenizer, monkeypatch)


async def trained_run(model: Model, home: Path, scenarios: Path) -> None:
    """Run `r` with the scenarios that were made before, and one training step."""
    backend = model.open("fake-model", home=home)
    settings = McpTrain(target=TARGET, base="fake-model").model_dump(mode="json")
    backend.create_run(CreateRun(id="r", kind="mcp", settings=settings))
    await backend.create_model(CreateModel(name="agent", run="r"))
    example = SftExample(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    status = await backend.jobs.wait(backend.train("agent", SftJob(examples=(example,))).id, 30)
    assert status.state == "done", status
    ScenarioSet.load(scenarios).save(backend.store.home.run("r").path / "scenarios")
    await backend.close()


class TestMeasuring:
    async def test_worked_examples_carry_a_model_that_prompts_alone_do_not(self, model: Model, tmp_path: Path) -> None:
        progress = RecordingProgress()
        found = await measure_plateau(SETTINGS, progress, home=tmp_path, folder=tmp_path / "out")
        shown = {cell.name: cell.result.success.mean for cell in found.cells}
        assert shown == {"default, 0 shots": 0.0, "default, 2 shots": 1.0, "kind, 0 shots": 0.0, "kind, 2 shots": 1.0}
        assert found.best == "default, 2 shots"
        assert found.plateau.interval.mean == 1.0
        assert found.verdict == "undecided"  # six scenarios prove little
        tokens = [cell.prompt_tokens or 0 for cell in found.cells]
        assert tokens[1] > tokens[0] > 0
        assert {path.name for path in (tmp_path / "out").iterdir()} >= {"plateau.json", "plateau.md", "plateau.png", "cells", "scenarios"}
        prompts = [model.tokenizer.decode(list(request.prompt_ids)) for request in model.engines[0].requests]
        heldout = {scenario.task for scenario in ScenarioSet.load(tmp_path / "out" / "scenarios").heldout[:6]}
        tasks = [re.findall(r"<\|im_start\|>user\n(?!<tool_response>)(.*?)<\|im_end\|>", prompt) for prompt in prompts]
        attempts = [asked for asked in tasks if asked[-1] in heldout]
        assert any(len(asked) == 3 for asked in attempts)
        assert not any(task in heldout for asked in attempts for task in asked[:-1])
        assert any("Be kind." in prompt for prompt in prompts)

    async def test_finished_cells_are_not_measured_again_and_a_changed_prompt_is(self, model: Model, tmp_path: Path) -> None:
        first = await measure_plateau(SETTINGS, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        progress = RecordingProgress()
        again = await measure_plateau(SETTINGS, progress, home=tmp_path, folder=tmp_path / "out")
        assert again == first
        assert model.num_opened == 1
        assert sum("measured before" in note for note in progress.notes) == 4
        changed = SETTINGS.model_copy(update={"prompts": {**SETTINGS.prompts, "kind": "Be very kind."}})
        progress = RecordingProgress()
        await measure_plateau(changed, progress, home=tmp_path, folder=tmp_path / "out")
        assert sum("measured before" in note for note in progress.notes) == 2

    async def test_a_trained_run_is_compared_with_the_best_prompt_on_its_scenarios(self, model: Model, tmp_path: Path) -> None:
        only = SETTINGS.model_copy(update={"shots": (0,), "prompts": {"default": "Use the tools."}})
        await measure_plateau(only, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        await trained_run(model, tmp_path, tmp_path / "out" / "scenarios")
        settings = PlateauSettings(model="fake-model", run="r", shots=(0,), limit=6)
        found = await measure_plateau(settings, SilentProgress(), home=tmp_path, folder=tmp_path / "of-run")
        assert found.trained is not None
        assert (found.trained.name, found.trained.success.mean) == ("agent@1", 1.0)
        assert found.gain is not None
        assert (found.gain.won, found.gain.lost) == (6, 0)
        assert found.verdict == "training is worth it"
        opened = model.num_opened
        again = await measure_plateau(settings, SilentProgress(), home=tmp_path, folder=tmp_path / "of-run")
        assert (again, model.num_opened) == (found, opened)

    async def test_more_shots_than_the_scenarios_yield_are_refused_before_the_first_attempt(self, model: Model, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="worked examples were asked for"):
            await measure_plateau(
                SETTINGS.model_copy(update={"shots": (0, 5000)}), SilentProgress(), home=tmp_path, folder=tmp_path / "out"
            )
        assert not (tmp_path / "out" / "cells").exists()


def provider(refuses: dict[str, str] | None = None, fails: Callable[[], bool] = lambda: False) -> Callable[[dict[str, Any]], Answer]:
    """A provider's model that doubles; `refuses`: parameters it does not take, with the message."""
    reply = doubling()

    def script(body: dict[str, Any]) -> Answer:
        for name, message in (refuses or {}).items():
            if name in body:
                return Answer.error(400, message)
        if fails() and len(body["messages"]) > 1:
            return Answer.error(403, "no quota for this model")
        said = reply(body["messages"])
        if isinstance(said, str):
            return Answer(said)
        if not said:
            return Answer("Hello.")
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": "double", "arguments": json.dumps(call)}}
            for number, call in enumerate(said)
        ]
        choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return Answer(body={"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})

    return script


class TestProvider:
    async def test_a_provider_that_takes_neither_temperature_nor_max_tokens_is_measured(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuses = {"temperature": "temperature is not supported", "max_tokens": "use max_completion_tokens instead of max_tokens"}
        with serve(provider(refuses)) as server:
            monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
            settings = SETTINGS.model_copy(update={"model": "vllm/big", "prompts": {"default": "Use the tools."}})
            found = await measure_plateau(settings, SilentProgress(), home=tmp_path, folder=tmp_path / "out")
        assert [cell.result.success.mean for cell in found.cells] == [0.0, 1.0]
        assert found.cells[0].prompt_tokens is None
        assert not any("reinforcement" in reason for reason in found.reasons)
        assert not (tmp_path / "journeyman.db").exists()

    async def test_an_outage_leaves_finished_cells_and_the_next_call_measures_the_rest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "out"
        settings = SETTINGS.model_copy(update={"model": "vllm/big", "prompts": {"default": "Use the tools."}})
        with serve(provider(fails=lambda: (folder / "cells").exists())) as server:
            monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
            with pytest.raises(LlmError) as caught:
                await measure_plateau(settings, SilentProgress(), home=tmp_path, folder=folder)
        assert caught.value.reason == "nothing_measured"
        assert "no quota" in caught.value.message
        assert len(list((folder / "cells").iterdir())) == 1
        with serve(provider()) as server:
            monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
            progress = RecordingProgress()
            found = await measure_plateau(settings, progress, home=tmp_path, folder=folder)
        assert [cell.result.success.mean for cell in found.cells] == [0.0, 1.0]
        assert sum("measured before" in note for note in progress.notes) == 1

    async def test_a_wrong_key_is_told_before_anything_is_attempted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda body: Answer.error(401, "bad key")) as server:
            monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
            with pytest.raises(LlmError, match="401"):
                await measure_plateau(
                    SETTINGS.model_copy(update={"model": "vllm/big"}), SilentProgress(), home=tmp_path, folder=tmp_path / "out"
                )
        assert len(server.requests) == 1


class TestCommand:
    def test_the_command_measures_shows_and_writes(self, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        own = tmp_path / "mine.txt"
        own.write_text("Double what you are given.")
        words = ["eval", "--prompt-only", "fake-model", "--server", TARGET.label, "--home", str(tmp_path / "home")]
        assert run([*words, "--limit", "4", "--shots", "0,2", "--prompt", str(own), "--target", "0.2"]) == 0
        shown = capsys.readouterr().out
        assert "prompting is enough: prompting fake-model reaches 100.0 %" in shown
        assert re.search(r"mine +0\.0 % .* 100\.0 %", shown)
        (result,) = (tmp_path / "home" / "plateau").glob("*/plateau-fake-model/plateau.json")
        assert json.loads(result.read_text())["goal"] == 0.2
        assert (result.parents[1] / "scenarios" / "heldout.jsonl").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--prompt-only", "m"], "no MCP server was given"),
            (["--prompt-only", "m", "--server", "x", "--shots", "two"], "not a list of numbers"),
            (["--prompt-only", "m", "--server", "x", "--target", "0"], "goal"),
            (["--prompt-only", "m", "--server", "x", "--judge", "j"], "--judge is not for --prompt-only"),
            (["--prompt-only", "m", "--server", "x", "--prompt", "/no/such"], "cannot be read"),
            (["r", "--prompt-only", "m", "--tools", "x"], "has its tools"),
            (["r", "--shots", "2"], "--shots belongs to --prompt-only"),
            ([], "no run to evaluate"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["eval", *words, "--home", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err

    def test_a_run_that_is_unknown_or_of_another_kind_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with Store.open(tmp_path) as store:
            store.runs.create("plain", kind="sft", base="b")
        for name, message in (("nobody", "nobody"), ("plain", "has no tasks to prompt a model on")):
            assert run(["eval", name, "--prompt-only", "m", "--home", str(tmp_path)]) == 2
            assert message in capsys.readouterr().err


def test_counts_are_sorted_and_each_once() -> None:
    assert read_counts("4, 0,2,2") == (0, 2, 4)
    with pytest.raises(SettingError, match="below 0"):
        read_counts("-1")


def test_prompts_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text(" Be brief. \n")
    (tmp_path / "terse.txt").write_text("x")
    (tmp_path / "empty.txt").write_text(" ")
    assert read_prompts([tmp_path / "mine.md"], taken=TOOL_PROMPTS) == {"mine": "Be brief."}
    for name in ("terse.txt", "empty.txt"):
        with pytest.raises(InputError):
            read_prompts([tmp_path / name], taken=TOOL_PROMPTS)
