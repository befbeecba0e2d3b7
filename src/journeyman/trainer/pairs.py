"""Pairs as packed trees: both sides of a pair in one tree, so that their common prompt is computed once; and sums over their sides.

Several pairs share a tree too, and what they have in common (a system prompt, tools) with it. A pair of more tokens than a micro-batch
may have is split into several trees: whoever needs the sum over a side adds up what its trees give.

Shapes: S sides (side 2p is the chosen one of pair p, side 2p + 1 its rejected one), P pairs, N loss terms of one tree, M scored positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.errors import ContextLengthError, TrainingError
from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.trainer.batches import is_trainable
from journeyman.trainer.bins import assign_bins, most_tokens
from journeyman.trainer.packing import PackedTree, pack
from journeyman.types.settings import WhenTooLong


@dataclass(frozen=True, slots=True)
class PairTree:
    """One micro-batch.

    Attributes:
        tree: what is computed.
        scored_N: for each loss term the number of its scored position.
        side_N: for each loss term its side.
        pairs: the pairs that have terms here, ascending.
        new_pairs: those of them that have none in an earlier tree: who logs a pair once, does it here.
    """

    tree: PackedTree
    scored_N: Tensor
    side_N: Tensor
    pairs: Tensor
    new_pairs: Tensor

    def side_sums(self, scored_M: Tensor, num_sides: int) -> Tensor:
        """Sums over the terms of each side that are in this tree, [S]."""
        sums_S = torch.zeros(num_sides, dtype=scored_M.dtype, device=scored_M.device)
        return sums_S.index_add(0, self.side_N, scored_M[self.scored_N])


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """A batch of pairs.

    Attributes:
        num_terms_S: trained tokens of each side, in all trees together.
        is_split_P: whether the pair lies in several trees.
    """

    trees: tuple[PairTree, ...]
    num_terms_S: Tensor
    is_split_P: Tensor

    @property
    def num_pairs(self) -> int:
        return len(self.is_split_P)

    @property
    def num_sides(self) -> int:
        return len(self.num_terms_S)

    @property
    def packed(self) -> list[PackedTree]:
        return [part.tree for part in self.trees]

    def side_sums(self, scored: Sequence[Tensor]) -> Tensor:
        """Sums over the terms of each side, [S], from the log-probabilities of each tree's scored positions, [M] each."""
        total_S = torch.zeros(self.num_sides)
        for part, scored_M in zip(self.trees, scored, strict=True):
            total_S += part.side_sums(scored_M, self.num_sides)
        return total_S


def usable_pairs(pairs: Sequence[SamplePair], context_length: int, when_too_long: WhenTooLong) -> tuple[list[SamplePair], int]:
    """The pairs that fit the context, and how many do not.

    Raises ContextLengthError for the first that does not when such are to be refused, TrainingError for a side without a token to
    train on and when no pair is left.
    """
    kept = []
    for pair in pairs:
        trainable = SamplePair(_trainable(pair, pair.chosen, "chosen"), _trainable(pair, pair.rejected, "rejected"), pair.name)
        longest = max(len(sample.token_ids) for sample in trainable.samples)
        if longest <= context_length:
            kept.append(trainable)
        elif when_too_long == "refuse":
            raise ContextLengthError(
                f"{pair.name} has {longest} tokens and the model's context is {context_length}",
                hint='shorten it, leave it out, or set when_too_long="drop"',
            )
    if not kept:
        why = f"no pair to train on: all {len(pairs)} were too long" if pairs else "there are no pairs to train on"
        raise TrainingError(why, reason="all_too_long" if pairs else "no_pairs")
    return kept, len(pairs) - len(kept)


def pack_pairs(pairs: Sequence[SamplePair], max_tokens: int, num_parts: int = 1, num_free_tokens: int | None = None) -> PackedPairs:
    """Lay pairs out in trees of up to `max_tokens` computed tokens each (`most_tokens` says when it may be more).

    Args:
        num_parts: how many trees are computed at a time.
        num_free_tokens: as of `assign_bins`.
    """
    trees: list[tuple[PackedTree, list[int]]] = []
    for numbers in assign_bins([pair.samples for pair in pairs], num_parts, max_tokens, num_free_tokens):
        samples = [sample for number in numbers for sample in pairs[number].samples]
        sides = [2 * number + (place >= len(pairs[number].chosen)) for number in numbers for place in range(len(pairs[number].samples))]
        whole = pack(samples)
        if len(whole.token_ids) <= most_tokens(max(len(sample.token_ids) for sample in samples), max_tokens, num_free_tokens):
            trees.append((whole, sides))
            continue
        # A single pair: others would not have been put into its bin.
        parts = assign_bins([(sample,) for sample in samples], 1, max_tokens, num_free_tokens)
        trees += [(pack([samples[place] for place in part]), [sides[place] for place in part]) for part in parts]
    return _with_sides(trees, len(pairs))


def _trainable(pair: SamplePair, samples: Sequence[TrainSample], side: str) -> tuple[TrainSample, ...]:
    trainable = tuple(sample for sample in samples if is_trainable(sample))
    if not trainable:
        raise TrainingError(f"{pair.name} has no token to train on in its {side} side", reason="no_trained_token")
    return trainable


def _with_sides(packed: Sequence[tuple[PackedTree, list[int]]], num_pairs: int) -> PackedPairs:
    trees = []
    num_trees_P = torch.zeros(num_pairs, dtype=torch.long)
    num_terms_S = torch.zeros(2 * num_pairs, dtype=torch.long)
    for tree, sides in packed:
        side_N = torch.tensor([sides[term.sample] for term in tree.terms], dtype=torch.long)
        pairs = torch.unique(side_N // 2)
        trees.append(
            PairTree(
                tree,
                torch.tensor([term.scored for term in tree.terms], dtype=torch.long),
                side_N,
                pairs,
                num_trees_P[pairs] == 0,
            )
        )
        num_trees_P[pairs] += 1
        num_terms_S += torch.bincount(side_N, minlength=2 * num_pairs)
    return PackedPairs(tuple(trees), num_terms_S, num_trees_P > 1)
