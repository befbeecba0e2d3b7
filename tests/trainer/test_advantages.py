"""Advantages keep what the estimator promises to keep, and a group that teaches nothing is no group of zeros."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.shaping import overlong_penalty
from journeyman.trainer.advantages import batch_advantages
from journeyman.types.losses import OverlongPenalty
from journeyman.types.settings import Advantage

KINDS: tuple[Advantage, ...] = ("zscore", "mean", "rank", "rloo", "batch_std")
# Rewards on a grid: equal or clearly apart, so that a property does not fail on rounding.
rewards_lists = st.lists(st.integers(-50, 50).map(lambda value: value / 10), min_size=2, max_size=12).filter(lambda r: max(r) > min(r))


def computed(rewards: list[float | None] | list[float], kind: Advantage) -> list[float]:
    (advantages,) = batch_advantages([rewards], kind).groups
    assert advantages is not None
    return advantages


@pytest.mark.parametrize(
    ("rewards", "zscore", "rank"),
    [
        ([0.9, 0.7, 0.3, 0.1], [1.265, 0.632, -0.632, -1.265], [1, 0.333, -0.333, -1]),
        ([0.729, 0.343, 0.027, 0.001], [1.541, 0.231, -0.842, -0.930], [1, 0.333, -0.333, -1]),
        ([0.90, 0.90, 0.90, 0.91], [-0.577, -0.577, -0.577, 1.732], [-0.333, -0.333, -0.333, 1]),
        ([0.1, 0.1, 0.1, 0.9], [-0.577, -0.577, -0.577, 1.732], [-0.333, -0.333, -0.333, 1]),
        ([0.2, 0.6, 0.6, 0.9], [-1.508, 0.101, 0.101, 1.307], [-1, 0, 0, 1]),
    ],
)
def test_known_groups_get_their_known_advantages(rewards: list[float], zscore: list[float], rank: list[float]) -> None:
    assert computed(rewards, "zscore") == pytest.approx(zscore, abs=6e-4)
    assert computed(rewards, "rank") == pytest.approx(rank, abs=6e-4)


@pytest.mark.parametrize("num_correct", [1, 2, 4, 7])
def test_binary_rewards_weigh_the_rare_outcome_more(num_correct: int) -> None:
    advantages = computed([1.0] * num_correct + [0.0] * (8 - num_correct), "zscore")
    assert advantages[0] == pytest.approx(math.sqrt((8 - num_correct) / num_correct), abs=1e-4)
    assert advantages[-1] == pytest.approx(-math.sqrt(num_correct / (8 - num_correct)), abs=1e-4)


@given(rewards_lists, st.integers(1, 40), st.integers(-20, 20))
def test_zscores_do_not_change_under_a_rising_straight_line(rewards: list[float], slope: int, shift: int) -> None:
    moved = [slope * reward + shift for reward in rewards]
    assert computed(moved, "zscore") == pytest.approx(computed(rewards, "zscore"), abs=1e-3)


@given(rewards_lists, st.integers(-20, 20))
def test_centred_rewards_do_not_change_under_a_shift_and_keep_the_scale(rewards: list[float], shift: int) -> None:
    expected = computed(rewards, "mean")
    assert computed([reward + shift for reward in rewards], "mean") == pytest.approx(expected, abs=1e-9)
    assert computed([3 * reward for reward in rewards], "mean") == pytest.approx([3 * value for value in expected], abs=1e-9)


@given(rewards_lists)
def test_ranks_do_not_change_under_any_rising_map(rewards: list[float]) -> None:
    assert computed([math.exp(reward) for reward in rewards], "rank") == computed(rewards, "rank")


@given(rewards_lists)
def test_ranks_span_at_most_minus_one_to_one_and_sum_to_zero(rewards: list[float]) -> None:
    ranks = computed(rewards, "rank")
    assert max(map(abs, ranks)) <= 1.0
    assert sum(ranks) == pytest.approx(0.0, abs=1e-9)


@given(rewards_lists, st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_the_order_of_the_group_does_not_matter(rewards: list[float], kind: Advantage, shuffler: random.Random) -> None:
    order = list(range(len(rewards)))
    shuffler.shuffle(order)
    expected = computed(rewards, kind)
    assert computed([rewards[index] for index in order], kind) == pytest.approx([expected[index] for index in order], abs=1e-9)


@given(rewards_lists, st.sampled_from(KINDS))
def test_equal_rewards_get_equal_advantages_and_better_ones_more(rewards: list[float], kind: Advantage) -> None:
    advantages = computed(rewards, kind)
    for left, left_advantage in zip(rewards, advantages, strict=True):
        for right, right_advantage in zip(rewards, advantages, strict=True):
            assert (left > right) == (left_advantage > right_advantage)


@given(rewards_lists, st.sampled_from(KINDS), st.sampled_from([None, math.nan, math.inf, -math.inf]), st.integers(0, 12))
def test_a_missing_reward_gets_zero_and_does_not_touch_the_others(
    rewards: list[float], kind: Advantage, missing: float | None, place: int
) -> None:
    place = min(place, len(rewards))
    with_missing = computed([*rewards[:place], missing, *rewards[place:]], kind)
    assert with_missing[place] == 0.0
    assert with_missing[:place] + with_missing[place + 1 :] == computed(rewards, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rewards", [[], [1.0], [None, math.nan], [1.0, None], [0.5, 0.5, 0.5], [0.5, 0.5009]])
def test_a_group_without_spread_has_no_advantages(rewards: list[float | None], kind: Advantage) -> None:
    assert batch_advantages([rewards], kind, min_spread=1e-3).groups == (None,)


def test_the_spread_that_counts_is_a_setting() -> None:
    at_gate, above = batch_advantages([[0.50, 0.54], [0.50, 0.56]], "zscore", min_spread=0.05).groups
    assert at_gate is None
    assert above is not None


def test_leave_one_out_has_its_known_advantages_and_is_the_centred_reward_scaled() -> None:
    assert computed([1, 0, 0, 0.5], "rloo") == pytest.approx([0.8333, -0.5, -0.5, 0.1667], abs=1e-4)
    rewards = [0.9, 0.7, 0.3, 0.1, 0.1]
    assert computed(rewards, "rloo") == pytest.approx([value * 5 / 4 for value in computed(rewards, "mean")])


def test_batch_std_centres_in_the_group_and_divides_by_the_spread_of_the_whole_batch() -> None:
    batch = batch_advantages([[1.0, 0.0], [0.5, 0.5, None], [0.2, 0.0]], "batch_std")
    valid = [1.0, 0.0, 0.5, 0.5, 0.2, 0.0]
    mean = sum(valid) / 6
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in valid) / 6)
    assert batch.groups[0] == pytest.approx([0.5 / deviation, -0.5 / deviation], rel=1e-4)
    assert batch.groups[1] is None
    assert batch.groups[2] == pytest.approx([0.1 / deviation, -0.1 / deviation], rel=1e-4)


@given(st.lists(rewards_lists, min_size=1, max_size=4), st.integers(1, 40), st.integers(-20, 20))
def test_batch_std_does_not_change_under_one_rising_straight_line_for_all(groups: list[list[float]], slope: int, shift: int) -> None:
    moved = batch_advantages([[slope * reward + shift for reward in group] for group in groups], "batch_std").groups
    for left, right in zip(moved, batch_advantages(groups, "batch_std").groups, strict=True):
        assert left == pytest.approx(right, abs=1e-3)


def test_near_rewards_count_as_one_and_ties_are_counted() -> None:
    batch = batch_advantages([[0.50, 0.52, 0.80, None], [0.1, 0.9]], "mean", tie_width=0.05)
    assert batch.groups[0] == pytest.approx([0.51 - 0.60667, 0.51 - 0.60667, 0.80 - 0.60667, 0.0], abs=1e-4)
    assert (batch.num_tied, batch.num_rewards, batch.num_without_spread) == (2, 5, 0)
    assert batch_advantages([[0.50, 0.52, 0.80]], "mean").num_tied == 0
    assert batch_advantages([[0.5, 0.5, 0.8]], "mean").num_tied == 2


def test_a_tie_reaches_no_further_than_its_width_from_the_lowest_reward() -> None:
    advantages = batch_advantages([[0.0, 0.04, 0.08, 0.12]], "rank", tie_width=0.05).groups[0]
    assert advantages is not None
    assert advantages[0] == advantages[1] < advantages[2] == advantages[3]


def test_a_group_that_is_one_tie_teaches_nothing() -> None:
    tied_all, tied_two = batch_advantages([[0.50, 0.52, 0.54], [0.50, 0.52, 0.56]], "zscore", tie_width=0.05).groups
    assert tied_all is None
    assert tied_two is not None


@given(rewards_lists, st.integers(0, 20), st.randoms(use_true_random=False))
def test_ties_do_not_depend_on_the_order_and_keep_it(rewards: list[float], width: int, shuffler: random.Random) -> None:
    order = list(range(len(rewards)))
    shuffler.shuffle(order)
    expected = batch_advantages([rewards], "rank", tie_width=width / 10).groups[0]
    shuffled = batch_advantages([[rewards[index] for index in order]], "rank", tie_width=width / 10).groups[0]
    if expected is None:
        assert shuffled is None
        return
    assert shuffled == [expected[index] for index in order]
    for left, left_advantage in zip(rewards, expected, strict=True):
        for right, right_advantage in zip(rewards, expected, strict=True):
            assert left <= right or left_advantage >= right_advantage


def test_the_overlong_penalty_falls_inside_the_cache_only() -> None:
    penalty = OverlongPenalty(max_tokens=100, cache_tokens=20, coefficient=0.5)
    lengths = [0, 80, 81, 90, 100, 500]
    assert [overlong_penalty(length, penalty) for length in lengths] == pytest.approx([0, 0, -0.025, -0.25, -0.5, -0.5])
