"""Held-out evaluation with real rollouts on scripted models over HTTP, and the report made of it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.llm_server import Answer, serve

from journeyman.client.models import Model
from journeyman.client.rollout import Rollout
from journeyman.errors import ContextLengthError, JudgeError, McpError, SettingError, StoreError, WaitTimeoutError
from journeyman.evaluation import Evaluation, JudgeCost, PhaseCost, Report, evaluate, pick_examples, read_report, show_report, write_report
from journeyman.evaluation.chart import chart_lines
from journeyman.evaluation.report import REWARD, Point, duration_text, finding_lines, headline, series, variant_rows
from journeyman.evaluation.statistics import proportion_interval
from journeyman.evaluation.transcripts import read_transcript, transcript_text
from journeyman.recipes.run_report import evaluation_numbers
from journeyman.rewards import EvidenceJudge, reward_metrics
from journeyman.rewards.judge import Judge
from journeyman.types.runs import StepMetrics
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness, WitnessCall
from journeyman.types.trajectory import Group, ToolEvent, Verdict

NUMBERS = range(6)


def scenarios() -> list[Scenario]:
    return [
        Scenario(
            id=f"s{number}",
            task=f"What is twice {number + 10}?",
            split="heldout",
            witness=Witness(
                calls=(WitnessCall(tool="double", arguments={"value": number + 10}, result=str(2 * (number + 10))),),
                answers=(ExpectedAnswer(value=2 * (number + 10)),),
            ),
        )
        for number in NUMBERS
    ]


async def double_and_say(scenario: Scenario, run: Rollout) -> None:
    """An agent: calls the tool for the value in the task, then lets the model answer."""
    value = int(scenario.task.split()[-1].rstrip("?"))
    run.record_tool(
        ToolEvent(
            turn=0,
            call_id="c",
            name="double",
            arguments={"value": value},
            is_known=True,
            is_valid=True,
            is_error=False,
            result=str(2 * value),
        )
    )
    await run.openai().chat.completions.create(model=run.model, messages=[{"role": "user", "content": scenario.task}])


def answering(knows: set[int]) -> Any:
    """A model that doubles right for the scenarios whose number it knows."""

    def script(request: dict[str, Any]) -> Answer:
        value = int(request["messages"][-1]["content"].split()[-1].rstrip("?"))
        return Answer(f"It is {2 * value}." if value - 10 in knows else "It is 7.")

    return script


@pytest.fixture
async def variants() -> AsyncIterator[dict[str, Model]]:
    knowledge = {"base": set(), "warm": {0, 1}, "trained": {1, 2, 3, 4}}
    with ExitStack() as stack:
        models = {name: Model(name, stack.enter_context(serve(answering(knows))).base_url, "key") for name, knows in knowledge.items()}
        yield models
        for model in models.values():
            await model.close()


@pytest.fixture
async def evaluation(variants: dict[str, Model]) -> Evaluation:
    return await evaluate(double_and_say, scenarios(), variants, EvidenceJudge(), group_size=2)


async def test_every_variant_is_measured_with_its_own_attempts(evaluation: Evaluation) -> None:
    # The regression: comparison code whose closures all see the last variant.
    rates = {one.name: one.success.mean for one in evaluation.summary.variants}
    assert rates == {"base": 0.0, "warm": pytest.approx(2 / 6), "trained": pytest.approx(4 / 6)}
    for name, groups in evaluation.groups.items():
        assert {one.model for group in groups for one in group} == {name}
        assert [group.scenario.id for group in groups] == [f"s{number}" for number in NUMBERS]


async def test_variants_are_compared_pair_by_pair_with_every_later_one(evaluation: Evaluation) -> None:
    summary = evaluation.summary
    assert [(one.before, one.after) for one in summary.comparisons] == [("base", "warm"), ("base", "trained"), ("warm", "trained")]
    gained = summary.comparison("warm", "trained").success
    assert (gained.won, gained.lost, gained.both, gained.neither) == (3, 1, 1, 1)
    assert summary.comparison("base", "trained").score is not None
    assert summary.variant("trained").pass_at == {1: pytest.approx(4 / 6), 2: pytest.approx(4 / 6)}
    assert summary.variant("base").noise is not None
    with pytest.raises(SettingError, match="no variant 'x'"):
        summary.variant("x")


NOT_THE_MODELS_DOING = [
    McpError("died", "the server exited"),
    McpError("died", "the server exited; its log ends: Error: max_turns reached, maximum context"),
    WaitTimeoutError("no result within 30 s"),
    TimeoutError("the attempt took too long"),
    ConnectionError("reset by peer"),
    RuntimeError("a bug in the agent"),
]


def attempts_of(judge: Judge | None = None, **failures: Exception) -> Any:
    """Evaluate an agent whose attempts at these scenarios raise."""

    async def breaks(scenario: Scenario, run: Rollout) -> None:
        if scenario.id in failures:
            raise failures[scenario.id]
        await double_and_say(scenario, run)

    async def run(variants: dict[str, Model]) -> Evaluation:
        return await evaluate({"warm": double_and_say, "trained": breaks}, scenarios(), variants, judge or EvidenceJudge())

    return run


class AbstainsOn:
    """The evidence judge, but without a word on some scenarios."""

    name = "partial"
    description = "abstains"

    def __init__(self, *ids: str) -> None:
        self._ids = ids

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        judged = await EvidenceJudge().score(groups)
        return [self._silenced(group) if group.scenario.id in self._ids else group for group in judged]

    def _silenced(self, group: Group) -> Group:
        verdict = Verdict(judge=self.name, score=None, explanation="cannot tell")
        return group.model_copy(
            update={"trajectories": tuple(one.model_copy(update={"verdict": verdict, "reward": None}) for one in group)}
        )


@pytest.mark.parametrize("failure", NOT_THE_MODELS_DOING, ids=lambda error: type(error).__name__)
async def test_an_attempt_that_failed_through_no_fault_of_the_models_is_missing_and_not_a_failure(
    variants: dict[str, Model], failure: Exception
) -> None:
    # The trained model knows s1 to s4: s3 was to succeed, s0 to fail.
    result = await attempts_of(s3=failure, s0=failure)({name: variants[name] for name in ("warm", "trained")})
    one = result.summary.variant("trained")
    assert (one.num_failed, one.missing) == (2, {type(failure).__name__: 2})
    assert one.success == proportion_interval(3, 4)
    assert one.bounds == (pytest.approx(3 / 6), pytest.approx(5 / 6))
    assert [one.items[place].success for place in (0, 3)] == [None, None]
    gain = result.summary.comparison("warm", "trained").success
    assert (gain.num_items, gain.num_missing) == (4, 2)
    assert (gain.before, gain.after) == (proportion_interval(1, 4), proportion_interval(3, 4))


async def test_an_abstention_of_the_judge_is_missing(variants: dict[str, Model]) -> None:
    result = await attempts_of(AbstainsOn("s1", "s5"))({name: variants[name] for name in ("warm", "trained")})
    assert result.summary.variant("trained").success == proportion_interval(3, 4)
    assert result.summary.variant("trained").num_missing == result.summary.comparison("warm", "trained").success.num_missing == 2
    assert result.summary.variant("trained").num_failed == 0


@pytest.mark.parametrize("failure", [ContextLengthError("2,100 tokens do not fit into 2,048"), RuntimeError("max_turns reached")])
async def test_an_attempt_that_the_model_itself_spoiled_is_a_failure(variants: dict[str, Model], failure: Exception) -> None:
    result = await attempts_of(s3=failure)({"trained": variants["trained"]})
    assert result.summary.variant("trained").success == proportion_interval(3, 6)
    assert result.summary.variant("trained").num_missing == 0


async def test_what_is_missing_is_shown_with_its_reasons(variants: dict[str, Model]) -> None:
    result = await attempts_of(AbstainsOn("s5"), s3=NOT_THE_MODELS_DOING[0])({"trained": variants["trained"]})
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0, evaluations=(result.summary,))
    header, row = variant_rows(result.summary)
    assert row[header.index("missing")] == "2"
    shown = " ".join(finding_lines(result.summary))
    assert all(text in shown for text in ("2 of 6", "McpError", "abstained", "50.0 %", "83.3 %"))
    assert "2 attempts missing" in headline(report)
    assert evaluation_numbers(report)["heldout/trained/missing"] == 2.0


async def test_the_table_has_no_column_for_what_is_missing_where_nothing_is(evaluation: Evaluation) -> None:
    assert "missing" not in variant_rows(evaluation.summary)[0]


async def test_a_variant_of_which_nothing_is_known_has_no_success_at_all(variants: dict[str, Model]) -> None:
    dead = {f"s{number}": NOT_THE_MODELS_DOING[0] for number in NUMBERS}
    with pytest.raises(JudgeError) as caught:
        await attempts_of(**dead)({"trained": variants["trained"]})
    assert caught.value.reason == "nothing_measured"
    assert "6 x McpError" in str(caught.value)


async def test_variants_that_share_no_measured_scenario_are_not_compared(variants: dict[str, Model]) -> None:
    async def breaks_first(scenario: Scenario, run: Rollout) -> None:
        if scenario.id < "s3":
            raise NOT_THE_MODELS_DOING[0]
        await double_and_say(scenario, run)

    async def breaks_last(scenario: Scenario, run: Rollout) -> None:
        if scenario.id >= "s3":
            raise NOT_THE_MODELS_DOING[0]
        await double_and_say(scenario, run)

    agents = {"warm": breaks_first, "trained": breaks_last}
    result = await evaluate(agents, scenarios(), {name: variants[name] for name in agents}, EvidenceJudge())
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0, evaluations=(result.summary,))
    assert result.summary.comparisons == ()
    assert "heldout/gain" not in evaluation_numbers(report)
    assert "66.7 %" in headline(report)
    assert pick_examples(result.groups["warm"], result.groups["trained"]) == ()


async def test_nothing_to_evaluate_is_refused(variants: dict[str, Model]) -> None:
    with pytest.raises(SettingError, match="0 scenarios, 3 variants"):
        await evaluate(double_and_say, [], variants, EvidenceJudge())


def test_step_metrics_have_an_interval_over_groups_and_count_what_was_left_out(evaluation: Evaluation) -> None:
    metrics = reward_metrics(evaluation.groups["trained"])
    assert metrics["reward/low"] < metrics["reward/mean"] < metrics["reward/high"] <= 1.0
    assert metrics["reward/success"] == pytest.approx(4 / 6)
    assert metrics["reward/num_excluded"] == 0
    assert metrics["reward/check/calls_right"] == 1.0
    assert reward_metrics([]) == {"reward/num_excluded": 0.0, "reward/num_groups": 0.0}


def test_a_transcript_tells_what_happened(evaluation: Evaluation) -> None:
    group = evaluation.groups["trained"][1]
    text = transcript_text(read_transcript(group.scenario, group.trajectories[0]))
    assert "task    What is twice 11?" in text
    assert "says    It is 22." in text
    assert "success, score 1.00" in text


def test_examples_show_a_loss_and_a_failure_too(evaluation: Evaluation) -> None:
    examples = pick_examples(evaluation.groups["warm"], evaluation.groups["trained"], 4)
    assert [one.outcome for one in examples] == ["gained", "gained", "lost", "neither"]


def make_report(evaluation: Evaluation) -> Report:
    steps = tuple(
        StepMetrics(
            run="r1",
            phase="train",
            step=step,
            time=float(step),
            metrics={
                "reward/mean": 0.3 + 0.05 * step,
                "reward/low": 0.2 + 0.05 * step,
                "reward/high": 0.4 + 0.05 * step,
                "reward/success": 0.08 * step,
                "reward/success_low": max(0.0, 0.08 * step - 0.1),
                "reward/success_high": 0.08 * step + 0.1,
            },
        )
        for step in range(1, 12)
    )
    return Report(
        run="r1",
        title="doubler",
        base="tiny",
        target="python -m doubler <x>",
        judge="evidence: what happened",
        created_at=1_700_000_000.0,
        settings={"steps": 11},
        machine={"cores": "2"},
        evaluations=(evaluation.summary, evaluation.summary.model_copy(update={"sampling": "sampled"})),
        steps=steps,
        phases=(PhaseCost(name="warm start", seconds=65, trained_tokens=1200), PhaseCost(name="train", seconds=3700, sampled_tokens=52000)),
        judge_cost=JudgeCost(judge="ruler:m", calls=9, prompt_tokens=12345, completion_tokens=678),
        examples=pick_examples(evaluation.groups["base"], evaluation.groups["trained"], 3),
        adapter="/home/r1/adapters/m@11",
        serve_command="journeyman serve --run r1",
        curl="curl http://127.0.0.1:8100/v1/models",
        notes=("only 6 scenarios <b>",),
    )


def test_a_written_report_reads_back_and_its_page_stands_alone(evaluation: Evaluation, tmp_path: Path) -> None:
    report = make_report(evaluation)
    page = write_report(report, tmp_path / "report")
    assert read_report(tmp_path / "report") == report
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "http" not in html.replace("http://127.0.0.1:8100", "")
    assert "<script" not in html
    assert "only 6 scenarios &lt;b&gt;" in html
    text = (tmp_path / "report" / "report.md").read_text()
    assert "base → trained: +66.7 points [" in text
    assert "journeyman serve --run r1\ncurl" in text
    for shown in (html, text):
        assert "judge ruler:m: 9 calls, 12,345 prompt and 678 completion tokens, its price is not set" in shown
    for name in ("steps.png", "heldout.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_without_anything_measured_can_be_written(tmp_path: Path) -> None:
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0)
    write_report(report, tmp_path)
    assert "no held-out evaluation" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "steps.png").exists()
    show_report(report, Console(file=io.StringIO()))


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    report = Report(run="r", title="t", base="b", target="x", judge="j", created_at=0.0)
    with pytest.raises(StoreError, match="cannot be written into"):
        write_report(report, tmp_path / "file" / "report")
    with pytest.raises(StoreError, match="no readable report"):
        read_report(tmp_path / "nothing")


def test_the_terminal_shows_result_curve_examples_cost_and_commands_unbroken(evaluation: Evaluation) -> None:
    report = make_report(evaluation).model_copy(update={"serve_command": "journeyman serve --run r1 " + "x" * 200})
    out = io.StringIO()
    show_report(report, Console(file=out, width=100, color_system=None))
    text = out.getvalue()
    counts = "3 won, 1 lost, 1 both, 1 neither"
    for part in ("held-out success of trained: 66.7 %", counts, "step 1 to 11", "1 h 02 min", "gained", "12,345 prompt"):
        assert part in " ".join(text.split())
    assert report.serve_command in text


def test_the_headline_gives_interval_count_and_paired_gain(evaluation: Evaluation) -> None:
    text = headline(make_report(evaluation))
    assert "66.7 % [" in text
    assert "6 scenarios" in text
    assert "paired gain +66.7 points [" in text


def test_a_series_is_in_order_and_a_step_reported_twice_counts_once() -> None:
    steps = [
        StepMetrics(run="r", phase="train", step=step, time=0.0, metrics={"reward/mean": value})
        for step, value in ((2, 0.2), (1, 0.1), (2, 0.3))
    ]
    other = StepMetrics(run="r", phase="warmup", step=9, time=0.0, metrics={"reward/mean": 1.0})
    assert series([*steps, other], REWARD) == [Point(step=1, value=0.1), Point(step=2, value=0.3)]


def test_a_long_series_is_drawn_within_the_width() -> None:
    lines = chart_lines([Point(step=step, value=step / 500) for step in range(501)], width=40, height=4)
    assert max(map(len, lines)) <= 46
    assert "step 0 to 500" in lines[-1]
    assert chart_lines([]) == []


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4.2 s"), (42, "42 s"), (425, "7 min 05 s"), (3725, "1 h 02 min")])
def test_durations_have_their_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


async def test_answers_that_can_be_read_in_two_ways_count_as_failures_and_are_told() -> None:
    def unsure(request: dict[str, Any]) -> Answer:
        value = int(request["messages"][-1]["content"].split()[-1].rstrip("?"))
        return Answer(f"Maybe {2 * value}." if value < 12 else f"It is {2 * value}.")

    with serve(unsure) as server:
        found = await evaluate(double_and_say, scenarios(), {"only": Model("only", server.base_url, "key")}, EvidenceJudge())
    assert found.summary.variants[0].success.mean == pytest.approx(4 / 6)
    assert any("2 of 6 answers" in line for line in finding_lines(found.summary))
