"""Examples and pairs come from scored groups: the best attempts of each scenario; the best against the worst, never the same tokens."""

from __future__ import annotations

import math

import pytest

from journeyman.client.pairs import best_trajectories, pairs_from_groups
from journeyman.errors import SettingError
from journeyman.types.messages import Message
from journeyman.types.sampling import FinishReason, SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.training import StoredPair
from journeyman.types.trajectory import Failure, Group, Trajectory, Turn

FAILURE = Failure(type="ValueError", message="no")


def attempt(
    name: str,
    reward: float | None,
    *,
    tokens: tuple[int, ...] | None = None,
    error: Failure | None = None,
    finish_reason: FinishReason = "stop",
) -> Trajectory:
    """One turn; its tokens are its own unless given."""
    sampled = tuple(name.encode()) if tokens is None else tokens
    turn = Turn(
        index=0,
        adapter="m@0",
        messages=(Message(role="user", content="hi"),),
        reply=Message(role="assistant", content=name),
        prompt_ids=(1, 2, 3),
        sampled_ids=sampled,
        sampled_logprobs=(-1.0,) * len(sampled),
        finish_reason=finish_reason,
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
    )
    return Trajectory(id=name, scenario_id="s", model="m", turns=(turn,), reward=reward, error=error)


def group(*attempts: Trajectory) -> Group:
    return Group(scenario=Scenario(id="s", task="say"), trajectories=attempts)


def test_the_best_of_each_group_stands_against_its_worst() -> None:
    first = group(attempt("a", 0.4), attempt("b", 0.9), attempt("c", 0.1), attempt("d", 0.9))
    second = group(attempt("e", -1.0), attempt("f", -3.0))
    assert pairs_from_groups([first, second]) == [StoredPair(chosen="b", rejected="c"), StoredPair(chosen="e", rejected="f")]


def test_ties_and_groups_within_the_margin_give_no_pair() -> None:
    tie, near, far = (group(attempt("a", 0.5), attempt("b", reward)) for reward in (0.5, 0.45, 0.2))
    assert [len(pairs_from_groups([one])) for one in (tie, near, far)] == [0, 1, 1]
    assert [len(pairs_from_groups([one], margin=0.1)) for one in (tie, near, far)] == [0, 0, 1]
    assert pairs_from_groups([group(attempt("a", 0.5), attempt("b", 0.25))], margin=0.25) == []


@pytest.mark.parametrize(
    "odd",
    [
        attempt("odd", None),
        attempt("odd", math.nan),
        attempt("odd", math.inf),
        attempt("odd", 9.0, error=FAILURE),
        attempt("odd", 9.0, tokens=()),
        Trajectory(id="odd", scenario_id="s", model="m", reward=9.0),
    ],
    ids=["no reward", "nan", "inf", "error", "no tokens", "no turn"],
)
def test_attempts_that_were_not_scored_or_failed_do_not_count(odd: Trajectory) -> None:
    assert pairs_from_groups([group(odd, attempt("a", 1.0), attempt("b", 0.0))]) == [StoredPair(chosen="a", rejected="b")]
    assert pairs_from_groups([group(odd, attempt("a", 1.0)), group(odd), group()]) == []


def test_the_same_tokens_with_other_rewards_give_no_pair() -> None:
    assert pairs_from_groups([group(attempt("a", 1.0, tokens=(5, 6)), attempt("b", 0.0, tokens=(5, 6)))]) == []


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_no_distance_is_refused(margin: float) -> None:
    with pytest.raises(SettingError, match="margin"):
        pairs_from_groups([], margin=margin)


def attempts_at(scenario: str, *attempts: Trajectory) -> Group:
    return Group(scenario=Scenario(id=scenario, task="say"), trajectories=attempts)


def best(*groups: Group, min_reward: float = 0.5, at_most: int = 1) -> list[str]:
    return [one.trajectory_id for one in best_trajectories(groups, min_reward=min_reward, at_most=at_most)]


def test_the_best_attempt_of_each_scenario_is_taken_if_it_is_good_enough() -> None:
    first = attempts_at("s1", attempt("a", 0.6), attempt("b", 0.9), attempt("c", 0.9))
    second, third = attempts_at("s2", attempt("d", 0.4)), attempts_at("s3", attempt("e", 0.5))
    assert best(first, second, third) == ["b", "e"]
    assert best(first, second, third, at_most=2) == ["b", "c", "e"]
    assert best(first, second, third, min_reward=-1.0) == ["b", "d", "e"]


def test_groups_of_one_scenario_are_taken_together() -> None:
    assert best(attempts_at("s1", attempt("a", 0.6)), attempts_at("s1", attempt("b", 0.7))) == ["b"]


def test_attempts_that_failed_or_have_no_reward_are_never_imitated() -> None:
    odd = [attempt("a", None), attempt("b", math.nan), attempt("c", 1.0, error=FAILURE), attempt("d", 1.0, tokens=())]
    assert best(attempts_at("s1", *odd, attempt("e", 0.5))) == ["e"]


def test_attempts_that_were_cut_off_are_never_imitated() -> None:
    assert best(attempts_at("s1", attempt("a", 1.0, finish_reason="length"), attempt("b", 0.6))) == ["b"]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="min_reward is nan"):
        best(min_reward=math.nan)
    with pytest.raises(SettingError, match="at_most is 0"):
        best(at_most=0)
