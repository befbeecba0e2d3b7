"""Which samples of a batch are computed together: best-fit decreasing on computed tokens, so that every worker is busy to the end.

Samples that begin alike are cheaper together (`packing.py`): what a sample adds to a bin is its tokens without those that it has in
common with one already there. A bin in which the layers are computed twice to save memory costs more, and saves more where a long
beginning would be computed once for each few samples otherwise: both ways are tried, and the cheaper is taken. How a batch is split
changes only the cost, never the loss or the gradient, but for the rounding of sums.

Source: best-fit decreasing for packing sequences, as in Ding et al. 2024 (2404.10830), there without shared beginnings.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from journeyman.trainer.base import TrainSample
from journeyman.trainer.packing import tree_runs

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
    limits = _Limits(max_tokens, num_free_tokens)
    pieces, whole = _pieces(units), _Bin()
    for piece in pieces:
        whole.add(piece)
    counts = _bin_counts(num_workers, len(units))
    splits = [_even_bins(pieces, whole.num_tokens, count, cap, limits) for cap in _caps(whole, limits) for count in counts]
    best = min(splits, key=lambda bins: _cost(bins, num_workers, limits), default=[])
    return [sorted(filled.units) for filled in sorted(best, key=lambda filled: -filled.num_tokens)]


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

    def cost(self, num_tokens: int) -> float:
        """Of a bin, in tokens."""
        if self.num_free_tokens is None:
            return num_tokens
        # Where all are computed twice, none costs more than another: the split is then the one without a second pass, and so are its bits.
        times = (0 < self.num_free_tokens < num_tokens) + (num_tokens > self.max_tokens)
        return num_tokens * _COST_OF_RECOMPUTING**times


@dataclass(slots=True)
class _Bin:
    """Units by their numbers, and the runs of their prefix tree (`tree_runs`). A unit alone is a bin too."""

    units: list[int] = field(default_factory=list)
    runs: dict[int, int] = field(default_factory=dict)
    num_tokens: int = 0
    longest: int = 0

    def added_tokens(self, runs: Mapping[int, int]) -> int:
        """What `runs` add to the tree."""
        return sum(length for start, length in runs.items() if start not in self.runs)

    def add(self, other: _Bin) -> None:
        self.num_tokens += self.added_tokens(other.runs)
        self.units += other.units
        self.runs |= other.runs
        self.longest = max(self.longest, other.longest)


def _pieces(units: Sequence[Sequence[TrainSample]]) -> list[_Bin]:
    """Each unit alone, the largest first."""
    runs = iter(tree_runs([sample.token_ids for unit in units for sample in unit]))
    pieces = []
    for number, unit in enumerate(units):
        piece = _Bin([number])
        for sample in unit:
            piece.add(_Bin([], next(runs), longest=len(sample.token_ids)))
        pieces.append(piece)
    return sorted(pieces, key=lambda piece: -piece.num_tokens)


def _bin_counts(num_workers: int, num_units: int) -> list[int]:
    """How many bins are tried: one a worker, fewer where a beginning is shared by all, more where a bin cannot hold so much."""
    counts = {num_workers >> halvings for halvings in range(num_workers.bit_length())} | {num_workers * rounds for rounds in (2, 3, 4)}
    return sorted(count for count in counts if count <= max(num_units, 1))


def _caps(whole: _Bin, limits: _Limits) -> list[int]:
    """Computed tokens that bins are kept below, to be tried one after the other: what is computed once, `max_tokens`, the most there may
    be. Smaller ones are left out where they would change nothing."""
    most = most_tokens(whole.longest, limits.max_tokens, limits.num_free_tokens)
    free = min(limits.num_free_tokens or most, limits.max_tokens)
    caps = sorted({free, limits.max_tokens, most})
    return caps[: 1 + sum(cap < whole.num_tokens for cap in caps)]


def _even_bins(pieces: Sequence[_Bin], num_tokens: int, num_bins: int, cap: int, limits: _Limits) -> list[_Bin]:
    """Bins of the least capacity with which `num_bins` are enough; of `cap` where they are not."""
    high = min(num_tokens, cap)
    low = min(num_tokens // num_bins, high)
    best = _best_fit(pieces, high, cap, limits)
    while low < high:
        middle = (low + high) // 2
        bins = _best_fit(pieces, middle, cap, limits)
        if len(bins) <= num_bins:
            best, high = bins, middle
        else:
            low = middle + 1
    return best


def _best_fit(pieces: Sequence[_Bin], capacity: int, cap: int, limits: _Limits) -> list[_Bin]:
    """Best-fit decreasing: the largest first, each where it adds the fewest tokens and leaves the least room; else in a new bin."""
    bins: list[_Bin] = []
    for piece in pieces:
        choices = []
        for number, filled in enumerate(bins):
            added = filled.added_tokens(piece.runs)
            most = limits.most(max(piece.longest, filled.longest), piece.num_tokens - added)
            # A bin that is above the cap by a single unit stays above it: what adds little to it is better off there than alone.
            may_exceed = filled.num_tokens > cap and 2 * added < piece.num_tokens
            if filled.num_tokens + added <= (most if may_exceed else min(capacity, most)):
                choices.append((added, -filled.num_tokens, number))
        if not choices:
            bins.append(_Bin())
        bins[min(choices)[2] if choices else -1].add(piece)
    return bins


def _cost(bins: Sequence[_Bin], num_workers: int, limits: _Limits) -> float:
    """When the last worker ends, in tokens, if each free worker takes the largest bin that is left; and a little for all work."""
    loads = [0.0] * num_workers
    costs = sorted((limits.cost(filled.num_tokens) for filled in bins), reverse=True)
    for cost in costs:
        heapq.heapreplace(loads, loads[0] + cost + _TOKENS_OF_A_PASS)
    return max(loads) + _WEIGHT_OF_ALL_WORK * sum(costs)
