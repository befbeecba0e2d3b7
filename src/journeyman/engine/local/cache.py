"""Keys and values of one worker: where they lie (running rows, shared prompts, finished rows for their next turn), and attention to them.

A row's keys are its prompt prefix (shared by the rows of a group, stored and attended once) followed by its own tokens (its place in the
`KVCache`). Rows stay dense there, `0 .. num_rows - 1`: when one leaves, the last moves into its place. What leaves is kept as a copy,
so that the next turn of the same conversation only computes what is new.

Attention has two layouts: `PromptLayout` for rows with several new tokens (prompts and tool results), one attention a row; `DecodeLayout`
for rows with one new token each, one batched attention for all rows' own tokens and one product a shared prefix (cascade: the prefix of a
group is read once a step, not once a row). Both softmax over prefix and own scores together, so sharing changes nothing but rounding.

Shapes: T new tokens, L layers, R rows, H query heads, K key/value heads, G = H / K, S own tokens, P prefix tokens, D head size.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from journeyman.modeling.attention import causal_attention

if TYPE_CHECKING:
    from journeyman.engine.local.rows import Row


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


class PromptLayout:
    """Rows with any number of new tokens, laid one after another."""

    def __init__(self, kv_cache: KVCache, rows: Sequence[Row]) -> None:
        self._states = kv_cache.states
        self._spans = []
        start = 0
        for row in rows:
            end = start + len(row.pending)
            self._spans.append((start, end, row))
            start = end

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        outputs = []
        for start, end, row in self._spans:
            length = row.num_own + end - start
            own = self._states[:, layer, row.slot, :, :length]
            own[0, :, row.num_own :] = key_KTD[:, start:end]
            own[1, :, row.num_own :] = value_KTD[:, start:end]
            key, value = own[0], own[1]
            if row.prefix is not None:
                key = torch.cat((row.prefix.states[0, layer], key), dim=1)
                value = torch.cat((row.prefix.states[1, layer], value), dim=1)
            outputs.append(causal_attention(query_HTD[:, start:end], key, value, scaling))
        return torch.cat(outputs, dim=0)


class DecodeLayout:
    """All rows of the kv_cache, `rows[r]` in place r, with one new token each; neighbours with the same prefix share its reading."""

    def __init__(self, kv_cache: KVCache, rows: Sequence[Row]) -> None:
        self._states = kv_cache.states
        device = kv_cache.states.device
        lengths_R = torch.tensor([row.num_own for row in rows], device=device)
        self._slots_R = torch.arange(len(rows), device=device)
        self._lengths_R = lengths_R
        self._longest = int(lengths_R.max()) + 1
        unseen_RS = torch.arange(self._longest, device=device)[None, :] > lengths_R[:, None]
        self._bias_RS = torch.zeros(unseen_RS.shape, dtype=kv_cache.states.dtype, device=device).masked_fill_(unseen_RS, float("-inf"))
        self._prefixes = []
        start = 0
        for prefix, members in groupby(rows, key=lambda row: row.prefix):
            count = len(list(members))
            if prefix is not None:
                self._prefixes.append((start, start + count, prefix))
            start += count
        self._longest_prefix = max((len(prefix.ids) for _, _, prefix in self._prefixes), default=0)

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        num_heads, num_rows, size = query_HTD.shape
        groups = key_KTD.shape[0]
        self._states[0, layer, self._slots_R, :, self._lengths_R] = key_KTD.transpose(0, 1)
        self._states[1, layer, self._slots_R, :, self._lengths_R] = value_KTD.transpose(0, 1)
        query_RKGD = (query_HTD * scaling).view(groups, num_heads // groups, num_rows, size).permute(2, 0, 1, 3)
        own = self._states[:, layer, :num_rows, :, : self._longest]
        scores_RKGS = torch.matmul(query_RKGD, own[0].transpose(-1, -2)) + self._bias_RS[:, None, None, :]
        if not self._prefixes:
            out_RKGD = torch.matmul(torch.softmax(scores_RKGS, dim=-1), own[1])
            return out_RKGD.reshape(num_rows, num_heads, size)
        return self._with_prefixes(layer, query_RKGD, scores_RKGS, own[1]).reshape(num_rows, num_heads, size)

    def _with_prefixes(self, layer: int, query_RKGD: Tensor, scores_RKGS: Tensor, value_RKSD: Tensor) -> Tensor:
        num_rows, groups, per_group, size = query_RKGD.shape
        longest = self._longest_prefix
        all_scores = query_RKGD.new_full((num_rows, groups, per_group, longest + self._longest), float("-inf"))
        all_scores[..., longest:] = scores_RKGS
        for start, end, prefix in self._prefixes:
            # [K, rows * G, D] x [K, D, P]: the group's queries against one copy of the prefix.
            query = query_RKGD[start:end].transpose(0, 1).reshape(groups, -1, size)
            scores = torch.matmul(query, prefix.states[0, layer].transpose(-1, -2))
            all_scores[start:end, ..., : scores.shape[-1]] = scores.view(groups, end - start, per_group, -1).transpose(0, 1)
        weights = torch.softmax(all_scores, dim=-1)
        out_RKGD = torch.matmul(weights[..., longest:], value_RKSD)
        for start, end, prefix in self._prefixes:
            part = weights[start:end, ..., : len(prefix.ids)].transpose(0, 1).reshape(groups, -1, len(prefix.ids))
            out = torch.matmul(part, prefix.states[1, layer])
            out_RKGD[start:end] += out.view(groups, end - start, per_group, size).transpose(0, 1)
        return out_RKGD
