"""What the tokens of a packed prefix tree attend to, in the form that the attention function asks for."""

from __future__ import annotations

from torch import Tensor

from journeyman.trainer.packing import PackedTree
from journeyman.trainer.tree_attention import blocks_of, tree_attention


class TreeLayout:
    """`journeyman.modeling.attention.Layout` for one `PackedTree`."""

    def __init__(self, tree: PackedTree) -> None:
        self._blocks = blocks_of(tree.nodes)

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        del layer
        return tree_attention(query_HTD, key_KTD, value_KTD, self._blocks, scaling)
