"""The kv_cache starts as zeros and keeps rows over growth; the cache finds what is shared and forgets what was used longest ago."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from journeyman.engine.local.cache import CacheShape, FinishedRow, KVCache, Prefix, PrefixCache, common_length

SHAPE = CacheShape(num_layers=2, num_key_value_heads=1, head_size=4, dtype=torch.float32, device="cpu")
PER_TOKEN = SHAPE.bytes_per_token


def states(length: int) -> torch.Tensor:
    return torch.arange(2 * 2 * length * 4, dtype=torch.float32).view(2, 2, 1, length, 4)


def prefix(*ids: int, adapter: str | None = None) -> Prefix:
    return Prefix(adapter, ids, states(len(ids)))


def finished_row(*ids: int, adapter: str | None = None) -> FinishedRow:
    return FinishedRow(adapter, ids, None, states(len(ids)))


@given(st.lists(st.integers(0, 1), max_size=12), st.lists(st.integers(0, 1), max_size=12))
def test_the_common_length_counts_equal_leading_ids(left: list[int], right: list[int]) -> None:
    expected = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))))
    assert common_length(tuple(left), tuple(right)) == expected


def test_a_token_takes_two_numbers_a_layer_head_and_width() -> None:
    assert PER_TOKEN == 2 * 2 * 1 * 4 * 4


def test_unwritten_places_are_zero_whatever_the_memory_held_before() -> None:
    for _ in range(20):
        garbage = [torch.full((2, 2, 3, 1, 64, 4), float("nan")) for _ in range(4)]
        del garbage
        kv_cache = KVCache(SHAPE, 3, 64)
        assert not kv_cache.states.any()
        kv_cache.reserve(100)
        assert kv_cache.capacity == 128
        assert not kv_cache.states.any()


def test_rows_survive_growth_moving_and_copying() -> None:
    kv_cache = KVCache(SHAPE, 3, 4)
    kv_cache.copy_in(2, states(4))
    kv_cache.copy_in(0, states(9))
    assert kv_cache.capacity == 16
    assert torch.equal(kv_cache.copy_out(2, 4), states(4))
    kv_cache.move(0, 1, 9)
    out = kv_cache.copy_out(1, 9)
    assert torch.equal(out, states(9))
    kv_cache.clear()
    assert not kv_cache.states.any()
    assert torch.equal(out, states(9)), "what was copied out is its own"


def test_the_longest_kept_row_that_the_prompt_goes_on_is_taken_once() -> None:
    cache = PrefixCache(SHAPE, 1 << 20)
    for row in (finished_row(1, 2), finished_row(1, 2, 3), finished_row(1, 2, 3, 4, 5), finished_row(1, 9, 9)):
        cache.add_row(row)
    taken = [cache.take_row(None, (1, 2, 3, 4)) for _ in range(3)]
    assert [row.ids if row else None for row in taken] == [(1, 2, 3), (1, 2), None]


def test_a_kept_row_needs_a_token_to_compute_after_it() -> None:
    cache = PrefixCache(SHAPE, 1 << 20)
    cache.add_row(finished_row(1, 2, 3))
    assert cache.take_row(None, (1, 2, 3)) is None


def test_the_prefix_that_shares_most_is_found_and_leaves_the_last_token() -> None:
    cache = PrefixCache(SHAPE, 1 << 20)
    for entry in (prefix(1, 2), prefix(1, 2, 3, 4), prefix(7)):
        cache.add_prefix(entry)
    found, length = cache.find_prefix(None, (1, 2, 3, 9))
    assert found is not None
    assert (found.ids, length) == ((1, 2, 3, 4), 3)
    assert cache.find_prefix(None, (1, 2, 3))[1] == 2
    assert cache.find_prefix(None, (5, 5)) == (None, 0)


def test_what_one_adapter_computed_is_nothing_to_another() -> None:
    cache = PrefixCache(SHAPE, 1 << 20)
    cache.add_prefix(prefix(1, 2, adapter="m@1"))
    cache.add_row(finished_row(1, 2, adapter="m@1"))
    for other in (None, "m@2"):
        assert cache.find_prefix(other, (1, 2, 3)) == (None, 0)
        assert cache.take_row(other, (1, 2, 3)) is None
    cache.forget("m@1")
    assert cache.find_prefix("m@1", (1, 2, 3)) == (None, 0)
    assert cache.take_row("m@1", (1, 2, 3)) is None


def test_forgetting_one_adapter_leaves_the_others_and_everything_is_everything() -> None:
    cache = PrefixCache(SHAPE, 1 << 20)
    for adapter in (None, "m@1"):
        cache.add_row(finished_row(1, 2, adapter=adapter))
    cache.forget("m@1")
    cache.add_row(finished_row(3, 4))
    assert cache.take_row(None, (1, 2, 3)) is not None
    cache.forget(everything=True)
    assert cache.take_row(None, (3, 4, 5)) is None


@pytest.mark.parametrize("touched", [True, False])
def test_the_least_recently_used_leave_when_there_is_no_room(touched: bool) -> None:
    cache = PrefixCache(SHAPE, 7 * PER_TOKEN)
    cache.add_prefix(prefix(1, 2, 3))
    cache.add_row(finished_row(5, 6, 7))
    if touched:
        cache.find_prefix(None, (1, 2, 3, 4))
    cache.add_prefix(prefix(8, 9, 10))
    assert (cache.find_prefix(None, (1, 2, 3, 4))[1] == 3) == touched
    assert (cache.take_row(None, (5, 6, 7, 8)) is None) == touched
    assert cache.find_prefix(None, (8, 9, 10, 11))[1] == 3


def test_the_newest_stays_even_when_it_alone_is_too_large() -> None:
    cache = PrefixCache(SHAPE, PER_TOKEN)
    cache.add_row(finished_row(1, 2, 3))
    cache.add_row(finished_row(4, 5, 6))
    assert cache.take_row(None, (1, 2, 3, 4)) is None
    assert cache.take_row(None, (4, 5, 6, 7)) is not None
