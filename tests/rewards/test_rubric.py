"""Judges and functions mixed into one reward; best of N; expected scores."""

from __future__ import annotations

import math

import pytest
from tests.rewards.attempts import GOOD, attempt, scenario

from journeyman.errors import JudgeError, SettingError
from journeyman.llm import TokenChoice
from journeyman.rewards import EvidenceJudge, Rubric, best_of
from journeyman.rewards.expected_score import expected_scores
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory


def group() -> Group:
    return Group(scenario=scenario(), trajectories=(attempt("It is 15:05.", GOOD, id="right"), attempt("It is 9.", GOOD, id="wrong")))


async def is_short(_: Scenario, one: Trajectory) -> float | None:
    return 1.0 if len(one.answer or "") < 10 else 0.0


def only_right(_: Scenario, one: Trajectory) -> float | None:
    return 0.5 if one.id == "right" else None


async def test_parts_are_weighted_and_one_that_does_not_apply_leaves_its_weight_to_the_others() -> None:
    [plain] = await EvidenceJudge().score([group()])
    [mixed] = await Rubric([(EvidenceJudge(), 3), is_short, (only_right, 2)]).score([group()])
    right, wrong = plain.rewards
    assert right is not None
    assert wrong is not None
    assert mixed.rewards == pytest.approx(((3 * right + 0.0 + 2 * 0.5) / 6, (3 * wrong + 1.0) / 4))
    assert mixed.trajectories[0].verdict is not None
    assert mixed.trajectories[0].verdict.checks["only_right"] == 0.5


async def test_a_judge_that_abstains_leaves_no_reward() -> None:
    without = Group(scenario=Scenario(id="s", task="t"), trajectories=group().trajectories)
    [scored] = await Rubric([EvidenceJudge(), is_short]).score([without])
    assert scored.rewards == (None, None)
    assert scored.trajectories[0].verdict is not None
    assert "evidence abstained" in scored.trajectories[0].verdict.explanation


@pytest.mark.parametrize("value", [7.5, -1.0, math.nan])
async def test_a_function_out_of_range_is_an_error_that_names_it(value: float) -> None:
    def wild(_: Scenario, one: Trajectory) -> float:
        return value

    with pytest.raises(JudgeError, match="wild returned"):
        await Rubric([wild]).score([group()])


def test_a_rubric_without_parts_or_with_a_useless_weight_is_refused() -> None:
    with pytest.raises(SettingError):
        Rubric([])
    with pytest.raises(SettingError, match="weight"):
        Rubric([(is_short, 0.0)])


async def test_best_of_n_is_the_attempt_the_judge_likes_best() -> None:
    best = await best_of(EvidenceJudge(), group())
    assert best is not None
    assert best.id == "right"
    assert await best_of(EvidenceJudge(), Group(scenario=Scenario(id="s", task="t"), trajectories=group().trajectories)) is None


def test_an_expected_score_is_the_mean_over_what_might_have_been_written() -> None:
    text = '{"scores": [{"id": "aa", "score": 0.8}]}'
    before, after = text.split("0.8")
    tokens = (
        TokenChoice(before, ()),
        TokenChoice("0", (("0", 0.9), ("1", 0.1))),
        TokenChoice(".", ((".", 1.0),)),
        TokenChoice("8", (("8", 0.5), ("6", 0.5))),
        TokenChoice(after, ()),
    )
    assert expected_scores(text, tokens, ["aa"]) == pytest.approx({"aa": 0.1 * 1.0 + 0.9 * 0.7})
    assert expected_scores(text, (), ["aa"]) == {}
    assert expected_scores(text, tokens, ["bb"]) == {}
