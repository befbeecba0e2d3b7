"""Keys and values of one worker: a preallocated `KVCache` for the running rows, shared prompts, finished rows kept for their next turn.

A row's keys are its prompt prefix (shared by the rows of a group, stored and attended once) followed by its own tokens (its place in the
`KVCache`). Rows stay dense there, `0 .. num_rows - 1`: when one leaves, the last moves into its place. What leaves is kept as a copy,
so that the next turn of the same conversation only computes what is new.

Shapes: L layers, R rows, K key/value heads, S own tokens, P prefix tokens, D head size.
"""

from __future__ import annotations

import itertools
import math
import mmap
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What the cache needs to know of the model, and where it lives."""

    num_layers: int
    num_key_value_heads: int
    head_size: int
    dtype: torch.dtype
    device: str

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_key_value_heads * self.head_size * self.dtype.itemsize


_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Prefix:
    """A computed prompt: its ids and its keys and values, [2, L, K, P, D]."""

    adapter: str | None
    ids: tuple[int, ...]
    states: Tensor
    last_used: int = field(default_factory=lambda: next(_numbers))


@dataclass(slots=True, eq=False)
class FinishedRow:
    """A finished row: the ids whose states are known, its prefix, and its own states, [2, L, K, S, D]."""

    adapter: str | None
    ids: tuple[int, ...]
    prefix: Prefix | None
    own: Tensor
    last_used: int = field(default_factory=lambda: next(_numbers))


def _zero_pages(num_bytes: int) -> mmap.mmap:
    """Zeros that take memory only where they are written, so that a generous capacity costs nothing.

    Zeros matter: a place that is masked but holds a leftover NaN would still spoil its row.
    """
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, num_bytes)


class KVCache:
    """Own tokens of the running rows, [2, L, R, K, S, D]; grows by doubling when a row needs more."""

    def __init__(self, shape: CacheShape, max_rows: int, capacity: int) -> None:
        self._shape = shape
        self.states = self._empty(max_rows, capacity)

    @property
    def capacity(self) -> int:
        return self.states.shape[4]

    def _empty(self, rows: int, capacity: int) -> Tensor:
        shape = self._shape
        size = (2, shape.num_layers, rows, shape.num_key_value_heads, capacity, shape.head_size)
        if shape.device != "cpu":
            return torch.zeros(size, dtype=shape.dtype, device=shape.device)
        return torch.frombuffer(_zero_pages(math.prod(size) * shape.dtype.itemsize), dtype=shape.dtype).view(size)

    def clear(self) -> None:
        """Forget everything, also what is not a number. On a CPU the memory goes back to the kernel."""
        if self._shape.device != "cpu":
            self.states.zero_()  # a second one beside it may not fit
        else:
            self.states = self._empty(self.states.shape[2], self.capacity)

    def reserve(self, length: int) -> None:
        if length <= self.capacity:
            return
        capacity = self.capacity
        while capacity < length:
            capacity *= 2
        grown = self._empty(self.states.shape[2], capacity)
        grown[..., : self.capacity, :] = self.states
        self.states = grown

    def move(self, source: int, target: int, length: int) -> None:
        self.states[:, :, target, :, :length] = self.states[:, :, source, :, :length]

    def wipe(self, row: int, length: int) -> None:
        """Zeros in the place of what a row wrote."""
        self.states[:, :, row, :, :length] = 0.0

    def copy_out(self, row: int, length: int) -> Tensor:
        return self.states[:, :, row, :, :length].clone()

    def copy_in(self, row: int, states: Tensor) -> None:
        self.reserve(states.shape[3])
        self.states[:, :, row, :, : states.shape[3]] = states


class PrefixCache:
    """Prefixes and finished rows, found by token ids; the least recently used leave when `max_bytes` is exceeded."""

    def __init__(self, shape: CacheShape, max_bytes: int) -> None:
        self._shape = shape
        self._max_bytes = max_bytes
        self._prefixes: list[Prefix] = []
        self._finished: list[FinishedRow] = []

    def take_row(self, adapter: str | None, ids: tuple[int, ...]) -> FinishedRow | None:
        """The longest finished row that is a proper prefix of `ids`; it leaves the cache."""
        best = None
        for row in self._finished:
            is_better = best is None or len(row.ids) > len(best.ids)
            if row.adapter == adapter and is_better and len(row.ids) < len(ids) and ids[: len(row.ids)] == row.ids:
                best = row
        if best is not None:
            self._finished.remove(best)
        return best

    def find_prefix(self, adapter: str | None, ids: tuple[int, ...]) -> tuple[Prefix | None, int]:
        """The prefix that shares most leading tokens with `ids` (at most all but the last), and how many."""
        best, length = None, 0
        for prefix in self._prefixes:
            if prefix.adapter == adapter:
                shared = common_length(prefix.ids, ids[:-1])
                if shared > length:
                    best, length = prefix, shared
        if best is not None:
            best.last_used = next(_numbers)
        return best, length

    def add_prefix(self, prefix: Prefix) -> None:
        self._prefixes.append(prefix)
        self._evict()

    def add_row(self, row: FinishedRow) -> None:
        self._finished.append(row)
        self._evict()

    def forget(self, adapter: str | None = None, *, everything: bool = False) -> None:
        """Drop what was computed with `adapter`, or everything."""
        self._prefixes = [] if everything else [prefix for prefix in self._prefixes if prefix.adapter != adapter]
        self._finished = [] if everything else [row for row in self._finished if row.adapter != adapter]

    def _evict(self) -> None:
        entries: list[Prefix | FinishedRow] = sorted([*self._prefixes, *self._finished], key=lambda entry: entry.last_used)
        size = sum(_num_tokens(entry) for entry in entries) * self._shape.bytes_per_token
        for entry in entries[:-1]:
            if size <= self._max_bytes:
                return
            size -= _num_tokens(entry) * self._shape.bytes_per_token
            if isinstance(entry, Prefix):
                self._prefixes.remove(entry)
            else:
                self._finished.remove(entry)


def _num_tokens(entry: Prefix | FinishedRow) -> int:
    return entry.states.shape[3] if isinstance(entry, Prefix) else entry.own.shape[3]


def common_length(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """The number of equal leading ids."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    low, high = 0, limit  # the common length is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle
    return low
