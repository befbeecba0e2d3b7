"""`journeyman chat` over a fake model behind a real server, with real MCP servers, and once as a program in a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import scripted
from tests.llm_server import serve as serve_llm
from tests.recipes.conftest import TARGET
from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.cli import console
from journeyman.cli.app import run
from journeyman.cli.chat import ChatOptions, open_chat
from journeyman.cli.chat_talk import Talk
from journeyman.data import read_rows, sft_examples
from journeyman.engine.fake import FakeEngine
from journeyman.errors import JourneymanError
from journeyman.recipes.settings import McpTrain
from journeyman.server.app import Server, create_app
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.types.runs import CreateRun
from journeyman.types.training import CreateModel, SftExample

CALL = '<tool_call>\n{"name": "double", "arguments": {"number": 21}}\n</tool_call>'


class Model:
    """What chat loads: a fake engine whose replies depend on the prompt and on the adapter."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.reply: Callable[[str], str] = lambda prompt: "Hello there."
        self.engines: list[FakeEngine] = []
        self.given: dict[str, Any] = {}
        self.context_length = 4096

    def open(self, base: str, *, home: Path, **given: Any) -> Backend:
        self.given = given
        engine = FakeEngine(lambda prompt: self.reply(prompt), self.tokenizer, context_length=self.context_length, base=base)
        self.engines.append(engine)
        return Backend(engine, Renderer(self.tokenizer, self.context_length), Store.open(home), lambda *_: (FakeTrainer(), {}))

    @property
    def adapters(self) -> list[str | None]:
        return [request.adapter for request in self.engines[-1].requests if request.parameters.max_tokens > 8]


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Model:
    fake = Model(tiny_tokenizer)
    monkeypatch.setattr(sys.modules["journeyman.local"], "open_backend", fake.open)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    return fake


@pytest.fixture
def home(model: Model, tmp_path: Path) -> Path:
    """Runs `doubler` (of an MCP server), `poet` (without one) and `empty` (nothing trained)."""
    settings = McpTrain(target=TARGET, base="fake-model").model_dump(mode="json")

    async def make() -> None:
        backend = model.open("fake-model", home=tmp_path)
        backend.create_run(CreateRun(id="doubler", kind="mcp", settings=settings))
        await backend.create_model(CreateModel(name="agent", run="doubler"))
        said = {
            "name": "poet",
            "base": "fake-model",
            "scenarios": "x:y",
            "rewards": {"x:z": 1.0},
            "rollout": {"system": "Answer in verse."},
        }
        backend.create_run(CreateRun(id="poet", kind="grpo", settings=said))
        await backend.create_model(CreateModel(name="poet", run="poet"))
        backend.create_run(CreateRun(id="empty", kind="mcp", settings=settings))
        await backend.close()

    asyncio.run(make())
    return tmp_path


def remembering(prompts: list[str], reply: Callable[[str], str]) -> Callable[[str], str]:
    """`reply`, and every prompt is kept."""

    def remember(prompt: str) -> str:
        prompts.append(prompt)
        return reply(prompt)

    return remember


def chat(home: Path, *words: str) -> int:
    return run(["chat", *words, "--home", str(home)])


class TestOneShot:
    def test_a_run_answers_with_its_own_tools_and_calls_are_shown(
        self, model: Model, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model.reply = lambda prompt: "It is 42." if '"twice": 42' in prompt or '"twice":42' in prompt else CALL
        assert chat(home, "doubler", "-m", "Double 21.") == 0
        shown = capsys.readouterr()
        assert "→ double" in shown.out
        assert '← {"number":21,"twice":42}' in shown.out
        assert "It is 42." in shown.out
        assert "agent@0" in shown.out
        assert "loading fake-model" in shown.err
        assert model.adapters == ["agent@0", "agent@0"]
        assert model.given["engine_processes"] == 0

    def test_messages_are_one_conversation_and_it_is_saved_as_a_row(
        self, model: Model, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text('{"messages": []}')  # a line without its end
        prompts: list[str] = []
        model.reply = remembering(prompts, lambda prompt: f"Answer {len(prompts)}.")
        assert chat(home, "--base", "fake-model", "-m", "first", "-m", "second", "--system", "Be kind.", "--save", str(file)) == 0
        assert "first" in prompts[-1]
        assert "Answer" in prompts[-1]
        row = json.loads(file.read_text().splitlines()[1])
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
        assert "tools" not in row
        assert "saved as row 2" in capsys.readouterr().out

    def test_a_saved_conversation_with_tools_is_what_supervised_training_reads(self, model: Model, home: Path, tmp_path: Path) -> None:
        model.reply = lambda prompt: "It is 42." if '"twice":42' in prompt else CALL
        assert chat(home, "doubler", "-m", "Double 21.", "--save", str(tmp_path / "rows.jsonl")) == 0
        loaded = sft_examples(read_rows(str(tmp_path / "rows.jsonl")))
        (example,) = loaded.examples
        assert loaded.num_bad == 0
        assert isinstance(example, SftExample)
        assert [message.role for message in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
        assert example.messages[2].tool_calls[0].function.name == "double"
        assert [tool.function.name for tool in example.tools] == ["double"]

    def test_a_run_without_tools_gets_the_system_message_it_was_trained_with(self, model: Model, home: Path) -> None:
        prompts: list[str] = []
        model.reply = remembering(prompts, lambda prompt: "Roses.")
        assert chat(home, "poet", "-m", "Hi!") == 0
        assert chat(home, "poet", "-m", "Hi!", "--system", "") == 0
        assert "Answer in verse." in prompts[0]
        assert "Answer in verse." not in prompts[-1]

    def test_two_models_answer_side_by_side_with_the_same_seed(self, model: Model, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert chat(home, "doubler", "--no-tools", "--compare", "base", "-m", "Hi!", "--seed", "5", "--temperature", "0.5") == 0
        heading, line = [line for line in capsys.readouterr().out.splitlines() if line.strip()][:2]
        assert heading.split() == ["agent@0", "base", "fake-model"]
        assert line.split() == ["Hello", "there.", "Hello", "there."]
        assert sorted(model.adapters, key=str) == [None, "agent@0"]
        assert {request.parameters.seed for request in model.engines[-1].requests[-2:]} == {5}

    def test_a_model_of_a_provider_needs_no_base_model(
        self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serve_llm(scripted("From afar.")) as far:
            monkeypatch.setenv("VLLM_BASE_URL", far.base_url)
            assert chat(tmp_path, "--base", "vllm/big", "-m", "Hi!") == 0
        assert far.requests[0]["model"] == "big"
        assert "From afar." in capsys.readouterr().out
        assert not model.engines

    def test_a_server_that_runs_is_talked_to(self, model: Model, home: Path, tmp_path: Path, refused: list[JourneymanError]) -> None:
        backend = model.open("fake-model", home=home)
        backend.serve_run("doubler")
        with Server(create_app(backend, api_key="k"), api_key="k") as server:
            assert chat(tmp_path / "other", "--connect", server.url, "--api-key", "k", "-m", "Hi!") == 0
            assert chat(tmp_path / "other", "base", "--connect", server.url, "--api-key", "k", "-m", "Hi!") == 0
            assert model.adapters == ["agent@0", None]
            assert chat(tmp_path / "other", "nobody", "--connect", server.url, "--api-key", "k", "-m", "Hi!") == 2
            assert refused[-1].reason == "unknown_model"
            assert "agent@0" in str(refused[-1].hint)


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (["nothing-here"], "no_run"),
            (["empty"], "not_trained"),
            (["doubler", "--step", "9"], "no_version"),
            (["doubler", "--compare", "agent@7"], "no_version"),
            (["doubler", "--compare", "other"], "no_model"),
            (["doubler", "--no-tools", "--tools", "double"], "tools_and_none"),
            (["doubler", "--base", "other"], "other_base"),
            (["../doubler"], "no_run"),
            (["--base", "fake-model", "--step", "1"], "step_of_no_run"),
            (["--base", "fake-model", "--tools", "double"], "no_target"),
            (["--base", "fake-model", "--env", "A=b"], "no_target"),
            (["--base", "fake-model", "--connect", "http://127.0.0.1:9"], "two_bases"),
            (["--base", "openai/x", "--compare", "base"], "not_comparable"),
            ([], "no_model"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self,
        model: Model,
        home: Path,
        refused: list[JourneymanError],
        monkeypatch: pytest.MonkeyPatch,
        words: Sequence[str],
        reason: str,
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert chat(home, *words, "-m", "Hi!") == 2
        assert [error.reason for error in refused] == [reason]

    def test_a_run_whose_server_is_gone_can_be_talked_to_without_tools(
        self, model: Model, home: Path, refused: list[JourneymanError]
    ) -> None:
        gone = McpTrain.model_validate({"target": {"command": ["no-such-server"]}, "base": "fake-model"})
        with Store.open(home) as store:
            store.runs.update("doubler", settings=gone.model_dump(mode="json"))
        assert chat(home, "doubler", "-m", "Hi!") == 1
        assert refused[-1].reason == "command_not_found"
        assert "--no-tools" in str(refused[-1].hint)
        assert chat(home, "doubler", "--no-tools", "-m", "Hi!") == 0

    def test_without_a_terminal_it_asks_for_messages(self, home: Path, refused: list[JourneymanError]) -> None:
        assert chat(home, "doubler") == 2
        assert refused[-1].reason == "no_terminal"
        assert "--message" in str(refused[-1].hint)

    def test_a_context_that_is_full_ends_a_script_as_wrong_input(
        self, model: Model, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model.context_length = 64
        assert chat(home, "--base", "fake-model", "-m", "word " * 80) == 2
        assert "/reset" in capsys.readouterr().err

    def test_a_file_that_cannot_be_written_is_named(self, model: Model, home: Path, refused: list[JourneymanError]) -> None:
        assert chat(home, "--base", "fake-model", "-m", "Hi!", "--save", str(home)) == 1
        assert refused[-1].reason == "not_written"
        assert str(home) in refused[-1].message


class Typed:
    """A chat in which the lines are given, and what is shown is kept."""

    def __init__(self, model: Model, home: Path) -> None:
        self.model, self.home = model, home
        self.console = console.Terminal(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115  lives as long as the test

    def __call__(self, *lines: str | type[BaseException]) -> str:
        left = iter(lines)

        def read_line() -> str:
            line = next(left, EOFError)
            if isinstance(line, str):
                return line
            raise line()

        options = ChatOptions(home=self.home, max_tokens=200, base="fake-model")
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            try:
                conversations, context_length = runner.run(stack.enter_async_context(open_chat(options, lambda text: None)))
                Talk(conversations, context_length, runner, self.console).hold(read_line)
            finally:
                runner.run(stack.aclose())
        self.console.file.close()
        return self.console.export_text()


@pytest.fixture
def talk(model: Model, tmp_path: Path) -> Typed:
    return Typed(model, tmp_path)


class TestTalk:
    def test_commands_show_and_change_the_conversation(self, talk: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        prompts: list[str] = []
        talk.model.reply = remembering(prompts, lambda prompt: "Yes.")
        file = tmp_path / "saved rows.jsonl"
        shown = talk(
            "/help", "/system Be brief.", "one", "/reset", "two", f"/save {file}", "/system -", "/tools", "/nonsense", "/save", "", "three"
        )
        assert all(command in shown for command in ("/reset", "/system [TEXT]", "/tools", "/save FILE.jsonl", "/help", "/exit"))
        assert "no system message" in shown
        assert "Be brief." in prompts[-2]
        assert "one" not in prompts[-2].replace("none", "")
        assert "Be brief." not in prompts[-1]
        assert "two" in prompts[-1]
        assert [message["content"] for message in json.loads(file.read_text())["messages"]] == ["Be brief.", "two", "Yes."]
        failed = capsys.readouterr().err
        assert "/nonsense" in failed
        assert "/save" in failed

    def test_exit_ends_before_the_input_does(self, talk: Typed) -> None:
        talk("one", "/exit", "two")
        assert len(talk.model.adapters) == 1

    def test_ctrl_c_at_the_prompt_says_how_to_end_and_goes_on(self, talk: Typed) -> None:
        assert "Hello there." in talk(KeyboardInterrupt, "hi")

    def test_an_error_is_shown_and_the_talk_goes_on(self, talk: Typed, capsys: pytest.CaptureFixture[str]) -> None:
        talk.model.context_length = 120
        shown = talk("word " * 200, "hi")
        assert "no longer fits" in capsys.readouterr().err
        assert "Hello there." in shown


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: Sequence[str]) -> None:
        self._near, far = pty.openpty()
        self.process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, start_new_session=True, preexec_fn=_own_terminal)
        os.close(far)
        self.text = ""
        self._seen = 0

    def insist(self, key: str, wanted: str) -> None:
        """Type the key until `wanted` is shown: a Ctrl-C that comes while Python's line editor starts is noticed with the next one."""
        for _ in range(12):
            self.type(key)
            with contextlib.suppress(AssertionError):
                return self.until(wanted, seconds=5.0)
        return self.until(wanted)

    def until(self, wanted: str, *, seconds: float = 60.0) -> None:
        """Read until `wanted` has been shown after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.text.find(wanted, self._seen)) < 0:
            ready, _, _ = select.select([self._near], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited {seconds} s for {wanted!r}; shown: {self.text[self._seen :]!r}"
            try:
                self.text += os.read(self._near, 4096).decode(errors="replace")
            except OSError as error:  # the program has ended
                raise AssertionError(f"it ended before {wanted!r}: {self.text!r}") from error
        self._seen = at + len(wanted)

    def type(self, keys: str) -> None:
        os.write(self._near, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._near)


def _own_terminal() -> None:
    """So that Ctrl-C, typed, is a signal to the program, also where a shell started the tests with it ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.e2e
def test_in_a_terminal_ctrl_c_stops_the_reply_and_ctrl_d_ends_the_program(model: Model, home: Path) -> None:
    prompts: list[str] = []
    model.reply = remembering(prompts, lambda prompt: "Still here." if "again" in prompt else "one two three four five six")
    backend = model.open("fake-model", home=home)
    engine = model.engines[-1]
    with Server(create_app(backend, api_key="k"), api_key="k") as server:
        command = [sys.executable, "-c", "from journeyman.cli import main; main()", "chat", "--connect", server.url, "--api-key", "k"]
        terminal = Terminal(command)
        try:
            terminal.until("you>")
            engine.hold(after_tokens=8)
            terminal.type("count\n")
            terminal.until("one")
            terminal.type("\x03")
            terminal.until("stopped")
            engine.release()
            terminal.until("you>")
            terminal.type("again\n")
            terminal.until("Still here.")
            terminal.until("you>")
            terminal.insist("\x03", "Ctrl-D ends")
            terminal.until("you>")
            terminal.type("\x04")
            assert terminal.process.wait(30) == 0
        finally:
            terminal.close()
    assert "one" in prompts[-1]
    assert "six" not in prompts[-1]
