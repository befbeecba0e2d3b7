"""The MCP recipe from scenarios to report, on a real server process and with a fake model."""

from __future__ import annotations

import asyncio
import json
import shlex
import zlib
from pathlib import Path

import pytest
from tests.llm_server import Answer, serve
from tests.reasons import has_reason
from tests.recipes.backend import FakeModel, Talent, always, never
from tests.recipes.conftest import RecordingProgress
from tests.rewards.test_ruler import judge_by

from journeyman.client.gather import iterate
from journeyman.config import program
from journeyman.errors import NotFoundError, NothingToLearnError, TrainingError
from journeyman.evaluation import read_report
from journeyman.mcp.target import McpTarget
from journeyman.observe.progress import SilentProgress
from journeyman.recipes.mcp import evaluate, slug, step_settings, train
from journeyman.recipes.run import run_id_of
from journeyman.recipes.settings import McpTrain
from journeyman.rewards import JudgeBudgetError, RulerOptions
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.store import Store
from journeyman.types.runs import RunInfo, StepMetrics
from journeyman.types.settings import Grpo


def steps_of(home: Path, run: str, phase: str | None = "train") -> tuple[StepMetrics, ...]:
    with Store.open(home) as store:
        return store.runs.steps(run, phase)


def only_run(home: Path) -> RunInfo:
    with Store.open(home) as store:
        (info,) = store.runs.list()
        return info


class TestReport:
    async def test_a_run_ends_with_the_paired_counts_what_it_cost_and_how_to_serve_it(
        self, model: FakeModel, settings: McpTrain, tmp_path: Path
    ) -> None:
        progress = RecordingProgress()
        report = await train(settings, progress, home=tmp_path)
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]
        (evaluation,) = report.evaluations
        assert [variant.name for variant in evaluation.variants] == ["base", "trained"]
        success = evaluation.comparison("base", "trained").success
        assert (success.num_items, success.won, success.lost, success.both, success.neither) == (4, 4, 0, 0, 0)
        assert success.difference.mean == 1.0
        assert 0.0 < success.difference.low < success.difference.high <= 1.0
        costs = {phase.name: phase for phase in report.phases}
        assert costs["attempts, 2 steps"].sampled_tokens > 0
        assert costs["updates, 2 steps"].trained_tokens > 0
        drawn_in = {"warm start, probes", "evaluate, greedy", "attempts, 2 steps"}
        assert {name for name, phase in costs.items() if phase.sampled_tokens} == drawn_in
        assert report.judge_cost is None
        assert report.adapter == str(tmp_path / "runs" / report.run / "adapters" / "number-py@2")
        assert shlex.split(report.serve_command or "") == [*shlex.split(program()), "serve", "--run", report.run, "--home", str(tmp_path)]
        words = shlex.split(report.curl or "")
        body = json.loads(words[-1])
        assert words[2] == "http://127.0.0.1:8100/v1/chat/completions"
        assert (body["model"], body["tools"][0]["function"]["name"]) == ("number-py", "double")
        assert only_run(tmp_path).state == "done"
        assert {path.name for path in (tmp_path / "runs" / report.run / "report").iterdir()} >= {"report.html", "report.json", "report.md"}
        assert any(note.startswith("judge evidence: ") for note in progress.notes)
        (header,) = [note for note in progress.notes if note.startswith("not the defaults: ")]
        assert "steps = 2" in header
        assert "rollouts.groups_per_step = 2" in header
        assert "seed" not in header
        assert progress.steps == [1, 2]

    async def test_the_warm_start_ends_when_groups_have_spread_and_is_a_variant_of_its_own(
        self, model: FakeModel, settings: McpTrain, tmp_path: Path
    ) -> None:
        model.is_right = lambda task, number: model.trainers[-1].step > 1 and number % 2 == 1
        warm = settings.warm_start.model_copy(update={"max_updates": 30, "updates_per_probe": 2, "min_executed": 0.4})
        report = await train(settings.model_copy(update={"warm_start": warm}), SilentProgress(), home=tmp_path)
        assert [(step.phase, step.step) for step in report.steps] == [
            ("eval", 0), ("warmup", 1), ("eval", 1), ("warmup", 2), ("eval", 2), ("train", 3), ("train", 4)
        ]  # fmt: skip
        assert [one.model for one in report.evaluations[0].variants] == ["base", "number-py@2", "number-py@4"]
        assert [one.name for one in report.evaluations[0].variants] == ["base", "warm", "trained"]
        assert len(model.trainers[-1].seen[0][0]) == 2 * warm.sft.batch_size
        (drills,) = [phase for phase in report.phases if phase.name == "drills, 2 steps"]
        assert drills.trained_tokens == sum(one.num_sampled for seen in model.trainers[-1].seen[:2] for one in seen[0])

    async def test_a_run_is_evaluated_again_greedy_and_sampled(self, model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
        run = (await train(settings, SilentProgress(), home=tmp_path)).run
        folder, progress = tmp_path / "runs" / run, RecordingProgress()
        kept = {path: path.read_bytes() for path in [*(folder / "report").iterdir(), folder / "costs.json"]}
        report = await evaluate(run, home=tmp_path, progress=progress, attempts=2, limit=3)
        shown = [(one.sampling, one.group_size, one.num_scenarios, len(one.variants)) for one in report.evaluations]
        assert shown == [("greedy", 1, 3, 2), ("sampled", 2, 3, 2)]
        assert len(model.trainers) == 1
        assert [phase.name for phase in report.phases] == ["start", "evaluate, greedy", "evaluate, sampled"]
        (again,) = (folder / "evaluations").iterdir()
        assert read_report(again) == report
        assert f"report: {again / 'report.html'}" in progress.notes
        await evaluate(run, home=tmp_path, progress=SilentProgress(), attempts=1, limit=1)
        assert len(list((folder / "evaluations").iterdir())) == 2
        assert {path: path.read_bytes() for path in kept} == kept
        with Store.open(tmp_path) as store:
            store.runs.create("empty", kind="mcp", base=settings.base, settings=settings.model_dump(mode="json"))
        with pytest.raises(NotFoundError, check=has_reason("not_trained")):
            await evaluate("empty", home=tmp_path, progress=SilentProgress())


class TestLearning:
    @pytest.mark.parametrize(
        ("talent", "share", "hint"), [(never, "0% of attempts", "more drills"), (always, "100% of attempts", "solves these tasks already")]
    )
    async def test_steps_without_any_spread_stop_the_run_and_say_why(
        self, model: FakeModel, settings: McpTrain, tmp_path: Path, talent: Talent, share: str, hint: str
    ) -> None:
        model.is_right = talent
        with pytest.raises(NothingToLearnError) as caught:
            await train(settings.model_copy(update={"steps": 9, "stop_without_spread": 2}), SilentProgress(), home=tmp_path)
        assert caught.value.reason == "no_spread"
        assert share in caught.value.message
        assert hint in (caught.value.hint or "")
        info = only_run(tmp_path)
        assert (info.state, info.error) == ("failed", caught.value.message)
        assert len(steps_of(tmp_path, info.id)) == 2

    async def test_groups_without_spread_are_refilled_from_the_next_scenarios(
        self, model: FakeModel, settings: McpTrain, tmp_path: Path
    ) -> None:
        refilled = settings.model_copy(update={"rollouts": settings.rollouts.model_copy(update={"max_refills": 1})})
        run = (await train(refilled.model_copy(update={"steps": 0}), SilentProgress(), home=tmp_path)).run
        made = ScenarioSet.load(tmp_path / "runs" / run / "scenarios").train
        order = [batch[0].task for batch in iterate(made, groups_per_step=1, seed=settings.seed)]
        model.is_right = lambda task, number: task not in order[:2] and number % 2 == 1
        await train(refilled, SilentProgress(), home=tmp_path, resume=run)
        first, second = steps_of(tmp_path, run)
        assert (first.metrics["train/num_groups"], first.metrics["train/num_groups_without_spread"]) == (4.0, 2.0)
        assert (second.metrics["train/num_groups"], second.metrics["train/num_groups_without_spread"]) == (2.0, 0.0)
        assert model.tasks()["number-py@1"] == set(order[4:6])


class TestResume:
    async def test_a_run_stopped_inside_a_step_goes_on_as_if_it_had_not_been(
        self, model: FakeModel, settings: McpTrain, tmp_path: Path
    ) -> None:
        four = settings.model_copy(update={"steps": 4})
        whole = await train(four, SilentProgress(), home=tmp_path / "whole")
        attempted = model.tasks()

        model.stop_at = 2
        model.forget()
        task = asyncio.create_task(train(four, SilentProgress(), home=tmp_path / "halves"))
        loop = asyncio.get_running_loop()
        model.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        info = only_run(tmp_path / "halves")
        assert (info.state, info.step) == ("stopped", 2)
        assert [row.step for row in steps_of(tmp_path / "halves", info.id)] == [1, 2]

        model.stop_at = None
        report = await train(four, SilentProgress(), home=tmp_path / "halves", resume=info.id)
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2, 3, 4]
        assert only_run(tmp_path / "halves").state == "done"
        trained = [f"number-py@{step}" for step in range(1, 4)]
        assert [model.tasks()[name] for name in trained] == [attempted[name] for name in trained]
        assert report.evaluations[0].scenarios_hash == whole.evaluations[0].scenarios_hash

    async def test_attempts_whose_update_failed_are_not_taken_again(self, model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
        def fail() -> None:
            raise TrainingError("the log-probabilities differ too much")

        model.stop_at, model.stop = 1, fail
        with pytest.raises(TrainingError, match="differ too much"):
            await train(settings, SilentProgress(), home=tmp_path)
        run = only_run(tmp_path).id
        with Store.open(tmp_path) as store:
            assert store.rollouts.list_keyed(run, "number-py@1", "train-1") == ()
            assert len(store.rollouts.list_keyed(run, "number-py@0", "train-0")) == 4

    async def test_a_finished_run_can_be_given_more_steps(self, model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
        settings = settings.model_copy(update={"grpo": Grpo(learning_rate=1e-3)})
        first = await train(settings, SilentProgress(), home=tmp_path)
        progress = RecordingProgress()
        more = await train(settings.model_copy(update={"steps": 4}), progress, home=tmp_path, resume=first.run)
        assert [step.step for step in more.steps if step.phase == "train"] == [1, 2, 3, 4]
        assert more.adapter == f"{str(first.adapter).removesuffix('@2')}@4"
        assert "goes on with steps: 2 -> 4" in progress.notes
        assert any("the learning rate was 5.00e-04 in step 2 and will be 6.67e-04 in step 3" in note for note in progress.notes)
        before, after = ({phase.name: phase for phase in one.phases} for one in (first, more))
        # The second session makes no scenarios: what they cost comes from the first. What both did adds up.
        assert after["scenarios"] == before["scenarios"]
        evaluated = [costs["evaluate, greedy"].sampled_tokens for costs in (before, after)]
        assert evaluated[1] > evaluated[0] > 0


def test_the_learning_rate_falls_over_the_steps_and_with_fewer_groups_that_have_spread() -> None:
    settings = McpTrain(target=McpTarget.parse("python -m x"), steps=5, decay_to=0.2, grpo=Grpo(learning_rate=1e-3))
    size = settings.rollouts.groups_per_step
    whole = [step_settings(settings, number, size).learning_rate for number in range(5)]
    assert whole == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
    assert step_settings(settings, 0, size + 3).learning_rate == pytest.approx(1e-3)
    assert step_settings(settings, 0, size / 2).learning_rate == pytest.approx(1e-3)
    assert step_settings(settings, 0, size / 4).learning_rate == pytest.approx(5e-4)
    assert step_settings(settings, 0, 0).learning_rate > 0


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("python -m mcp_server_time", "time"),
        ("uvx mcp-server-sqlite --db-path /tmp/My.db", "sqlite-db-path-my-db"),
        ("http://localhost:8000/mcp", "8000"),
        ("/usr/bin/python3 -m mcp", "agent"),
    ],
)
def test_a_model_is_named_after_its_server(target: str, name: str) -> None:
    settings = McpTrain(target=McpTarget.parse(target))
    assert slug(settings) == name
    assert run_id_of(slug(settings)).startswith(f"{name}-2")


async def test_a_run_whose_judge_has_spent_its_budget_is_stopped_and_goes_on_with_a_larger_one(
    model: FakeModel, settings: McpTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    model.is_right = lambda task, number: number % 2 == 1
    judge = judge_by(lambda text: zlib.crc32(text.encode()) % 100 / 100)
    # The first request only asks whether anybody is there.
    with serve(lambda request: judge(request) if len(request["messages"]) > 1 else Answer("ready")) as server:

        def judged(budget: str) -> McpTrain:
            options = RulerOptions(base_url=server.base_url, budget=budget)
            return settings.model_copy(update={"judge": "openai/big-model", "judge_options": options, "steps": 1})

        with pytest.raises(JudgeBudgetError, match="budget is spent"):
            await train(judged("100"), SilentProgress(), home=tmp_path)
        run = only_run(tmp_path)
        assert (run.state, run.step) == ("stopped", 0)
        assert "budget is spent" in (run.error or "")
        report = await train(judged("900k"), SilentProgress(), home=tmp_path, resume=run.id)
    assert [step.step for step in steps_of(tmp_path, run.id)] == [1]
    judged_by = report.judge_cost
    assert judged_by is not None
    assert (judged_by.judge, judged_by.cost_usd) == ("ruler:openai/big-model", None)
    # The request that asks whether anybody is there is not counted.
    assert judged_by.calls == len([one for one in server.requests if len(one["messages"]) > 1])
    assert min(judged_by.prompt_tokens, judged_by.completion_tokens) > 0
    assert only_run(tmp_path).state == "done"


async def test_a_model_compares_what_base_and_trained_did_on_held_out_tasks(
    model: FakeModel, settings: McpTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    model.is_right = lambda task, number: number % 2 == 1
    await train(settings, SilentProgress(), home=tmp_path)
    judge = judge_by(lambda text: zlib.crc32(text.encode()) % 100 / 100)
    with serve(lambda request: judge(request) if len(request["messages"]) > 1 else Answer("ready")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        report = await evaluate(only_run(tmp_path).id, home=tmp_path, progress=SilentProgress(), attempts=1, judge="big-model")
        assert server.requests
    (line,) = [note for note in report.notes if "prefers trained to base" in note]
    assert "of 4 scenarios" in line
    assert report.judge_cost is not None
    assert report.judge_cost.calls == sum(len(one["messages"]) > 1 for one in server.requests)
    assert "both orders agree" in line


def test_a_run_whose_output_nobody_reads_any_more_is_stopped_not_failed(model: FakeModel, settings: McpTrain, tmp_path: Path) -> None:
    class Unread(SilentProgress):
        def step(self, step: int, metrics: dict[str, float]) -> None:
            raise SystemExit(141)

    with pytest.raises(SystemExit):
        asyncio.run(train(settings, Unread(), home=tmp_path))
    assert (only_run(tmp_path).state, only_run(tmp_path).step) == ("stopped", 1)
