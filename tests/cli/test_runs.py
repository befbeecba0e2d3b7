from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest
from tests.rewards.attempts import turn

from journeyman.cli.app import run
from journeyman.errors import JourneymanError
from journeyman.store.locks import RunLock
from journeyman.store.models import AdapterRow, ModelRow
from journeyman.store.rollouts import RolloutRow
from journeyman.store.store import Store
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Grpo, LoraSettings
from journeyman.types.training import FinishRollout
from journeyman.types.trajectory import JudgeCall, Verdict


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with two runs: `first` is done, `second` was stopped in its second step."""
    with Store.open(tmp_path / "home") as store:
        for number, (name, rate) in enumerate((("first", 1e-4), ("second", 3e-4)), start=1):
            store.runs.create(name, kind="mcp", base="smollm2-135m", settings={"grpo": {"learning_rate": rate}, "seed": 0})
            store.models.create(ModelRow(name, "agent", "smollm2-135m", LoraSettings()))
            for step in range(1, number + 1):
                metrics = {"reward/mean": 0.1 * step, "reward/success": 0.25}
                store.runs.add_step(StepMetrics(run=name, phase="train", step=step, time=time.time(), metrics=metrics))
            folder = store.home.run(name).adapters / f"agent@{number}"
            store.models.add_adapter(AdapterRow(name, "agent", number, folder, "f" * 64))
        store.runs.update("first", state="done", phase="train", step=1)
        store.runs.update("second", state="stopped", phase="train", step=2)
    return tmp_path / "home"


def test_list_shows_state_and_step_of_each_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "list", "--home", str(home)]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["first"][1:4] == ["done", "train", "1"]
    assert lines["second"][1:4] == ["stopped", "train", "2"]


def test_a_run_whose_process_is_gone_is_shown_as_stopped_and_a_live_one_as_running(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(home) as store:
        store.runs.update("second", state="running", phase="train")
        path = store.home.run("second").lock
    assert run(["runs", "list", "--home", str(home)]) == 0
    assert "stopped (its process is gone)" in capsys.readouterr().out
    assert run(["runs", "show", "second", "--home", str(home), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["error"]) == ("stopped", "its process is gone")
    lock = RunLock(path, "second")
    assert run(["runs", "list", "--home", str(home)]) == 0
    assert "running" in capsys.readouterr().out
    lock.release()
    with Store.open(home) as store:
        assert store.runs.get("second").state == "running"  # looking changes nothing


def test_a_run_whose_id_an_earlier_version_took_is_still_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(home / "journeyman.db") as connection:
        connection.execute(
            "INSERT INTO runs SELECT '../my run', kind, base, state, phase, step, error, settings, 0, 0, NULL FROM runs LIMIT 1"
        )
    connection.close()
    assert run(["runs", "list", "--home", str(home), "--json"]) == 0
    assert "../my run" in [info["id"] for info in json.loads(capsys.readouterr().out)]


def test_list_as_json_is_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "list", "--home", str(home), "--json"]) == 0
    assert {one["id"] for one in json.loads(capsys.readouterr().out)} == {"first", "second"}


def test_show_says_how_to_resume_and_serve_a_stopped_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "second", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert f"journeyman mcp train --resume second --home {home}" in shown
    assert f"journeyman serve --run second --home {home}" in shown
    assert "agent@2" in shown


def test_show_of_a_finished_run_does_not_offer_to_resume_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "first", "--home", str(home)]) == 0
    assert "--resume" not in capsys.readouterr().out


def test_show_as_json_has_steps_and_adapters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "second", "--home", str(home), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in shown["steps"]] == [1, 2]
    assert [one["name"] for one in shown["adapters"]] == ["agent@2"]


def test_show_names_the_report_and_every_evaluation_made_since(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "runs" / "first"
    again = [folder / "evaluations" / name for name in ("20260101-120000", "20260102-120000")]
    for one in (folder / "report", *again):
        one.mkdir(parents=True)
    assert run(["runs", "show", "first", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith(("report ", "evaluation "))] == list(map(str, (folder / "report", *again)))
    assert run(["runs", "show", "first", "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == list(map(str, again))


def test_show_tells_what_a_program_of_its_own_set_in_its_last_step(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"grpo": Grpo(learning_rate=0.25, loss="gspo").model_dump(mode="json")}
    with Store.open(home) as store:
        store.runs.create("program", kind="model", base="smollm2-135m")
        store.runs.add_step(StepMetrics(run="program", phase="train", step=1, time=time.time(), metrics={"x": 1.0}, settings=made))
    assert run(["runs", "show", "program", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "not the defaults in the last step: grpo.learning_rate = 0.25, " in shown
    assert "grpo.loss.kind = gspo" in shown
    assert run(["runs", "show", "second", "--home", str(home)]) == 0
    assert "not the defaults" not in capsys.readouterr().out


def test_show_tells_how_healthy_a_run_is_and_what_packing_saved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"train/truncated_fraction": 0.75, "train/num_unpacked_tokens": 300.0, "train/num_computed_tokens": 100.0}
    with Store.open(home) as store:
        store.runs.add_step(StepMetrics(run="second", phase="train", step=3, time=time.time(), metrics=metrics))
    assert run(["runs", "show", "second", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "problem all_truncated" in shown
    assert "saved 3.00x" in shown
    assert run(["runs", "show", "second", "--home", str(home), "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert ([one["name"] for one in as_json["findings"]], as_json["packing_saving"]) == (["all_truncated"], 3.0)


def test_show_tells_how_healthy_a_program_is_that_only_imitates(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(home) as store:
        store.runs.create("imitation", kind="model", base="smollm2-135m")
        for step in (1, 2, 3):
            metrics = {"train/num_updates_skipped": 1.0, "train/num_examples": 4.0}
            store.runs.add_step(StepMetrics(run="imitation", phase="warmup", step=step, time=time.time(), metrics=metrics))
    assert run(["runs", "show", "imitation", "--home", str(home)]) == 0
    assert "problem updates_skipped" in capsys.readouterr().out


def test_compare_shows_settings_that_differ_and_only_those(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "compare", "first", "second", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "grpo.learning_rate" in shown
    assert "seed" not in shown
    assert "reward/mean" in shown


def test_comparing_one_run_is_refused(home: Path) -> None:
    assert run(["runs", "compare", "first", "--home", str(home)]) == 2


def test_an_unknown_run_names_the_known_ones(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "third", "--home", str(home)]) == 2
    assert "first" in capsys.readouterr().err


def test_looking_at_a_home_folder_that_is_not_there_does_not_make_it(tmp_path: Path, refused: list[JourneymanError]) -> None:
    (tmp_path / "other").mkdir()
    for name in ("none", "other"):
        assert run(["runs", "list", "--home", str(tmp_path / name)]) == 2
        assert refused[-1].reason == "no_home"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "other"]


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        ["runs", "show", "nope"],
        ["runs", "show", "nope", "--group", "one"],
        ["runs", "compare", "nope", "other"],
        ["eval", "nope"],
        ["eval", "nope", "--prompt-only", "smollm2-135m"],
        ["export", "nope"],
        ["serve", "--run", "nope"],
        ["chat", "nope", "--message", "hello"],
        ["train", "--resume", "nope"],
        ["mcp", "train", "--resume", "nope"],
    ],
    ids=" ".join,
)
def test_a_run_that_is_not_there_is_wrong_input_and_named_with_its_folder(
    words: list[str], is_there: bool, tmp_path: Path, refused: list[JourneymanError]
) -> None:
    where = tmp_path / "home"
    if is_there:
        Store.open(where).close()
    assert run([*words, "--home", str(where)]) == 2
    assert refused[-1].reason == ("no_run" if is_there else "no_home")
    assert "'nope'" in refused[-1].message
    assert str(where) in refused[-1].message
    assert refused[-1].hint
    assert where.exists() is is_there


# One group ----------------------------------------------------------------------------------------------------------------

SCENARIO = "s@1"  # an id may have the sign that stands before a step


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    said = JudgeCall(call="c1", model="big", place=1, num_shown=2, score=0.8, explanation="names the place", seconds=1.5)
    with Store.open(tmp_path) as store:
        store.runs.create("one", kind="mcp", base="b", settings={})
        for name in ("bad", "good"):
            store.rollouts.open(RolloutRow(name, "agent@3", SCENARIO, 4, run="one"), f"token-{name}")
            store.rollouts.append_turn(name, turn(f"a {name} answer"))
            store.rollouts.seal(name, FinishRollout())
        verdicts = {name: Verdict(judge="ruler:big", score=score, calls=(said,)) for name, score in (("bad", 0.1), ("good", 0.8))}
        store.rollouts.set_rewards({"bad": 0.1, "good": 0.8}, verdicts)
    return tmp_path


@pytest.mark.parametrize("group", [SCENARIO, f"{SCENARIO}@3"])
def test_a_group_is_shown_side_by_side_best_first(judged: Path, group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", group, "--home", str(judged)]) == 0
    text = capsys.readouterr().out
    assert text.index("good  reward") < text.index("bad  reward")
    flat = " ".join(text.replace("│", " ").replace("┃", " ").split())
    for words in ("ruler:big", "place 2 of 2", "agent@3"):
        assert words in flat


def test_an_unknown_group_names_those_there_are(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", "nothing", "--home", str(judged)]) == 2
    assert SCENARIO in capsys.readouterr().err


def test_a_group_as_json_holds_every_word_of_the_judge(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", SCENARIO, "--home", str(judged), "--json"]) == 0
    assert "names the place" in capsys.readouterr().out
