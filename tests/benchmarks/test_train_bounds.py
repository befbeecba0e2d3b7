"""The training benchmarks fail where a bound that they state does not hold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks import train_memory, train_step


def memory(packed: float, padded: float = 17.0, workers: int = 1) -> dict[str, Any]:
    paths = {name: {"gigabytes_above_weights": packed} for name in train_memory.PACKED_PATHS}
    return {**paths, "workers": workers, "times_less_than_padded": dict.fromkeys(paths, round(padded / packed, 2))}


def test_memory_below_three_gigabytes_a_worker_and_a_quarter_of_padded_rows_passes() -> None:
    assert train_memory.missed(memory(2.9), is_quick=False) == []
    assert train_memory.missed(memory(4.2, workers=2), is_quick=False) == []
    assert train_memory.missed(memory(0.5, padded=0.9), is_quick=True) == []


def test_memory_above_a_bound_and_a_path_that_was_killed_are_named() -> None:
    assert len(train_memory.missed(memory(3.1), is_quick=True)) == 2
    assert "times less" in train_memory.missed(memory(2.0, padded=7.0), is_quick=False)[0]
    found = memory(1.0) | {"packed": {"exit_code": -9}}
    assert train_memory.missed(found, is_quick=False) == ["packed needs None GB above the weights, of at most 3.0"]


@pytest.mark.parametrize(
    ("times", "difference", "is_quick", "count"),
    [(3.0, 1e-5, False, 0), (2.9, 1e-5, False, 1), (0.5, 1e-5, True, 0), (4.0, 3e-5, True, 1), (2.0, math.nan, False, 2)],
)
def test_a_step_that_is_slow_or_differs_fails(times: float, difference: float, is_quick: bool, count: int) -> None:
    found = {"times_faster": times, "largest_relative_difference": difference}
    assert len(train_step.missed(found, is_quick=is_quick)) == count
