"""Intervals, paired comparisons, the noise floor, pass@k."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import SettingError
from journeyman.evaluation.statistics import (
    bootstrap_interval,
    mcnemar_p_value,
    noise_floor,
    paired_comparison,
    pass_at_k,
    pass_hat_k,
    proportion_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(65, 100, 0.55, 0.74), (33, 50, 0.52, 0.78), (260, 400, 0.60, 0.70), (0, 30, 0.0, 0.114)]
)
def test_wilson_intervals_are_those_of_the_tables(successes: int, trials: int, low: float, high: float) -> None:
    found = proportion_interval(successes, trials)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_the_exact_interval_follows_the_rule_of_three() -> None:
    found = proportion_interval(0, 60, method="clopper_pearson")
    assert (found.low, found.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 60)))


def test_no_trials_tell_nothing_and_impossible_counts_are_refused() -> None:
    assert (proportion_interval(0, 0).low, proportion_interval(0, 0).high) == (0.0, 1.0)
    with pytest.raises(SettingError):
        proportion_interval(3, 2)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, None]), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=12))
def test_a_missing_side_leaves_its_pair_out_of_every_number(pairs: list[tuple[float | None, float | None]]) -> None:
    before, after = [one for one, _ in pairs], [other for _, other in pairs]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not known:
        with pytest.raises(SettingError):
            paired_comparison(before, after)
        return
    alone = paired_comparison([one for one, _ in known], [other for _, other in known])
    assert paired_comparison(before, after) == alone.model_copy(update={"num_missing": len(pairs) - len(known)})


def test_a_paired_comparison_counts_won_lost_both_neither() -> None:
    before = [0] * 40 + [1] * 10 + [0] * 8 + [1] * 2
    after = [1] * 40 + [1] * 10 + [0] * 8 + [0] * 2
    found = paired_comparison(before, after)
    assert (found.won, found.lost, found.both, found.neither, found.num_items) == (40, 2, 10, 8, 60)
    assert found.difference.mean == pytest.approx(38 / 60)
    assert 0.45 < found.difference.low < found.difference.mean < found.difference.high < 0.8
    assert found.p_value < 1e-9
    assert "40 won, 2 lost, 10 both, 8 neither" in found.text()
    assert found.text().startswith("+63.3 points [")


@pytest.mark.parametrize(
    ("won", "lost", "is_clear"), [(8, 0, True), (7, 1, False), (15, 5, True), (14, 6, False), (33, 17, True), (61, 39, True)]
)
def test_the_exact_sign_test_has_the_known_thresholds(won: int, lost: int, is_clear: bool) -> None:
    assert (mcnemar_p_value(won, lost) < 0.05) is is_clear


def test_identical_variants_differ_by_nothing_and_the_interval_says_how_little_that_proves() -> None:
    found = paired_comparison([0, 1, 1], [0, 1, 1])
    assert (found.difference.mean, found.p_value) == (0.0, 1.0)
    assert found.difference.low < 0 < found.difference.high


def test_scores_between_zero_and_one_are_compared_too() -> None:
    generator = random.Random(1)
    before = [generator.random() * 0.5 for _ in range(50)]
    found = paired_comparison(before, [value + 0.3 for value in before])
    assert found.difference.mean == pytest.approx(0.3)
    assert found.won == 50


def test_the_interval_is_the_same_every_time() -> None:
    values = [random.Random(2).random() for _ in range(30)]
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_a_bootstrap_interval_is_near_the_normal_one() -> None:
    values = [0.0, 1.0] * 100
    found = bootstrap_interval(values)
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / 200**0.5, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.5 / 200**0.5, abs=0.01)


def test_different_numbers_of_items_are_refused() -> None:
    with pytest.raises(SettingError, match="same items"):
        paired_comparison([1, 0], [1])
    with pytest.raises(SettingError):
        paired_comparison([], [])


def test_the_noise_floor_shrinks_with_items_and_is_zero_without_noise() -> None:
    generator = random.Random(3)
    few = [[float(generator.random() < 0.5) for _ in range(8)] for _ in range(10)]
    many = few * 16
    assert noise_floor(many).mean_size < noise_floor(few).mean_size
    assert noise_floor([[1.0, 1.0], [0.0, 0.0]]).high == 0.0
    with pytest.raises(SettingError, match="at least 2"):
        noise_floor([[1.0]])


def test_pass_at_k_and_pass_hat_k_have_the_golden_values() -> None:
    assert pass_at_k(8, 2, 1) == 0.25
    assert pass_at_k(8, 2, 4) == pytest.approx(0.7857, abs=5e-5)
    assert pass_hat_k(8, 2, 4) == 0.0
    assert pass_hat_k(8, 6, 4) == pytest.approx(0.2143, abs=5e-5)
    with pytest.raises(SettingError):
        pass_at_k(8, 2, 9)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40))
def test_swapping_the_sides_mirrors_the_comparison(pairs: list[tuple[float, float]]) -> None:
    before, after = [list(side) for side in zip(*pairs, strict=True)]
    there, back = paired_comparison(before, after), paired_comparison(after, before)
    assert (there.won, there.lost, there.both, there.neither) == (back.lost, back.won, back.both, back.neither)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert there.difference.low <= there.difference.mean <= there.difference.high
    assert there.p_value == pytest.approx(back.p_value)
