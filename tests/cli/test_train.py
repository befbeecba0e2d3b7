"""`journeyman train`: what is read from where, what is refused, and a whole run of a settings file with a fake model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.backend import FakeModel

from journeyman.cli.app import run
from journeyman.cli.train import TrainRequest, read_settings
from journeyman.config import command_line
from journeyman.errors import JourneymanError, NotFoundError, SettingError
from journeyman.recipes import data as run_data
from journeyman.recipes import run as open_runs
from journeyman.recipes import train as door
from journeyman.recipes.methods import McpFile, load_recipe
from journeyman.recipes.settings import DpoTrain, GrpoTrain, SftTrain
from journeyman.store import Store

FILE = """
method: grpo
base: fake-model
scenarios: tasks.jsonl
num_heldout: 2
rollout: {max_tokens: 400}
rewards: {own_rewards_of_the_cli.is_call: 1}
steps: 2
groups_per_step: 2
group_size: 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a settings file, its tasks and its reward."""
    (tmp_path / "doubling.yaml").write_text(FILE)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"task": f"Double {number}."}) + "\n" for number in range(8)))
    (tmp_path / "own_rewards_of_the_cli.py").write_text(
        "def is_call(scenario, trajectory):\n    return 'call' in (trajectory.answer or '')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return tmp_path


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel(tiny_tokenizer)
    monkeypatch.setattr(open_runs, "open_backend", fake.open)
    monkeypatch.setattr(run_data, "open_renderer", fake.renderer)
    return fake


def request(home: Path, **given: Any) -> TrainRequest:
    return TrainRequest(home, **given)


def test_a_file_is_trained_from_the_command_line_and_gone_on_with(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "doubling.yaml", "--home", "home", "--run", "one", "--seed", "3", "--set", "steps=1"]) == 0
    shown = capsys.readouterr().out
    assert "100.0 %" in shown
    assert run(["train", "--resume", "one", "--home", "home", "--set", "steps=2"]) == 0
    result = json.loads(Path("home/runs/one/report/result.json").read_text())
    assert (result["recipe"], result["method"], result["seed"], len(result["steps"])) == ("doubling", "grpo", 3, 2)
    assert (result["settings"]["steps"], result["settings"]["seed"]) == (2, 3)
    assert run(["runs", "show", "one", "--home", "home"]) == 0


def test_a_stopped_run_is_shown_with_the_command_that_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_recipe(Path("doubling.yaml"))
    with Store.open(folder / "home") as store:
        store.runs.create("one", kind="grpo", base="fake-model", settings=settings.model_dump(mode="json"))
    assert run(["runs", "show", "one", "--home", "home"]) == 0
    assert "journeyman train --resume one --home" in capsys.readouterr().out


def test_interrupting_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupted(_settings: object, _view: object, *, home: Path, run: str, **_given: object) -> None:
        with Store.open(home) as store:
            store.runs.create(run, kind="grpo", base="fake-model")
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "train", interrupted)
    assert run(["train", "doubling.yaml", "--home", "home", "--run", "one"]) == 130
    assert f"go on with: {command_line('train', '--resume', 'one', '--home', folder / 'home')}" in capsys.readouterr().err


def test_validating_says_what_a_run_would_do_and_makes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "doubling.yaml", "--validate", "--home", "home"]) == 0
    shown = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"(\d+) (?:training|held-out)", shown)] == [6, 2]
    assert "groups_per_step = 2" in shown
    assert not Path("home").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        ([], "FILE.yaml"),
        (["doubling.yaml", "--set", "stepz=3"], "'steps'"),
        (["doubling.yaml", "--set", "rewards={own_rewards_of_the_cli.is_cal: 1}"], "'is_call'"),
        (["doubling.yaml", "--set", "scenarios=none.jsonl"], "none.jsonl"),
        (["doubling.yaml", "--run", "a", "--resume", "b"], "--resume"),
        (["--schema", "dop"], "'dop'"),
    ],
)
def test_wrong_input_ends_with_exit_code_2_and_a_way_out(
    folder: Path, words: list[str], named: str, refused: list[JourneymanError]
) -> None:
    assert run(["train", *words, "--validate", "--home", "home"]) == 2
    assert named in str(refused[-1])


@pytest.mark.parametrize(
    "words",
    [
        ["--run", "../../x"],
        ["--run", "my run"],
        ["--run", ".."],
        ["--run=-x"],
        ["--run", ""],
        ["--run", "a\nb"],
        ["--set", "name=base"],
        ["--set", "name=fake-model"],
        ["--set", "name=x@3"],
        ["--set", "name=a/b"],
    ],
)
def test_a_name_that_cannot_be_used_is_wrong_input_and_makes_nothing(folder: Path, model: FakeModel, words: list[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert run(["train", "doubling.yaml", *words, "--home", "home"]) == 2
    assert sorted(folder.rglob("*")) == before


def test_the_schema_is_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--schema"]) == 0
    assert "oneOf" in json.loads(capsys.readouterr().out)
    assert run(["train", "--schema", "grpo"]) == 0
    assert "scenarios" in json.loads(capsys.readouterr().out)["required"]


def test_a_resumed_run_keeps_its_settings_and_says_what_would_change(folder: Path) -> None:
    settings = load_recipe(Path("doubling.yaml"), ["seed=7"])
    with Store.open(folder / "home") as store:
        store.runs.create("one", kind="grpo", base="fake-model", settings=settings.model_dump(mode="json"))
        store.runs.create("mcp", kind="mcp", base="x", settings={"target": {"command": ["some-server"]}})
        store.runs.create("other", kind="model", base="x")
    home = folder / "home"
    found = read_settings(request(home, resume="one", overrides=("steps=9",)))
    assert isinstance(found, GrpoTrain)
    assert (found.steps, found.seed, found.name) == (9, 7, "doubling")
    with pytest.raises(SettingError, match=r"group_size: 2 -> 4"):
        read_settings(request(home, resume="one", overrides=("group_size=4",)))
    assert read_settings(request(home, resume="one", overrides=("group_size=4",), allow_changed=True)).method == "grpo"
    for fixed in ("seed=1", "name=b", "scenarios=c.jsonl"):
        with pytest.raises(SettingError, match=fixed.partition("=")[0]):
            read_settings(request(home, resume="one", overrides=(fixed,), allow_changed=True))
    # A run of `journeyman mcp train` is gone on with too.
    assert isinstance(read_settings(request(home, resume="mcp")), McpFile)
    with pytest.raises(SettingError) as caught:
        read_settings(request(home, resume="other"))
    assert caught.value.reason == "other_program"
    with pytest.raises(NotFoundError) as unknown:
        read_settings(request(home, resume="none"))
    assert unknown.value.reason == "no_run"


class TestExamples:
    """Options that say where the examples of `sft` and `dpo` come from."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        rows = [{"question": f"Double {number}.", "answer": str(2 * number)} for number in range(6)]
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{no JSON\n")
        data = "{source: rows.jsonl, format: alpaca, columns: {instruction: question}, num_heldout: 2}"
        Path("sft.yaml").write_text(f"method: sft\nbase: fake-model\ndata: {data}\n")
        Path("dpo.yaml").write_text("method: dpo\ndata: {source: a.jsonl, heldout_source: b.jsonl, num_heldout: 1}\n")
        return tmp_path / "home"

    def test_a_run_named_on_the_command_line_replaces_the_data_of_the_file(self, home: Path) -> None:
        data = {"from_run": "tried", "min_reward": 0.5}
        found = read_settings(request(home, file=Path("sft.yaml"), given={"data": data}))
        assert isinstance(found, SftTrain)
        assert (found.data.from_run, found.data.min_reward, found.data.source, found.data.columns) == ("tried", 0.5, None, {})
        assert found.data.num_heldout == 2
        pairs = read_settings(request(home, file=Path("dpo.yaml"), given={"data": {"from_run": "tried", "margin": 0.2}}))
        assert isinstance(pairs, DpoTrain)
        assert (pairs.data.from_run, pairs.data.margin, pairs.data.source, pairs.data.heldout_source) == ("tried", 0.2, None, None)

    def test_set_replaces_the_data_of_the_file_too_in_both_directions(self, home: Path) -> None:
        found = read_settings(request(home, file=Path("sft.yaml"), overrides=("data.from_run=tried", "data.max_per_task=1")))
        assert isinstance(found, SftTrain)
        assert (found.data.from_run, found.data.source) == ("tried", None)
        Path("again.yaml").write_text("method: sft\ndata: {from_run: tried, max_per_task: 1}\n")
        back = read_settings(request(home, file=Path("again.yaml"), overrides=("data.source=rows.jsonl",)))
        assert isinstance(back, SftTrain)
        assert (back.data.from_run, back.data.source) == (None, "rows.jsonl")
        with pytest.raises(SettingError, match="source"):
            read_settings(request(home, file=Path("sft.yaml"), overrides=("data.from_run=tried", "data.source=rows.jsonl")))

    def test_a_run_that_learned_from_another_is_gone_on_with(self, home: Path) -> None:
        chosen = request(home, file=Path("sft.yaml"), given={"data": {"from_run": "tried"}})
        with Store.open(home) as store:
            store.runs.create("one", kind="sft", base="fake-model", settings=read_settings(chosen).model_dump(mode="json"))
        found = read_settings(request(home, resume="one", given={"data": {"from_run": "tried"}}))
        assert isinstance(found, SftTrain)
        assert found.data.from_run == "tried"
        with pytest.raises(SettingError, match=r"data\.from_run"):
            read_settings(request(home, resume="one", overrides=("data.source=rows.jsonl",)))

    @pytest.mark.parametrize(
        ("words", "reason", "named"),
        [
            (["sft.yaml", "--margin", "0.1"], "other_method", "--margin"),
            (["dpo.yaml", "--from-run", "a", "--min-reward", "1"], "other_method", "--min-reward"),
            (["sft.yaml", "--min-reward", "1"], "no_run", "rows.jsonl"),
            (["yes_no_maybe.yaml", "--from-run", "a"], "other_method", "--from-run"),
            (["yes_no_maybe.yaml", "--column", "a=b"], "other_method", "--column"),
            (["sft.yaml", "--from-run", "a", "--skip-bad"], None, "skip_bad"),
            (["sft.yaml", "--column", "output"], "no_column", "OURS=THEIRS"),
            (["sft.yaml", "--column", "output=answer"], None, "rows.jsonl, line 7"),
            (["sft.yaml", "--from-run", "a"], None, "home"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, home: Path, words: list[str], reason: str | None, named: str, refused: list[JourneymanError]
    ) -> None:
        assert run(["train", *words, "--validate", "--home", "home"]) == 2
        assert reason in (None, refused[-1].reason)
        assert named in str(refused[-1])

    def test_rows_left_out_are_counted_and_the_first_told_with_their_line(
        self, home: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train", "sft.yaml", "--column", "output=answer", "--skip-bad", "--home", "home"]
        assert run([*words, "--validate"]) == 0
        assert "rows.jsonl, line 7" in capsys.readouterr().out
        assert run([*words, "--run", "one"]) == 0
        assert "rows.jsonl, line 7" in capsys.readouterr().out
