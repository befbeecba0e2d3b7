"""The layout of a tree gives the attention function the tree's own attention, in float32 as in the trainer."""

from __future__ import annotations

import torch
from tests.tiny import make_sample
from tests.trainer.test_tree_attention import SCALING, masked_attention, states, visible_pairs

from journeyman.trainer.packing import pack
from journeyman.trainer.tree_layout import TreeLayout


def test_attention_over_a_tree_equals_masked_attention_over_all_tokens() -> None:
    tree = pack([make_sample(ids, 1) for ids in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6], [1, 7], [8, 2])])
    query, key, value = (tensor.detach().float() for tensor in states(len(tree.token_ids)))
    actual = TreeLayout(tree).attend(0, query, key, value, SCALING)
    torch.testing.assert_close(actual, masked_attention(query, key, value, visible_pairs(tree)))
