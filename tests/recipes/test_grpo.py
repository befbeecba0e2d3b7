"""The GRPO recipe from tasks to report and result.json, with a fake model and functions of the user's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.reasons import has_reason
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import RecordingProgress
from tests.recipes.own_functions import module_of

from journeyman.errors import InputError, JudgeError, NotFoundError, NothingToLearnError, SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.grpo import check, step_settings, train
from journeyman.recipes.report import Result
from journeyman.recipes.settings import ChatOrFunction, GrpoTrain
from journeyman.recipes.train import evaluate
from journeyman.store import Store
from journeyman.types.runs import RunInfo
from journeyman.types.settings import Grpo, Retention


def result_of(home: Path, run: str) -> Result:
    return Result.model_validate_json((home / "runs" / run / "report" / "result.json").read_text())


def only_run(home: Path) -> RunInfo:
    with Store.open(home) as store:
        (info,) = store.runs.list()
        return info


class TestReport:
    async def test_a_run_ends_with_a_report_and_a_result_that_programs_read(
        self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path
    ) -> None:
        progress = RecordingProgress()
        report = await train(doubler, progress, home=tmp_path, run="first")
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]
        (evaluation,) = report.evaluations
        assert [variant.name for variant in evaluation.variants] == ["base", "trained"]
        assert (evaluation.sampling, evaluation.num_scenarios) == ("greedy", 4)
        assert evaluation.comparison("base", "trained").success.difference.mean == 1.0
        assert report.adapter == str(tmp_path / "runs" / "first" / "adapters" / "doubler@2")
        assert progress.steps == [1, 2]
        assert any(note.startswith("judge rubric(is_call): ") for note in progress.notes)
        result = result_of(tmp_path, "first")
        assert (result.recipe, result.method, result.seed, len(result.steps)) == ("doubler", "grpo", 0, 2)
        assert result.settings["groups_per_step"] == 2
        assert "seed" not in result.settings
        assert result.final["heldout/gain"] == 1.0
        assert result.final["train/reward"] == result.steps[-1]["reward/mean"] == 0.5
        assert result.final["heldout/trained/is_call"] == 1.0
        assert result.seconds > 0
        info = only_run(tmp_path)
        assert (info.id, info.kind, info.state) == ("first", "grpo", "done")

    async def test_without_held_out_tasks_nothing_is_evaluated(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        report = await train(doubler.model_copy(update={"num_heldout": 0, "steps": 1}), SilentProgress(), home=tmp_path)
        assert report.evaluations == ()
        assert report.run.startswith("doubler-2")

    async def test_only_the_checkpoints_that_were_asked_for_stay(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        few = doubler.model_copy(update={"num_heldout": 0, "retention": Retention(checkpoints=1, best=0)})
        await train(few, SilentProgress(), home=tmp_path, run="one")
        assert [path.name for path in (tmp_path / "runs" / "one" / "checkpoints").iterdir()] == ["step-000002"]

    async def test_a_run_is_evaluated_again_greedy_and_sampled(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        await train(doubler.model_copy(update={"steps": 1}), SilentProgress(), home=tmp_path, run="one")
        folder = tmp_path / "runs" / "one"
        page = (folder / "report" / "report.html").read_bytes()
        report = await evaluate("one", home=tmp_path, progress=SilentProgress(), attempts=2, limit=3)
        assert (folder / "report" / "report.html").read_bytes() == page
        assert [path.name for path in (folder / "evaluations").glob("*/report.html")] == ["report.html"]
        assert [(one.sampling, one.group_size, one.num_scenarios) for one in report.evaluations] == [("greedy", 1, 3), ("sampled", 2, 3)]
        assert [one.model for one in report.evaluations[0].variants] == ["base", "doubler@1"]
        assert len(model.trainers) == 1
        await train(doubler.model_copy(update={"steps": 0, "num_heldout": 0}), SilentProgress(), home=tmp_path, run="empty")
        with pytest.raises(NotFoundError, check=has_reason("not_trained")):
            await evaluate("empty", home=tmp_path, progress=SilentProgress())
        with Store.open(tmp_path) as store:
            store.runs.create("compared", kind="dpo", base="fake-model")
        with pytest.raises(SettingError, check=has_reason("no_tasks")):
            await evaluate("compared", home=tmp_path, progress=SilentProgress())
        with pytest.raises(SettingError, check=has_reason("no_judge")):
            await evaluate("one", home=tmp_path, progress=SilentProgress(), judge="openai/x")


class TestRewards:
    async def test_functions_are_weighed_and_may_be_async_or_not_apply(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        own = module_of(doubler)
        both = doubler.model_copy(update={"rewards": {f"{own}.is_call": 3.0, f"{own}.is_short": 1.0}, "steps": 1, "num_heldout": 0})
        await train(both, SilentProgress(), home=tmp_path, run="both")
        with Store.open(tmp_path) as store:
            (step,) = store.runs.steps("both", "train")
        # A call is worth 1 alone, and (3 + 0.5) / 4 where the second function applies.
        assert 0.5 <= step.metrics["reward/mean"] <= 0.6
        assert step.metrics["reward/check/is_call"] == 0.5

    async def test_a_rollout_function_may_score_itself(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        own = doubler.model_copy(update={"rewards": {}, "rollout": ChatOrFunction(function=f"{module_of(doubler)}:agent")})
        report = await train(own, SilentProgress(), home=tmp_path)
        assert report.evaluations[0].sampling == "sampled"
        assert report.evaluations[0].comparison("base", "trained").success.difference.mean == 1.0
        assert report.curl is None

    @pytest.mark.parametrize(
        ("name", "said"), [("too_much", "returned 7"), ("breaks", r"breaks failed: KeyError: 'nothing there' \(attempt")]
    )
    async def test_a_reward_function_that_fails_is_named_and_the_run_can_go_on(
        self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path, name: str, said: str
    ) -> None:
        bad = doubler.model_copy(update={"rewards": {f"{module_of(doubler)}.{name}": 1.0}})
        with pytest.raises(JudgeError, match=said):
            await train(bad, SilentProgress(), home=tmp_path, run="one")
        assert only_run(tmp_path).state == "stopped"
        if name == "breaks":
            (tmp_path / "mended").touch()
            report = await train(bad, SilentProgress(), home=tmp_path, resume="one")
            assert [step.metrics["reward/mean"] for step in report.steps] == [0.5, 0.5]

    async def test_attempts_that_are_all_alike_stop_the_run(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
        model.is_right = lambda task, number: True
        with pytest.raises(NothingToLearnError, check=has_reason("no_spread")) as caught:
            await train(doubler.model_copy(update={"steps": 9, "stop_without_spread": 2}), SilentProgress(), home=tmp_path)
        assert "solves these tasks already" in str(caught.value.hint)
        model.forget()
        progress = RecordingProgress()
        report = await train(doubler.model_copy(update={"steps": 4, "stop_without_spread": None}), progress, home=tmp_path / "on")
        assert len(report.steps) == 4
        # The training call notes it too, but it is said once.
        assert [text.partition(":")[0] for text in progress.notes + progress.warnings if "no_spread" in text] == ["no_spread"]


class TestResume:
    async def test_a_run_stopped_inside_a_step_goes_on_as_if_it_had_not_been(
        self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path
    ) -> None:
        four = doubler.model_copy(update={"steps": 4})
        whole = await train(four, SilentProgress(), home=tmp_path / "whole", run="one")
        attempted = model.tasks()

        model.stop_at = 2
        model.forget()
        task = asyncio.create_task(train(four, SilentProgress(), home=tmp_path / "halves", run="one"))
        loop = asyncio.get_running_loop()
        model.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert only_run(tmp_path / "halves").state == "stopped"

        model.stop_at = None
        report = await train(four, SilentProgress(), home=tmp_path / "halves", resume="one")
        assert [step.step for step in report.steps] == [1, 2, 3, 4]
        assert only_run(tmp_path / "halves").state == "done"
        trained = [f"doubler@{step}" for step in range(1, 4)]
        assert [model.tasks()[name] for name in trained] == [attempted[name] for name in trained]
        assert report.evaluations[0].scenarios_hash == whole.evaluations[0].scenarios_hash
        assert len(result_of(tmp_path / "halves", "one").steps) == 4

    async def test_a_resumed_run_keeps_its_tasks_whatever_became_of_their_source(
        self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path
    ) -> None:
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"task": f"Double {number}."}) + "\n" for number in range(8)))
        filed = doubler.model_copy(update={"scenarios": "tasks.jsonl", "num_train": None, "num_heldout": 2, "steps": 1})
        first = await train(filed, SilentProgress(), home=tmp_path / "home", run="one")
        (tmp_path / "tasks.jsonl").unlink()
        more = await train(filed.model_copy(update={"steps": 2}), SilentProgress(), home=tmp_path / "home", resume="one")
        assert len(more.steps) == 2
        assert more.evaluations[0].scenarios_hash == first.evaluations[0].scenarios_hash

    async def test_a_run_of_that_id_is_not_begun_again_and_settings_change_only_when_allowed(
        self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path
    ) -> None:
        await train(doubler, SilentProgress(), home=tmp_path, run="one")
        with pytest.raises(SettingError, check=has_reason("run_exists")):
            await train(doubler, SilentProgress(), home=tmp_path, run="one")
        other = doubler.model_copy(update={"steps": 3, "grpo": Grpo(learning_rate=1e-5)})
        with pytest.raises(SettingError, check=has_reason("settings_changed")) as caught:
            await train(other, SilentProgress(), home=tmp_path, resume="one")
        assert "grpo.learning_rate: 0.0001 -> 1e-05" in caught.value.message
        report = await train(other, SilentProgress(), home=tmp_path, resume="one", allow_changed_settings=True)
        assert report.steps[-1].metrics["train/learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rewards": {"nowhere_at_all.reward": 1.0}}, "no_module"),
        ({"rewards": {"OWN.is_cal": 1.0}}, "no_function"),
        ({"rewards": {"OWN.number": 1.0}}, "no_function"),
        ({"rewards": {"OWN.one_argument": 1.0}}, "other_parameters"),
        ({"rewards": {"reward": 1.0}}, "no_dotted_path"),
        ({"rewards": {"OWN.is_call": 0.0}}, None),
        ({"scenarios": "OWN.is_call"}, "function_failed"),
        ({"scenarios": "missing.jsonl"}, "unreadable"),
        ({"rollout": ChatOrFunction(function="OWN.one_argument")}, "other_parameters"),
        ({"num_train": None}, "function_failed"),
    ],
)
async def test_what_cannot_be_used_is_refused_before_anything_is_loaded(
    doubler: GrpoTrain, tmp_path: Path, change: dict[str, Any], reason: str | None
) -> None:
    own = module_of(doubler)

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("OWN", own)
        if isinstance(value, dict):
            return {filled(key): one for key, one in value.items()}
        return ChatOrFunction(function=filled(value.function)) if isinstance(value, ChatOrFunction) else value

    changed = doubler.model_copy(update={name: filled(value) for name, value in change.items()})
    with pytest.raises((SettingError, InputError), check=has_reason(reason)):
        await train(changed, SilentProgress(), home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_the_split_is_the_files_own_or_chosen_by_the_seed(doubler: GrpoTrain, tmp_path: Path) -> None:
    rows = [{"task": f"task {number}", "data": {"answer": number}} for number in range(10)]
    (tmp_path / "plain.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    plain = doubler.model_copy(update={"scenarios": "plain.jsonl", "num_train": None, "num_heldout": 3})
    splits = [tuple(one.id for one in check(plain.model_copy(update={"seed": seed})) if one.split == "heldout") for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert len(check(plain)) == 10
    rows[4]["split"] = rows[7]["split"] = "heldout"
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = check(plain.model_copy(update={"scenarios": "own.jsonl", "num_heldout": 2}))
    assert [one.id for one in found if one.split == "heldout"] == ["line-5", "line-8"]
    with pytest.raises(SettingError, check=has_reason("too_few_tasks")):
        check(plain.model_copy(update={"scenarios": "own.jsonl"}))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no_json"),
        ('{"tusk": "x"}', "no_task"),
        ('{"task": "x", "answer": 3}', "unknown_names"),
        ('{"task": "x", "id": "line-1"}', "repeated_id"),
        ('{"task": "x", "split": "test"}', "no_task"),
    ],
)
def test_a_faulty_line_is_named(doubler: GrpoTrain, tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"task": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, check=has_reason(reason)) as caught:
        check(doubler.model_copy(update={"scenarios": "bad.jsonl"}))
    assert "line 2" in caught.value.message


def test_the_learning_rate_rises_and_falls() -> None:
    settings = GrpoTrain(scenarios="x.y", rewards={"x.y": 1.0}, steps=5, warmup_steps=1, decay_to=0.5, grpo=Grpo(learning_rate=1e-3))
    rates = [step_settings(settings, number).learning_rate for number in range(5)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3 * 5 / 6, 1e-3 * 4 / 6, 5e-4])


async def test_what_more_steps_do_to_the_learning_rate_is_said(model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
    falling = doubler.model_copy(update={"decay_to": 0.5, "grpo": Grpo(learning_rate=1e-3)})
    await train(falling, SilentProgress(), home=tmp_path, run="one")
    progress = RecordingProgress()
    report = await train(falling.model_copy(update={"steps": 5}), progress, home=tmp_path, resume="one")
    assert "goes on with steps: 2 -> 5" in progress.notes
    assert any("the learning rate was 5.00e-04 in step 2 and will be 7.50e-04 in step 3" in note for note in progress.notes)
    assert [step.metrics["train/learning_rate"] for step in report.steps] == pytest.approx([1e-3, 5e-4, 7.5e-4, 6.25e-4, 5e-4])


async def test_where_the_learning_rate_stays_nothing_is_said_of_it(model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> None:
    await train(doubler, SilentProgress(), home=tmp_path, run="one")
    progress = RecordingProgress()
    await train(doubler.model_copy(update={"steps": 3}), progress, home=tmp_path, resume="one")
    assert "goes on with steps: 2 -> 3" in progress.notes
    assert not [note for note in progress.notes if "learning rate was" in note]


def test_settings_that_would_be_ignored_or_leave_nobody_to_score_are_refused() -> None:
    with pytest.raises(ValueError, match="`system` belongs to the chat turn"):
        ChatOrFunction(function="a.b", system="x")
    with pytest.raises(ValueError, match="nobody scores"):
        GrpoTrain(scenarios="x.y")


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "import os; os.environ['NOT_SET']",
        "raise SystemExit(2)",
        "def f(:",
        "import nothing_of_that_name",
        "def f(): raise ValueError('no data')",
        "def f(): return open('missing')",
        "def f(): raise SystemExit(3)",
        "def f():\n    yield from ()\n    raise KeyError('late')",
        "async def f(): return []",
        "def f(): return None",
        "def f(count): return []",
    ],
)
def test_a_source_of_tasks_that_cannot_be_used_is_named_whatever_it_does(doubler: GrpoTrain, tmp_path: Path, text: str) -> None:
    name = f"{module_of(doubler)}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(SettingError) as caught:
        check(doubler.model_copy(update={"scenarios": f"{name}.f", "num_train": None}))
    assert name in caught.value.message


@pytest.mark.parametrize("scored_by", ["rollout", "function"])
@pytest.mark.parametrize("body", ["raise ValueError('no luck')", "run.reward = 'good'", "run.metrics['x'] = 'text'"])
async def test_what_the_attempts_failed_of_is_told(model: FakeModel, doubler: GrpoTrain, tmp_path: Path, body: str, scored_by: str) -> None:
    (tmp_path / f"{module_of(doubler)}_agent.py").write_text(f"async def agent(scenario, run):\n    {body}\n")
    rollout = ChatOrFunction(function=f"{module_of(doubler)}_agent.agent")
    failing = doubler.model_copy(update={"rollout": rollout, "stop_without_spread": 1, "num_heldout": 0})
    if scored_by == "rollout":
        failing = failing.model_copy(update={"rewards": {}})
    progress = RecordingProgress()
    with pytest.raises(NothingToLearnError) as caught:
        await train(failing, progress, home=tmp_path / "home", run="one")
    with Store.open(tmp_path / "home") as store:
        (first, *_) = [store.rollouts.trajectory(row.id) for row in store.rollouts.list_of_run("one")]
    assert first.error is not None
    assert first.error.message in caught.value.message
    assert any(first.error.message in warning for warning in progress.warnings)
