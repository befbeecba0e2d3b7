"""Held-out evaluation with real rollouts on scripted models over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.evaluation.conftest import NUMBERS, double_and_say, scenarios
from tests.llm_server import Answer, serve

from journeyman.client.models import Model
from journeyman.client.rollout import Rollout
from journeyman.errors import ContextLengthError, JudgeError, McpError, SettingError, WaitTimeoutError
from journeyman.evaluation import Evaluation, Report, evaluate, pick_examples
from journeyman.evaluation.report import finding_lines, headline, variant_rows
from journeyman.evaluation.statistics import proportion_interval
from journeyman.evaluation.transcripts import read_transcript, transcript_text
from journeyman.recipes.report import evaluation_numbers
from journeyman.rewards import EvidenceJudge, reward_metrics
from journeyman.rewards.judge import Judge
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Verdict


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


class ScoresEverything:
    """A user's judge that gives every attempt a verdict, also one whose server died; the answer is right where the model's was."""

    name = "own"
    description = "never abstains"

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        return [group.model_copy(update={"trajectories": tuple(self._scored(one) for one in group)}) for group in groups]

    def _scored(self, attempt: Trajectory) -> Trajectory:
        score = float(attempt.answer is not None and "7" not in attempt.answer)
        verdict = Verdict(judge=self.name, score=score, is_success=score == 1.0, checks={"right": score})
        return attempt.model_copy(update={"verdict": verdict, "reward": score})


@pytest.mark.parametrize("failure", NOT_THE_MODELS_DOING[:3], ids=lambda error: type(error).__name__)
async def test_a_verdict_on_an_attempt_that_was_lost_counts_nowhere(variants: dict[str, Model], failure: Exception) -> None:
    result = await attempts_of(ScoresEverything(), s0=failure, s3=failure, s4=failure)({"trained": variants["trained"]})
    one = result.summary.variant("trained")
    assert (one.success, one.score) == (proportion_interval(2, 3), proportion_interval(2, 3))
    assert (one.num_missing, one.checks) == (3, {"right": pytest.approx(2 / 3)})


async def test_undecidable_answers_are_counted_and_not_guessed_from_a_share(variants: dict[str, Model]) -> None:
    def unsure(request: dict[str, Any]) -> Answer:
        value = int(request["messages"][-1]["content"].split()[-1].rstrip("?"))
        return Answer(f"Maybe {2 * value}." if value == 11 else f"It is {2 * value}.")

    dead = {f"s{number}": NOT_THE_MODELS_DOING[0] for number in (2, 3, 4)}
    with serve(unsure) as server:
        found = await attempts_of(**dead)({"trained": Model("trained", server.base_url, "key")})
    one = found.summary.variants[0]
    assert (one.num_undecidable, one.num_missing, one.success) == (1, 3, proportion_interval(2, 3))
    assert any("1 of 6 answers" in line for line in finding_lines(found.summary))


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
