"""A token of the tree sees its ancestors and what stands before it in its own node, and nothing else."""

from __future__ import annotations

import torch
from tests.tiny import make_sample

from journeyman.trainer.packing import pack
from journeyman.trainer.tree_layout import TreeLayout


def test_attention_over_a_tree_equals_masked_attention_over_all_tokens() -> None:
    tree = pack([make_sample(ids, 1) for ids in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6], [1, 7], [8, 2])])
    count = len(tree.token_ids)
    visible = torch.zeros(count, count, dtype=torch.bool)
    for number, node in enumerate(tree.nodes):
        for position in range(node.start, node.end):
            visible[position, node.start : position + 1] = True
            for index in tree.path(number):
                visible[position, tree.nodes[index].start : tree.nodes[index].end] = True
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, count, 8, generator=generator)
    key, value = torch.randn(2, count, 8, generator=generator), torch.randn(2, count, 8, generator=generator)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 0), value.repeat_interleave(2, 0), attn_mask=visible, scale=0.4
    )
    torch.testing.assert_close(TreeLayout(tree).attend(0, query, key, value, 0.4), expected.transpose(0, 1))
