"""Attention over a packed prefix tree: each node attends to its ancestors and, causally, to itself. Nothing of size T x T is made."""

from __future__ import annotations

import torch
from torch import Tensor

from journeyman.modeling.attention import causal_attention
from journeyman.trainer.packing import PackedTree


class TreeLayout:
    """`journeyman.modeling.attention.Layout` for one `PackedTree`."""

    def __init__(self, tree: PackedTree) -> None:
        self._ranges = [
            (node.start, node.end, [(tree.nodes[index].start, tree.nodes[index].end) for index in tree.path(number)])
            for number, node in enumerate(tree.nodes)
        ]

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        del layer
        outputs = []
        for start, end, ancestors in self._ranges:
            spans = [*ancestors, (start, end)]
            key = _gather(key_KTD, spans)
            value = _gather(value_KTD, spans)
            outputs.append(causal_attention(query_HTD[:, start:end], key, value, scaling))
        return torch.cat(outputs, dim=0)


def _gather(states_KTD: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    parts = [states_KTD[:, start:end] for start, end in merged]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
