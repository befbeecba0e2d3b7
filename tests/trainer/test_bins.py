"""Bins hold every sample once, fit, keep all workers busy, and keep together what begins alike."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.trainer.base import TrainSample
from journeyman.trainer.bins import ALL_ALIKE, assign_bins, fill_bins, most_tokens
from journeyman.trainer.packing import pack


def sample(*token_ids: int) -> TrainSample:
    return TrainSample(token_ids, (False, *[True] * (len(token_ids) - 1)), (0.0,) * len(token_ids), 1.0)


def unlike(length: int, number: int) -> TrainSample:
    """A sample that has no beginning in common with those of another number."""
    return sample(number, *range(1000, 1000 + length - 1))


def computed(bins: list[list[TrainSample]]) -> list[int]:
    return [len(pack(one).token_ids) for one in bins]


def test_lengths_that_fit_together_are_put_together() -> None:
    lengths = [90, 80, 70, 30, 20, 10]
    bins = fill_bins([unlike(length, number) for number, length in enumerate(lengths)], 3, 100)
    assert computed(bins) == [100, 100, 100]
    assert sorted(sorted(len(one.token_ids) for one in samples) for samples in bins) == [[10, 90], [20, 80], [30, 70]]


def test_the_work_is_even_where_a_fixed_split_is_not() -> None:
    batch = [unlike(400 if number % 2 == 0 else 20, number) for number in range(8)]
    fixed = [batch[number::2] for number in range(2)]
    assert computed(fixed) == [1600, 80]
    assert computed(fill_bins(batch, 2, 4096)) == [840, 840]


def test_what_begins_alike_is_computed_together() -> None:
    """Two conversations of four samples each, in turn: a fixed split of an odd number of parts computes each three times."""
    batch = [sample(*([7] * 100 if number % 2 else [8] * 100), 100 + number) for number in range(8)]
    assert sum(computed([batch[number::4] for number in range(4)])) == 408
    assert sum(computed([batch[:4], batch[4:]])) == 408
    bins = fill_bins(batch, 2, 4096)
    assert computed(bins) == [104, 104]


def test_a_common_beginning_is_not_paid_for_by_more_workers_than_gain_from_it() -> None:
    batch = [sample(*[7] * 1000, number) for number in range(4)]
    assert sum(computed(fill_bins(batch, 4, 4096))) == 1004


def test_a_bin_holds_no_more_than_asked_for_and_a_longer_sample_is_alone() -> None:
    batch = [unlike(300, 1), *(unlike(60, number) for number in range(2, 8))]
    bins = fill_bins(batch, 1, 130)
    assert computed(bins) == [300, 120, 120, 120]


def test_more_bins_than_workers_are_made_even_too() -> None:
    """Three full bins would keep one of two workers waiting for a third of the time."""
    batch = [unlike(100, number) for number in range(30)]
    assert computed(fill_bins(batch, 2, 1000)) == [500] * 6


def test_order_within_a_bin_is_that_of_the_batch() -> None:
    batch = [unlike(10 + number, number) for number in range(6)]
    (only,) = fill_bins(batch, 1, 4096)
    assert only == batch


def test_no_samples_make_no_bins() -> None:
    assert fill_bins([], 2, 4096) == []


def attempts(num_prompt: int, number: int, count: int = 8, num_new: int = 20) -> list[TrainSample]:
    prompt = [100 + number] * num_prompt
    return [sample(*prompt, *range(1000 + 100 * one, 1000 + 100 * one + num_new)) for one in range(count)]


@pytest.mark.parametrize("num_prompt", [200, 300, 380, 400, 700, 900, 980, 1000, 1500])
def test_a_prompt_is_computed_once_a_group_whether_below_at_or_above_either_limit(num_prompt: int) -> None:
    """400 tokens without a second pass, 1,000 at most. Bins of those limits computed a prompt of 400 anew for each attempt."""
    batch = [one for group in range(4) for one in attempts(num_prompt, group)]
    bins = fill_bins(batch, 2, 1000, 400)
    assert sum(computed(bins)) == 4 * (num_prompt + 8 * 20)
    assert max(computed(bins)) <= max(1000, num_prompt + 20 + 500)


def test_a_bin_holds_only_half_of_the_limit_more_than_its_longest_sample() -> None:
    bins = fill_bins(attempts(980, 0, count=64), 1, 1000, 400)
    assert sum(computed(bins)) == 3 * 980 + 64 * 20
    assert max(computed(bins)) <= 1000 + 500


def test_where_layers_are_never_computed_twice_the_limit_is_kept() -> None:
    """It is then all that bounds the memory."""
    assert computed(fill_bins(attempts(980, 0), 1, 1000, None)) == [1000] * 8
    assert computed(fill_bins(attempts(1100, 0), 1, 1000, None)) == [1120] * 8
    assert max(computed(fill_bins(attempts(400, 0, count=40), 1, 1000, None))) <= 1000


def test_samples_with_nothing_in_common_are_kept_below_what_costs_a_second_pass() -> None:
    bins = fill_bins([unlike(66, number) for number in range(8)], 1, 4096, 154)
    assert computed(bins) == [132] * 4


def test_only_what_is_better_off_there_joins_a_bin_above_the_limit() -> None:
    batch = [*attempts(450, 0), *(unlike(66, number) for number in range(8))]
    bins = fill_bins(batch, 1, 1000, 154)
    assert computed(bins) == [450 + 8 * 20, 132, 132, 132, 132]


def test_the_samples_of_a_unit_stay_together() -> None:
    long, short = attempts(100, 0), attempts(30, 1)
    units = [(long[0], short[0]), (unlike(90, 5),), (long[1], short[1]), (unlike(90, 6),)]
    assert assign_bins(units, 1, 220, None) == [[0, 2], [1, 3]]
    assert assign_bins(units, 2, 4096, None) == [[0, 2], [1, 3]]
    assert assign_bins(units, 1, 150, None) == [[0], [2], [1], [3]]


def test_where_all_is_computed_twice_the_split_is_the_one_where_nothing_is() -> None:
    choose = random.Random(0)
    for _ in range(50):
        batch = [sample(*(choose.randint(0, 2) for _ in range(choose.randint(2, 60)))) for _ in range(choose.randint(2, 9))]
        for max_tokens in (130, 4096):
            assert fill_bins(batch, 2, max_tokens, ALL_ALIKE) == fill_bins(batch, 2, max_tokens, None)


limits = st.tuples(st.integers(4, 60), st.one_of(st.none(), st.integers(0, 60)))


@given(st.integers(0, 10_000), st.integers(1, 5), limits)
def test_every_sample_is_in_one_bin_that_fits(seed: int, num_workers: int, limit: tuple[int, int | None]) -> None:
    max_tokens, num_free_tokens = limit
    choose = random.Random(seed)
    batch = [sample(*(choose.randint(0, 2) for _ in range(choose.randint(1, 20)))) for _ in range(choose.randint(1, 12))]
    bins = fill_bins(batch, num_workers, max_tokens, num_free_tokens)
    assert sorted(id(one) for samples in bins for one in samples) == sorted(id(one) for one in batch)
    assert all(samples for samples in bins)
    for size, samples in zip(computed(bins), bins, strict=True):
        most = most_tokens(max(len(one.token_ids) for one in samples), max_tokens, num_free_tokens)
        assert size <= most or len(samples) == 1
    assert computed(bins) == sorted(computed(bins), reverse=True)
    fixed = [part for number in range(num_workers) if (part := batch[number::num_workers])]
    if max(computed(fixed)) <= max_tokens and num_free_tokens in (None, 0):
        assert max(computed(bins)) <= max(computed(fixed)) * 1.5 + 32


def test_a_large_batch_is_split_quickly() -> None:
    import time

    choose = random.Random(0)
    batch = [sample(*(choose.randint(0, 1) for _ in range(choose.randint(50, 500)))) for _ in range(256)]
    started = time.process_time()
    fill_bins(batch, 4, 4096, 1540)
    assert time.process_time() - started < 5.0
