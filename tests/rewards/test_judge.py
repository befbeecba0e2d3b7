"""Judges and functions mixed into one reward; best of N; expected scores."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from tests.rewards.attempts import GOOD, attempt, scenario

from journeyman.errors import REWARD_FAILED, JudgeError, SettingError
from journeyman.llm import TokenChoice
from journeyman.rewards import EvidenceJudge, Rubric, best_of
from journeyman.rewards.judge_model import expected_scores
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Verdict


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


@pytest.mark.parametrize("value", [7.5, -1.0, math.nan, math.inf, "0.5", [1.0], 10**400, {"score": 1}, np.array([0.1, 0.2]), 1j])
async def test_a_function_that_returns_no_number_from_0_to_1_is_named_and_the_attempt_alone_has_no_reward(value: Any) -> None:
    def wild(_: Scenario, one: Trajectory) -> float:
        return value if one.id == "wrong" else 0.5  # type: ignore[no-any-return]

    [scored] = await Rubric([wild]).score([group()])
    assert scored.rewards == (0.5, None)
    verdict = scored.trajectories[1].verdict
    assert verdict is not None
    assert verdict.score is None
    assert "wild" in verdict.explanation

    def always(_: Scenario, one: Trajectory) -> float:
        return value  # type: ignore[no-any-return]

    with pytest.raises(JudgeError, match="always") as caught:
        await Rubric([always]).score([group()])
    assert caught.value.reason == REWARD_FAILED


class Says:
    """A judge of the user's that gives every attempt this reward."""

    name = description = "says"

    def __init__(self, reward: Any) -> None:
        self.reward = reward

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        verdict = Verdict(judge=self.name, score=None, explanation="")
        said = {"reward": self.reward, "verdict": verdict}
        return [one.model_copy(update={"trajectories": tuple(tried.model_copy(update=said) for tried in one)}) for one in groups]


@pytest.mark.parametrize("value", [7.5, -1.0, math.nan, math.inf, -math.inf, "0.5"])
async def test_a_judge_that_gives_no_number_from_0_to_1_abstains(value: Any) -> None:
    [scored] = await Rubric([Says(value), is_short]).score([group()])
    assert scored.rewards == (None, None)
    assert [one.verdict.score for one in scored if one.verdict] == [None, None]


async def test_a_judge_that_gives_back_other_groups_is_named() -> None:
    class Loses(Says):
        async def score(self, groups: Sequence[Group]) -> list[Group]:
            return (await super().score(groups))[1:]

    with pytest.raises(JudgeError) as caught:
        await Rubric([Loses(0.5)]).score([group(), group()])
    assert caught.value.reason == REWARD_FAILED


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(2), asyncio.CancelledError(), BaseExceptionGroup("two", [SystemExit()])])
async def test_a_function_that_raises_at_one_attempt_leaves_the_others_their_rewards(error: BaseException) -> None:
    async def breaks(_: Scenario, one: Trajectory) -> float:
        if one.id == "right":
            raise error
        return 0.25

    [scored] = await asyncio.wait_for(Rubric([breaks]).score([group()]), 10)
    assert scored.rewards == (None, 0.25)


@pytest.mark.parametrize(
    "value", [True, 1, np.float32(1.0), np.int64(1), np.bool_(True), torch.tensor(1.0), torch.tensor([1]), Fraction(1), Decimal(1)]
)
async def test_whatever_is_a_number_is_taken_as_one(value: Any) -> None:
    [scored] = await Rubric([lambda _, one: value]).score([group()])
    assert scored.rewards == (1.0, 1.0)
    assert all(type(reward) is float for reward in scored.rewards)


async def test_an_async_function_is_asked_of_all_attempts_at_once_and_the_order_stays() -> None:
    asked: list[str] = []
    all_asked = asyncio.Event()

    async def waits(_: Scenario, one: Trajectory) -> float:
        asked.append(one.id)
        if len(asked) == 4:
            all_asked.set()
        await asyncio.wait_for(all_asked.wait(), 10)
        return 1.0 if one.id == "right" else 0.0

    scored = await Rubric([waits]).score([group(), group()])
    assert [one.rewards for one in scored] == [(1.0, 0.0), (1.0, 0.0)]


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
