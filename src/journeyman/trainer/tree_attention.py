"""Attention of a packed prefix tree in blocks, forward and backward: a token sees its ancestors' tokens and its own node's up to itself.

In the flat row of a tree all that is below a node follows it directly, so a node's keys are seen by one range of queries: the node's own
(causally) and those below it. That range is computed in blocks, which FlashAttention's recurrences join (Dao and others 2205.14135): a
block's softmax weighs by the block's share in the query's sum, and the backward pass computes the weights again. Kept for the backward
pass are queries, keys, values, output and the shares: no scores, no mask, no copy of the ancestors' keys for each sibling, no key or
value repeated for the heads that use it. Unlike FlashAttention's, a block's softmax is complete: one fused kernel instead of four passes.

Not for sampling: the engine's keys lie in caches (`journeyman.engine.local.cache`). Not for masks other than a tree's.

Shapes: T tokens, H query heads, K key/value heads, G = H / K, D head size; t queries and S keys of a block, N queries of all blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from journeyman.trainer.packing import Node, PackedTree

# The scores of a block (2.4 MB with 9 heads) stay in the processor's cache while they are used. Larger ones are no faster.
QUERIES_PER_BLOCK = 128
KEYS_PER_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Block:
    """Queries `[query_start, query_end)` see keys `[key_start, key_end)`; if `is_diagonal`, the last keys are the queries' own tokens,
    and each sees those up to itself."""

    query_start: int
    query_end: int
    key_start: int
    key_end: int
    is_diagonal: bool


def blocks_of(nodes: Sequence[Node], num_queries: int = QUERIES_PER_BLOCK, num_keys: int = KEYS_PER_BLOCK) -> list[Block]:
    """The blocks of a tree whose nodes are in depth-first order: each pair of a query and a key that it sees is in exactly one.

    At most `num_queries` by `num_keys` each, where `num_keys` is no less than `num_queries`.
    """
    ends = [node.end for node in nodes]
    for number in range(len(nodes) - 1, -1, -1):
        parent = nodes[number].parent
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[number])
    blocks = []
    for node, end in zip(nodes, ends, strict=True):
        for start, stop in _pieces(node.start, node.end, num_queries):
            diagonal = max(node.start, stop - num_keys)
            blocks.append(Block(start, stop, diagonal, stop, True))
            blocks += [Block(start, stop, *keys, False) for keys in _pieces(node.start, diagonal, num_keys)]
        for start, stop in _pieces(node.end, end, num_queries):
            blocks += [Block(start, stop, *keys, False) for keys in _pieces(node.start, node.end, num_keys)]
    return blocks


def _pieces(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, size):
        yield at, min(at + size, end)


class TreeLayout:
    """`journeyman.modeling.attention.Layout` for one `PackedTree`."""

    def __init__(self, tree: PackedTree) -> None:
        self._blocks = blocks_of(tree.nodes)

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        del layer
        return tree_attention(query_HTD, key_KTD, value_KTD, self._blocks, scaling)


def tree_attention(query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, blocks: Sequence[Block], scaling: float) -> Tensor:
    """Attention output [T, H, D], with gradients to queries, keys and values. Head h uses key/value head h // G."""
    return _TreeAttention.apply(query_HTD, key_KTD, value_KTD, blocks, scaling)  # type: ignore[no-any-return, no-untyped-call]


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, blocks: Sequence[Block], scaling: float) -> Tensor:
        query_KGTD = _by_key_head(query_HTD, key_KTD)
        out_KGTD = query_HTD.new_zeros(*query_KGTD.shape[:3], value_KTD.shape[2])
        log_sum_KGT = query_HTD.new_full(query_KGTD.shape[:3], float("-inf"))
        log_sums = []
        for block in blocks:
            rows = slice(block.query_start, block.query_end)
            scores_KGtS = _scores(query_KGTD[:, :, rows] * scaling, key_KTD, block)
            # One fused kernel, several times faster than subtracting, exponentiating and summing; the largest weight gives the log-sum.
            weights_KGtS = torch.softmax(scores_KGtS, dim=3)
            log_sum_KGt = scores_KGtS.amax(dim=3) - weights_KGtS.amax(dim=3).log()
            seen = torch.bmm(weights_KGtS.flatten(1, 2), value_KTD[:, block.key_start : block.key_end])
            before = log_sum_KGT[:, :, rows]
            after = torch.logaddexp(before, log_sum_KGt)
            out_KGtD = out_KGTD[:, :, rows]
            out_KGtD.mul_((before - after).exp_()[..., None])
            out_KGtD.addcmul_(seen.view_as(out_KGtD), (log_sum_KGt - after).exp_()[..., None])
            log_sum_KGT[:, :, rows] = after
            log_sums.append(log_sum_KGt)
        # In the order that the output projection wants, which then keeps this tensor and not a copy.
        out_THD = out_KGTD.permute(2, 0, 1, 3).flatten(1, 2).contiguous()
        # The share that each block has in the sum of each of its queries, one block after the other.
        shares = [
            (own - log_sum_KGT[:, :, block.query_start : block.query_end]).exp_() for own, block in zip(log_sums, blocks, strict=True)
        ]
        ctx.save_for_backward(query_HTD, key_KTD, value_KTD, out_THD, torch.cat(shares, dim=2))
        ctx.blocks, ctx.scaling = blocks, scaling
        return out_THD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_THD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_HTD, key_KTD, value_KTD, out_THD, shares_KGN = ctx.saved_tensors
        query_KGTD = _by_key_head(query_HTD, key_KTD)
        gradient_KGTD = _by_key_head(gradient_THD.transpose(0, 1), key_KTD)
        along_KGT1 = _by_key_head((gradient_THD * out_THD).sum(dim=2).t(), key_KTD)[..., None]
        d_query_KGTD = torch.zeros(query_KGTD.shape, dtype=query_HTD.dtype, device=query_HTD.device)
        d_key_KTD = torch.zeros(key_KTD.shape, dtype=key_KTD.dtype, device=key_KTD.device)
        d_value_KTD = torch.zeros(value_KTD.shape, dtype=value_KTD.dtype, device=value_KTD.device)
        at = 0
        for block in ctx.blocks:
            rows, keys = slice(block.query_start, block.query_end), slice(block.key_start, block.key_end)
            share_KGt1 = shares_KGN[:, :, at : at + block.query_end - block.query_start, None]
            at += block.query_end - block.query_start
            query_KGtD = query_KGTD[:, :, rows] * ctx.scaling
            # The weights within the block; with the block's share on the other factor, since that has fewer numbers.
            weights_KGtS = torch.softmax(_scores(query_KGtD, key_KTD, block), dim=3)
            gradient_KtD = (gradient_KGTD[:, :, rows] * share_KGt1).flatten(1, 2)
            d_value_KTD[:, keys].baddbmm_(weights_KGtS.flatten(1, 2).transpose(1, 2), gradient_KtD)
            d_scores_KGtS = torch.bmm(gradient_KtD, value_KTD[:, keys].transpose(1, 2)).view_as(weights_KGtS)
            d_scores_KGtS.sub_(along_KGT1[:, :, rows] * share_KGt1).mul_(weights_KGtS)
            d_scores_KtS = d_scores_KGtS.flatten(1, 2)
            d_query_KGTD[:, :, rows] += torch.bmm(d_scores_KtS, key_KTD[:, keys]).view_as(query_KGtD)
            d_key_KTD[:, keys].baddbmm_(d_scores_KtS.transpose(1, 2), query_KGtD.flatten(1, 2))
        return d_query_KGTD.mul_(ctx.scaling).flatten(0, 1), d_key_KTD, d_value_KTD, None, None


def _by_key_head(states_HTD: Tensor, key_KTD: Tensor) -> Tensor:
    """[H, T, ...] as [K, G, T, ...], a view."""
    return states_HTD.view(key_KTD.shape[0], -1, *states_HTD.shape[1:])


def _scores(query_KGtD: Tensor, key_KTD: Tensor, block: Block) -> Tensor:
    """Scores of a block, [K, G, t, S]; minus infinity where a key is not seen."""
    keys_KSD = key_KTD[:, block.key_start : block.key_end]
    scores = torch.bmm(query_KGtD.flatten(1, 2), keys_KSD.transpose(1, 2)).view(*query_KGtD.shape[:3], -1)
    if block.is_diagonal:
        count = query_KGtD.shape[2]
        later = torch.ones(count, count, dtype=torch.bool, device=scores.device).triu(1)
        scores[..., -count:].masked_fill_(later, float("-inf"))
    return scores
