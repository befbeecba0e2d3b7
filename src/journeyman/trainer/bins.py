"""Which samples of a batch are computed together: best-fit decreasing on computed tokens, so that every worker is busy to the end.

Samples that begin alike are cheaper together (`packing.py`): what a sample adds to a bin is its tokens without those that it has in
common with one already there. A bin in which the layers are computed twice to save memory costs more, and saves more where a long
beginning would be computed once for each few samples otherwise: both ways are tried, and the cheaper is taken. How a batch is split
changes only the cost, never the loss or the gradient, but for the rounding of sums.

Source: best-fit decreasing for packing sequences, as in Ding et al. 2024 (2404.10830), there without shared beginnings.
"""

from __future__ import annotations

import heapq
from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from journeyman.trainer.base import TrainSample
from journeyman.trainer.packing import common_length

# A pass over a bin costs about as much as this many tokens more.
_TOKENS_OF_A_PASS = 32
# Workers share the machine: four times the work, to end one token earlier, is no gain.
_WEIGHT_OF_ALL_WORK = 0.02
# Forward twice and backward once, where backward is twice forward. A bin above `max_tokens` has to save as much again.
_COST_OF_RECOMPUTING = 4 / 3
# For `num_free_tokens`, where the size of a bin decides nothing about a token's cost: without a gradient, nothing is kept of any.
ALL_ALIKE = 0


def fill_bins(
    samples: Sequence[TrainSample], num_workers: int, max_tokens: int, num_free_tokens: int | None = None
) -> list[list[TrainSample]]:
    """The samples in bins, each to be packed as one tree, largest first; the order within a bin is that of `samples`.

    Args: as `assign_bins`.
    """
    bins = assign_bins([(sample,) for sample in samples], num_workers, max_tokens, num_free_tokens)
    return [[samples[number] for number in numbers] for numbers in bins]


def assign_bins(
    units: Sequence[Sequence[TrainSample]], num_workers: int, max_tokens: int, num_free_tokens: int | None = None
) -> list[list[int]]:
    """Numbers of the units in each bin, ascending, the largest bin first. A unit is one sample or several that stay together.

    Args:
        num_workers: how many bins are computed at a time; the bins are made so that the last worker ends early.
        max_tokens: computed tokens of a bin, see `most_tokens`; a single unit with more is a bin of its own.
        num_free_tokens: above so many the layers are computed twice to save memory, 0 if always. None: they never are; then no bin of
            several units has more than `max_tokens`.

    Example:
        >>> assign_bins([(system_and_long,), (another,), (system_and_short,)], 1, max_tokens=1000)
        [[0, 2], [1]]
    """
    ordered = _Sorted(units)
    limits = _Limits(max_tokens, num_free_tokens)
    counts = _bin_counts(num_workers, len(units))
    found = [_even_bins(ordered, count, cap, limits) for cap in _caps(ordered, limits) for count in counts]
    best = min(found, key=lambda bins: _cost(bins, num_workers, limits), default=[])
    return [sorted(one.units) for one in sorted(best, key=lambda one: -one.num_tokens)]


def most_tokens(longest: int, max_tokens: int, num_free_tokens: int | None) -> int:
    """The most computed tokens of a bin whose longest sample has `longest`: where the backward pass keeps little of each token, half of
    `max_tokens` may come on top of a sample that fills more than half of them by itself. Without that, attempts at a prompt that is near
    `max_tokens` would each compute it anew."""
    return max_tokens if num_free_tokens is None else max(max_tokens, longest + max_tokens // 2)


@dataclass(frozen=True, slots=True)
class _Limits:
    max_tokens: int
    num_free_tokens: int | None

    def most(self, longest: int, num_shared: int) -> int:
        """Of a bin that a unit joins with `num_shared` tokens that are there already: more than `max_tokens` only to save half of them."""
        is_saving = 2 * num_shared >= self.max_tokens
        return most_tokens(longest, self.max_tokens, self.num_free_tokens) if is_saving else self.max_tokens


@dataclass(slots=True)
class _Bin:
    """Units by their numbers, their samples by places in sorted order, and the tokens of their prefix tree."""

    units: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    num_tokens: int = 0
    longest: int = 0


class _Sorted:
    """Samples in the order of their tokens: two of them share what is shared by all neighbours between them."""

    def __init__(self, units: Sequence[Sequence[TrainSample]]) -> None:
        samples = [(sample.token_ids, unit) for unit, own in enumerate(units) for sample in own]
        samples.sort(key=lambda one: one[0])
        self.places: list[list[int]] = [[] for _ in units]
        for place, (_, unit) in enumerate(samples):
            self.places[unit].append(place)
        self._lengths = [len(ids) for ids, _ in samples]
        self._with_next = [common_length(left, right) for (left, _), (right, _) in pairwise(samples)]
        self.num_tokens = sum(self._lengths) - sum(self._with_next)
        self.sizes = [self.added_tokens(unit, []) for unit in range(len(units))]
        self.longest = [max(self._lengths[place] for place in own) for own in self.places]

    def added_tokens(self, unit: int, places: Sequence[int]) -> int:
        """What a unit adds to the tree of the samples at `places` (sorted)."""
        first, *others = self.places[unit]
        added = self._added(first, places)
        if others:
            there = sorted([*places, first])
            for place in others:
                added += self._added(place, there)
                insort(there, place)
        return added

    def _added(self, place: int, places: Sequence[int]) -> int:
        """A sample shares most with its neighbours in sorted order."""
        at = bisect(places, place)
        before = min(self._with_next[places[at - 1] : place]) if at > 0 else 0
        after = min(self._with_next[place : places[at]]) if at < len(places) else 0
        return self._lengths[place] - max(before, after)


def _bin_counts(num_workers: int, num_units: int) -> list[int]:
    """How many bins are tried: one a worker, fewer where a beginning is shared by all, more where a bin cannot hold so much."""
    counts = {num_workers >> halvings for halvings in range(num_workers.bit_length())} | {num_workers * rounds for rounds in (2, 3, 4)}
    return sorted(count for count in counts if count <= max(num_units, 1))


def _caps(ordered: _Sorted, limits: _Limits) -> list[int]:
    """Computed tokens that bins are kept below, to be tried one after the other: what is computed once, `max_tokens`, the most there may
    be. Smaller ones are left out where they would change nothing."""
    most = most_tokens(max(ordered.longest, default=0), limits.max_tokens, limits.num_free_tokens)
    free = min(limits.num_free_tokens or most, limits.max_tokens)
    caps = sorted({free, limits.max_tokens, most})
    smaller = [cap for cap in caps if cap < ordered.num_tokens]
    return caps[: len(smaller) + 1]


def _even_bins(ordered: _Sorted, num_bins: int, cap: int, limits: _Limits) -> list[_Bin]:
    """Bins of the least capacity with which `num_bins` are enough; of `cap` where they are not."""
    high = min(ordered.num_tokens, cap)
    low = min(ordered.num_tokens // num_bins, high)
    best = _best_fit(ordered, high, cap, limits)
    while low < high:
        middle = (low + high) // 2
        found = _best_fit(ordered, middle, cap, limits)
        if len(found) <= num_bins:
            best, high = found, middle
        else:
            low = middle + 1
    return best


def _best_fit(ordered: _Sorted, capacity: int, cap: int, limits: _Limits) -> list[_Bin]:
    """Best-fit decreasing: the largest first, each where it adds the fewest tokens and leaves the least room; else in a new bin."""
    bins: list[_Bin] = []
    for unit in sorted(range(len(ordered.sizes)), key=lambda unit: -ordered.sizes[unit]):
        size, longest = ordered.sizes[unit], ordered.longest[unit]
        choices = []
        for number, one in enumerate(bins):
            added = ordered.added_tokens(unit, one.places)
            most = limits.most(max(longest, one.longest), size - added)
            # A bin that is above the cap by a single unit stays above it: what adds little to it is better off there than alone.
            is_welcome = one.num_tokens > cap and 2 * added < size
            if one.num_tokens + added <= (most if is_welcome else min(capacity, most)):
                choices.append((added, -one.num_tokens, number))
        added, _, number = min(choices, default=(size, 0, len(bins)))
        if number == len(bins):
            bins.append(_Bin())
        one = bins[number]
        one.units.append(unit)
        for place in ordered.places[unit]:
            insort(one.places, place)
        one.num_tokens += added
        one.longest = max(one.longest, longest)
    return bins


def _cost(bins: Sequence[_Bin], num_workers: int, limits: _Limits) -> float:
    """When the last worker ends, in tokens, if each free worker takes the largest bin that is left; and a little for all work."""
    loads = [0.0] * num_workers
    costs = sorted((_cost_of(one.num_tokens, limits) for one in bins), reverse=True)
    for cost in costs:
        heapq.heapreplace(loads, loads[0] + cost + _TOKENS_OF_A_PASS)
    return max(loads) + _WEIGHT_OF_ALL_WORK * sum(costs)


def _cost_of(num_tokens: int, limits: _Limits) -> float:
    if limits.num_free_tokens is None:
        return num_tokens
    # Where all are computed twice, none costs more than another: the split is then the one without a second pass, and so are its bits.
    times = (0 < limits.num_free_tokens < num_tokens) + (num_tokens > limits.max_tokens)
    return num_tokens * _COST_OF_RECOMPUTING**times
