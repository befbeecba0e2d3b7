"""Attention of the engine: write new keys and values into the kv_cache, attend to shared prefix and own tokens.

Two layouts: `PromptLayout` for rows with several new tokens (prompts and tool results), one attention a row; `DecodeLayout` for rows
with one new token each, one batched attention for all rows' own tokens and one product a shared prefix (cascade: the prefix of a group
is read once a step, not once a row). Both softmax over prefix and own scores together, so sharing changes nothing but rounding.

Shapes: T new tokens, R rows, H query heads, K key/value heads, G = H / K, S own tokens, P prefix tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from journeyman.engine.local.cache import KVCache
from journeyman.engine.local.rows import Row
from journeyman.modeling.attention import causal_attention


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
