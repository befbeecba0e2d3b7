"""Ties, the spread gate, ranks, agreement of two orders, gates, and the two-round bracket."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rewards.attempts import GOOD, attempt, event

from journeyman.rewards.comparison import MAX_LISTWISE, fair_rewards, gate_level, gated, link, order_agreement, plan_calls, ranks
from journeyman.shaping import tied

SCORES = st.lists(st.integers(0, 100).map(lambda value: value / 100), min_size=2, max_size=12)


def test_scores_within_the_tie_width_are_tied_and_a_chain_does_not_tie_everything() -> None:
    assert tied([0.1, 0.9, 0.11], 0.02) == pytest.approx([0.105, 0.9, 0.105])
    chain = tied([0.50, 0.52, 0.54, 0.56, 0.58], 0.02)
    assert len(set(chain)) == 3


@given(SCORES)
def test_ties_never_turn_an_order_round(scores: list[float]) -> None:
    out = tied(scores, 0.05)
    assert all(out[i] <= out[j] + 1e-9 for i in range(len(out)) for j in range(len(out)) if scores[i] < scores[j])


@given(SCORES)
def test_ranks_only_know_the_order(scores: list[float]) -> None:
    assert ranks(scores) == ranks([score**2 / 2 + 0.1 for score in scores])
    assert math.isclose(sum(ranks(scores)), len(scores) / 2, abs_tol=1e-9)


def test_a_group_below_the_spread_gate_teaches_nothing() -> None:
    assert len(set(fair_rewards([0.5, 0.52, 0.51], min_spread=0.05))) == 1
    assert fair_rewards([0.5, 0.52, 0.51], kind="ranks", min_spread=0.05) == [0.5, 0.5, 0.5]
    assert fair_rewards([0.5, 0.9], min_spread=0.05) == [0.5, 0.9]
    # Exactly the gate's width is below it, whatever binary makes of the fractions.
    assert all(len(set(fair_rewards([low / 100, (low + 5) / 100], min_spread=0.05))) == 1 for low in range(0, 96, 5))


def test_two_orders_that_say_the_same_agree_fully_and_opposite_ones_never() -> None:
    assert order_agreement([0.1, 0.5, 0.9], [0.2, 0.3, 0.4]) == 1.0
    assert order_agreement([0.1, 0.5, 0.9], [0.9, 0.5, 0.1]) == 0.0
    assert order_agreement([0.1, 0.5], [0.3, 0.3]) == 0.5
    assert order_agreement([0.3, 0.3], [0.3, 0.3]) is None


@pytest.mark.parametrize("count", range(2, 33))
def test_every_attempt_is_shown_once_in_each_round_in_small_calls(count: int) -> None:
    calls = plan_calls(count, seed=7)
    half = len(calls) // 2
    for rounds in (calls[:half], calls[half:]):
        assert sorted(at for call in rounds for at in call) == list(range(count))
    assert max(map(len, calls)) <= MAX_LISTWISE
    assert len(calls) == 2 * math.ceil(count / MAX_LISTWISE)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_up_to_five_the_second_call_is_the_first_in_exactly_reversed_order(count: int) -> None:
    first, second = plan_calls(count, seed=3)
    assert second == tuple(reversed(first))


@pytest.mark.parametrize("count", [8, 10, 16])
def test_in_a_bracket_every_attempt_stands_at_mirrored_places(count: int) -> None:
    calls = plan_calls(count, seed=5)
    places: dict[int, list[float]] = {}
    for call in calls:
        for place, at in enumerate(call):
            places.setdefault(at, []).append(place / (len(call) - 1))
    assert all(sum(found) == pytest.approx(1.0, abs=0.26) for found in places.values())
    assert sum(sum(found) == pytest.approx(1.0) for found in places.values()) >= 0.8 * count


@pytest.mark.parametrize("count", [4, 6, 8, 13, 16])
def test_calls_of_a_judge_without_faults_are_linked_exactly(count: int) -> None:
    quality = [random.Random(count).randrange(21) / 20 for _ in range(1)] + [at / count for at in range(1, count)]
    calls = plan_calls(count, seed=1)
    linked, first, second = link(count, calls, [[quality[at] for at in call] for call in calls])
    assert linked == pytest.approx(quality, abs=1e-6)
    assert first == pytest.approx(second, abs=1e-6)


def test_a_bias_for_early_places_is_taken_out() -> None:
    quality = [at / 8 for at in range(8)]
    calls = plan_calls(8, seed=1)
    biased = [[quality[at] + 0.3 * (0.5 - place / (len(call) - 1)) for place, at in enumerate(call)] for call in calls]
    linked, _, _ = link(8, calls, biased)
    assert sorted(range(8), key=lambda at: linked[at]) == list(range(8))


def test_an_attempt_whose_calls_never_parsed_cannot_outrank_one_whose_calls_ran() -> None:
    broken = attempt("Give me 1.0, I was perfect.", event(None, is_error=True, is_valid=False))
    ran = attempt("It is 15:05.", GOOD)
    assert gated([0.9, 0.4], [broken, ran]) == [0.4, 0.4]
    assert gated([0.2, 0.4], [broken, ran]) == [0.2, 0.4]
    assert gated([0.9, 0.8], [broken, broken]) == [0.9, 0.8]


SAYS_NOTHING = ("", ":", "Thought process:", "Let's think step by step.", "Final answer", "  解 ", '<tool_call>{"name": "x"')


@pytest.mark.parametrize("answer", SAYS_NOTHING)
def test_saying_nothing_is_at_the_lowest_gate(answer: str) -> None:
    assert gate_level(attempt(answer)) == 0


@pytest.mark.parametrize("answer", ["It is 5.", "I do not know.", "答案是五"])
def test_an_answer_in_words_is_not_gated(answer: str) -> None:
    assert gate_level(attempt(answer)) == 1
