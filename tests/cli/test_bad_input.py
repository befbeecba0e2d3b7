"""What `journeyman mcp train` says when it cannot work: the thing that is wrong by its name, what to do, an exit code, and no traceback.

Taken ports and the like are in test_serve.py, misread options in test_options.py and test_mcp_train.py.
"""

from __future__ import annotations

import shlex
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, scripted, serve
from tests.recipes.backend import FakeModel

from journeyman.cli.app import run
from journeyman.recipes import run as open_runs
from journeyman.store import Store
from journeyman.store.home import HomeFolder

SERVERS = Path(__file__).parents[1] / "mcp" / "servers"
NUMBERS = shlex.join([sys.executable, str(Path(__file__).parents[1] / "recipes" / "number_server.py")])
SMALL = ("num_train=4", "num_heldout=2", "warm_start.max_updates=0", "warm_start.probe_scenarios=1", "warm_start.probe_attempts=2")
SMALL += ("rollouts.groups_per_step=1", "rollouts.group_size=2", "rollouts.max_refills=0", "stop_without_spread=1")

Fails = Callable[..., str]


def command(server: str, kind: str) -> str:
    return shlex.join([sys.executable, str(SERVERS / f"{server}.py"), kind])


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run `mcp train` with some options, see it fail with an exit code and a way out, and give back what it said."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def attempt(*words: str, code: int = 1, home: Path | None = None) -> str:
        assert run(["mcp", "train", *words, "--home", str(home or tmp_path / "home")]) == code
        shown = capsys.readouterr()
        assert "what to do: " in shown.err
        assert "Traceback" not in shown.out + shown.err
        return shown.err

    return attempt


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel(tiny_tokenizer)
    monkeypatch.setattr(open_runs, "open_backend", fake.open)
    return fake


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TestServers:
    @pytest.mark.parametrize(
        ("server", "kind", "options", "said", "way_out"),
        [
            ("raw_server", "exit", (), "API_TOKEN is not set", "--env NAME=VALUE"),
            ("raw_server", "invalid", ("--tools", "odd,fine"), "tool 'odd'", "--tools fine"),
            ("plain_server", "none", (), "offers no tools", "right server"),
            ("plain_server", "writes", (), "create_note, tidy", "--allow-writes"),
            ("plain_server", "old", (), "lookup", "--read-only lookup"),
        ],
    )
    def test_a_server_that_cannot_be_used_is_named_with_what_is_wrong(
        self, fails: Fails, server: str, kind: str, options: tuple[str, ...], said: str, way_out: str
    ) -> None:
        shown = fails("--server", command(server, kind), *options)
        assert said in shown
        assert f"{server}.py" in shown
        assert way_out in shown

    @pytest.mark.parametrize("option", ["--read-only", "--tools"])
    def test_a_tool_that_the_server_does_not_have_is_refused_with_those_it_has(self, fails: Fails, option: str) -> None:
        shown = fails("--server", command("plain_server", "good"), option, "findCapital,find_it", code=2)
        assert option in shown
        assert all(name in shown for name in ("find_it", "findCapital", "box_area", "delete_everything"))

    @pytest.mark.parametrize(
        ("kind", "said", "way_out"),
        [("junk", "Starting up, please wait!", "logs to stderr"), ("hang", "within 2 s", "--set target.start_timeout_seconds=120")],
    )
    def test_a_handshake_that_fails_ends_after_the_time_that_was_set(self, fails: Fails, kind: str, said: str, way_out: str) -> None:
        shown = fails("--server", command("raw_server", kind), "--set", "target.start_timeout_seconds=2")
        assert said in shown
        assert way_out in shown

    def test_a_server_that_dies_in_every_attempt_leaves_nothing_to_learn_from(self, fails: Fails, model: FakeModel, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        model.on_training = mark.touch
        model.is_right = lambda task, number: True
        shown = fails("--server", NUMBERS, "--env", f"END_WHEN={mark}", *(word for one in SMALL for word in ("--set", one)))
        assert "2 of 2" in shown
        assert "'double'" in shown
        assert "out of paper" in shown
        assert "--resume" in shown
        with Store.open(tmp_path / "home") as store:
            assert [info.state for info in store.runs.list()] == ["failed"]

    def test_a_url_where_nobody_listens_is_named(self, fails: Fails) -> None:
        url = f"http://127.0.0.1:{free_port()}/mcp"
        shown = fails("--url", url)
        assert url in shown
        assert "cannot be reached" in shown

    def test_a_url_that_wants_a_key_says_how_to_give_one(self, fails: Fails) -> None:
        with serve(scripted(Answer.error(401, "who are you?"))) as server:
            shown = fails("--url", server.base_url)
            assert "--header" in shown
            assert "were not accepted" in fails("--url", server.base_url, "--header", "Authorization: Bearer wrong")


class TestModels:
    def test_an_unknown_base_model_gets_the_nearest_known_name(self, fails: Fails) -> None:
        assert "'smollm2-135m'" in fails("--server", NUMBERS, "--base", "smolm2-135m", code=2)

    def test_a_model_folder_without_a_tokenizer_says_what_is_missing(self, fails: Fails, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "model.safetensors").touch()
        shown = fails("--server", NUMBERS, "--base", str(folder), code=2)
        assert str(folder) in shown
        assert "tokenizer.json" in shown

    def test_a_judge_that_cannot_be_reached_is_found_out_before_the_model_is_loaded(
        self, fails: Fails, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = f"http://127.0.0.1:{free_port()}/v1"
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        shown = fails("--server", NUMBERS, "--judge", "some-judge")
        assert "some-judge" in shown
        assert url in shown
        assert "cannot be reached" in shown

    def test_a_judge_whose_key_is_not_set_names_the_variable(self, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert "OPENAI_API_KEY" in fails("--server", NUMBERS, "--judge", "openai/gpt-5-mini", code=2)

    def test_a_judge_that_answers_nonsense_scores_nothing_and_never_becomes_a_reward(
        self, fails: Fails, model: FakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with serve(scripted("I love them all!")) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
            shown = fails("--server", NUMBERS, "--judge", "some-judge", *(word for one in SMALL for word in ("--set", one)))
        assert "2 of 2" in shown
        assert "unusable reply" in shown
        (trainer,) = model.trainers
        assert trainer.weight == 0.0


class TestHomes:
    def test_a_file_in_the_place_of_the_home_folder_is_named(self, fails: Fails, tmp_path: Path, tiny_model: Path) -> None:
        home = tmp_path / "taken"
        home.touch()
        assert str(home) in fails("--server", NUMBERS, "--base", str(tiny_model), home=home)

    def test_a_store_of_a_newer_version_is_left_alone(self, fails: Fails, tmp_path: Path, tiny_model: Path) -> None:
        Store.open(tmp_path / "home").close()
        with closing(sqlite3.connect(HomeFolder(tmp_path / "home").database, isolation_level=None)) as database:
            database.execute("UPDATE schema SET version = 99, written_by = '7.1.0'")
        shown = fails("--server", NUMBERS, "--base", str(tiny_model))
        assert "written by Journeyman 7.1.0" in shown
        assert "7.1.0 or newer" in shown
