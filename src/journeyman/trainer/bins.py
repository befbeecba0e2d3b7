"""Which samples of a batch are computed together: best-fit decreasing on computed tokens, so that every worker is busy to the end.

Samples that begin alike are cheaper together (`packing.py`): what a sample adds to a bin is its tokens without those that it has in
common with one already there. How a batch is split changes only the cost, never the loss or the gradient.

Source: best-fit decreasing for packing sequences, as in Ding et al. 2024 (2404.10830), there without shared beginnings.
"""

from __future__ import annotations

import heapq
from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from journeyman.trainer.packing import common_length
from journeyman.types.samples import TrainSample

# A pass over a bin costs about as much as this many tokens more.
_TOKENS_OF_A_PASS = 32
# Workers share the machine: four times the work, to end one token earlier, is no gain.
_WEIGHT_OF_ALL_WORK = 0.02


def fill_bins(samples: Sequence[TrainSample], num_workers: int, max_tokens: int) -> list[list[TrainSample]]:
    """The samples in bins, each to be packed as one tree, largest first; the order within a bin is that of `samples`.

    Args:
        num_workers: how many bins are computed at a time; the bins are made so that the last worker ends early.
        max_tokens: computed tokens of a bin; a single sample with more is a bin of its own.
    """
    ordered = _Sorted(samples)
    found = [_even_bins(ordered, num_bins, max_tokens) for num_bins in _bin_counts(num_workers, len(samples))]
    best = min(found, key=lambda bins: _cost(bins, num_workers), default=[])
    chosen = sorted(best, key=lambda one: -one.num_tokens)
    return [[samples[index] for index in sorted(ordered.order[place] for place in one.places)] for one in chosen]


@dataclass(slots=True)
class _Bin:
    """Samples by their places in sorted order, and the tokens of their prefix tree."""

    places: list[int] = field(default_factory=list)
    num_tokens: int = 0


class _Sorted:
    """Samples in the order of their tokens: two of them share what is shared by all neighbours between them."""

    def __init__(self, samples: Sequence[TrainSample]) -> None:
        self.order = sorted(range(len(samples)), key=lambda index: samples[index].token_ids)
        ids = [samples[index].token_ids for index in self.order]
        self.lengths = [len(one) for one in ids]
        self._with_next = [common_length(left, right) for left, right in pairwise(ids)]
        self.num_tokens = sum(self.lengths) - sum(self._with_next)

    def added_tokens(self, place: int, places: Sequence[int]) -> int:
        """What a sample adds to the tree of those at `places` (sorted): it shares most with its neighbours there."""
        at = bisect(places, place)
        before = min(self._with_next[places[at - 1] : place]) if at > 0 else 0
        after = min(self._with_next[place : places[at]]) if at < len(places) else 0
        return self.lengths[place] - max(before, after)


def _bin_counts(num_workers: int, num_samples: int) -> list[int]:
    """How many bins are tried: one a worker, fewer where a beginning is shared by all, more where a bin cannot hold so much."""
    counts = {num_workers >> halvings for halvings in range(num_workers.bit_length())} | {num_workers * rounds for rounds in (2, 3, 4)}
    return sorted(count for count in counts if count <= max(num_samples, 1))


def _even_bins(ordered: _Sorted, num_bins: int, max_tokens: int) -> list[_Bin]:
    """Bins of the least capacity with which `num_bins` are enough; of `max_tokens` where they are not."""
    high = min(ordered.num_tokens, max_tokens)
    low = min(ordered.num_tokens // num_bins, high)
    best = _best_fit(ordered, high)
    while low < high:
        middle = (low + high) // 2
        found = _best_fit(ordered, middle)
        if len(found) <= num_bins:
            best, high = found, middle
        else:
            low = middle + 1
    return best


def _best_fit(ordered: _Sorted, capacity: int) -> list[_Bin]:
    """Best-fit decreasing: the longest first, each where it adds the fewest tokens and leaves the least room; else in a new bin."""
    bins: list[_Bin] = []
    for place in sorted(range(len(ordered.lengths)), key=lambda place: -ordered.lengths[place]):
        choices = [(ordered.added_tokens(place, one.places), -one.num_tokens, number) for number, one in enumerate(bins)]
        fitting = [choice for choice in choices if choice[0] - choice[1] <= capacity]
        added, _, number = min(fitting, default=(ordered.lengths[place], 0, len(bins)))
        if number == len(bins):
            bins.append(_Bin())
        insort(bins[number].places, place)
        bins[number].num_tokens += added
    return bins


def _cost(bins: Sequence[_Bin], num_workers: int) -> float:
    """When the last worker ends, in tokens, if each free worker takes the largest bin that is left; and a little for all work."""
    loads = [0] * num_workers
    for one in sorted(bins, key=lambda one: -one.num_tokens):
        heapq.heapreplace(loads, loads[0] + one.num_tokens + _TOKENS_OF_A_PASS)
    return max(loads) + _WEIGHT_OF_ALL_WORK * sum(one.num_tokens for one in bins)
