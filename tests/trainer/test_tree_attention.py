"""Attention in blocks is attention under the tree's mask, with its gradients, for any tree and any size of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_sample
from tests.trainer.test_packing import ancestors
from torch import Tensor

from journeyman.trainer.packing import Node, PackedTree, pack
from journeyman.trainer.tree_attention import KEYS_PER_BLOCK, QUERIES_PER_BLOCK, TreeLayout, blocks_of, tree_attention

SCALING = 0.4


def visible_pairs(tree: PackedTree) -> Tensor:
    """Which key (column) each query (row) sees, by the definition: ancestors, and its own node up to itself."""
    count = len(tree.token_ids)
    visible = torch.zeros(count, count, dtype=torch.bool)
    for number, node in enumerate(tree.nodes):
        for position in range(node.start, node.end):
            visible[position, node.start : position + 1] = True
            for index in ancestors(tree, number):
                visible[position, tree.nodes[index].start : tree.nodes[index].end] = True
    return visible


def states(count: int, *, heads: int = 6, key_heads: int = 2, size: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values in double precision, laid out as a projection leaves them (tokens first)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(num_heads: int) -> Tensor:
        drawn = torch.randn(count, num_heads, size, generator=generator, dtype=torch.float64)
        return drawn.transpose(0, 1).requires_grad_()

    return draw(heads), draw(key_heads), draw(key_heads)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    repeats = query.shape[0] // key.shape[0]
    scores = query @ key.repeat_interleave(repeats, 0).transpose(1, 2) * SCALING
    weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1)
    return (weights @ value.repeat_interleave(repeats, 0)).transpose(0, 1)


def assert_same_attention(tree: PackedTree, num_queries: int, num_keys: int) -> None:
    inputs = states(len(tree.token_ids))
    actual = tree_attention(*inputs, blocks_of(tree.nodes, num_queries, num_keys), SCALING)
    expected = masked_attention(*inputs, visible_pairs(tree))
    torch.testing.assert_close(actual, expected)
    direction = torch.randn(actual.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    for left, right in zip(torch.autograd.grad(actual, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True):
        torch.testing.assert_close(left, right)


@st.composite
def trees(draw: st.DrawFn) -> PackedTree:
    """Sequences that grow out of prefixes of earlier ones, or from nothing."""
    token = st.integers(3, 9)
    sequences: list[list[int]] = [draw(st.lists(token, min_size=1, max_size=12))]
    for _ in range(draw(st.integers(0, 7))):
        parent = draw(st.sampled_from(sequences))
        kept = draw(st.integers(0, len(parent)))
        sequences.append(parent[:kept] + draw(st.lists(token, min_size=int(kept == 0), max_size=8)))
    return pack([make_sample(ids, 1) for ids in sequences])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(tree=trees(), num_queries=st.sampled_from([1, 2, 3, 64]), more_keys=st.sampled_from([0, 1, 4, 512]))
def test_packed_attention_and_gradients_in_blocks_equal_masked_ones(tree: PackedTree, num_queries: int, more_keys: int) -> None:
    assert_same_attention(tree, num_queries, num_queries + more_keys)


@pytest.mark.parametrize("num_prompt", [127, 128, 129, 700])
def test_packed_attention_is_right_where_nodes_are_longer_than_blocks(num_prompt: int) -> None:
    prompt = [3 + index % 7 for index in range(num_prompt)]
    tree = pack([make_sample([*prompt, 20 + number, *range(30, 30 + 50 * number)], num_prompt) for number in range(3)])
    blocks = blocks_of(tree.nodes)
    assert len(blocks) > len(tree.nodes)
    assert_same_attention(tree, QUERIES_PER_BLOCK, KEYS_PER_BLOCK)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(tree=trees(), num_queries=st.sampled_from([1, 3, 64]), more_keys=st.sampled_from([0, 2, 512]))
def test_every_visible_pair_is_in_exactly_one_block(tree: PackedTree, num_queries: int, more_keys: int) -> None:
    count = len(tree.token_ids)
    times = torch.zeros(count, count, dtype=torch.long)
    for block in blocks_of(tree.nodes, num_queries, num_queries + more_keys):
        rows, keys = slice(block.query_start, block.query_end), slice(block.key_start, block.key_end)
        assert 0 < block.query_end - block.query_start <= num_queries
        assert 0 < block.key_end - block.key_start <= num_queries + more_keys
        seen = torch.ones(block.query_end - block.query_start, block.key_end - block.key_start, dtype=torch.long)
        if block.is_diagonal:
            seen = seen.tril(block.key_end - block.key_start - (block.query_end - block.query_start))
        times[rows, keys] += seen
    assert torch.equal(times, visible_pairs(tree).long())


def kept_numbers(nodes: Sequence[Node]) -> int:
    """How many numbers the backward pass keeps."""
    inputs = states(nodes[-1].end, heads=2, key_heads=1, size=4)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = tree_attention(*inputs, blocks_of(nodes), SCALING)
    assert out.requires_grad
    return sum(kept.values())


def test_what_is_kept_grows_with_the_tokens_not_with_the_pairs() -> None:
    alone = kept_numbers([Node(0, 256, -1, 0)])
    siblings = [Node(256 + 32 * number, 288 + 32 * number, 0, 256) for number in range(8)]
    # Queries, keys, values and output of each token; a share for each head and block.
    assert alone == 256 * (8 + 4 + 4 + 8) + 256 * 2
    assert kept_numbers([Node(0, 256, -1, 0), *siblings]) == 512 * (8 + 4 + 4 + 8) + (256 + 2 * 256) * 2


def test_the_output_lies_as_the_output_projection_reads_it() -> None:
    """Otherwise that would keep a copy of its own."""
    inputs = states(20)
    assert tree_attention(*inputs, blocks_of([Node(0, 20, -1, 0)]), SCALING).is_contiguous()


def test_large_scores_stay_finite() -> None:
    tree = pack([make_sample(ids, 1) for ids in ([1, 2, 3, 4], [1, 2, 5], [1, 7])])
    query, key, value = (tensor.detach().float() * 1e3 for tensor in states(len(tree.token_ids)))
    query.requires_grad_()
    out = tree_attention(query, key, value, blocks_of(tree.nodes, 1, 1), SCALING)
    torch.testing.assert_close(out, masked_attention(query, key, value, visible_pairs(tree)))
    assert bool(torch.autograd.grad(out.sum(), query)[0].isfinite().all())


def test_attention_over_a_tree_equals_masked_attention_over_all_tokens() -> None:
    tree = pack([make_sample(ids, 1) for ids in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6], [1, 7], [8, 2])])
    query, key, value = (tensor.detach().float() for tensor in states(len(tree.token_ids)))
    actual = TreeLayout(tree).attend(0, query, key, value, SCALING)
    torch.testing.assert_close(actual, masked_attention(query, key, value, visible_pairs(tree)))
