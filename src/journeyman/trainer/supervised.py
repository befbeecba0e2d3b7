"""Supervised fine-tuning: which samples make a batch, the negative log-likelihood of their sampled tokens, and measuring it.

Shapes: M scored positions of one tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from journeyman.trainer.base import OnProgress, TrainSample
from journeyman.trainer.batches import is_trainable, shuffled_batches
from journeyman.trainer.bins import ALL_ALIKE, fill_bins
from journeyman.trainer.packing import PackedTree, pack
from journeyman.trainer.policy_objective import Score
from journeyman.types.settings import TOKENS_PER_MICRO_BATCH, Sft

_SAMPLES_AT_A_TIME = 64


def supervised_batches(samples: Sequence[TrainSample], settings: Sft) -> list[list[TrainSample]]:
    """Batches of all epochs, in a random order that `settings.seed` decides; samples without a term are left out."""
    numbers = shuffled_batches(len(samples), settings.batch_size, settings.epochs, settings.seed)
    batches = [[samples[index] for index in batch if is_trainable(samples[index])] for batch in numbers]
    return [batch for batch in batches if batch]


def supervised_loss(trees: Sequence[PackedTree]) -> Callable[[int, Tensor, Tensor], tuple[Tensor, dict[str, float]]]:
    """The sum of -log-probability over the terms of tree `number`; the caller divides by the terms of the whole batch."""

    def objective(number: int, scored_M: Tensor, entropy_M: Tensor) -> tuple[Tensor, dict[str, float]]:
        del entropy_M
        loss = -scored_M[torch.tensor([term.scored for term in trees[number].terms])].sum()
        return loss, {"loss": float(loss.detach())}

    return objective


def tree_counts(trees: Sequence[PackedTree]) -> dict[str, float]:
    """Loss terms, tokens computed, and tokens there would be without common beginnings."""
    return {
        "num_tokens": float(sum(len(tree.terms) for tree in trees)),
        "num_computed_tokens": float(sum(len(tree.token_ids) for tree in trees)),
        "num_unpacked_tokens": float(sum(tree.num_unpacked_tokens for tree in trees)),
    }


def supervised_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a step logs of its updates: the token mean of the loss, each batch's taken before its update."""
    totals = {name: sum(update[name] for update in updates) for name in ("loss", *tree_counts(()))}
    return totals | {
        "loss": totals["loss"] / totals["num_tokens"],
        "gradient_norm": updates[-1]["gradient_norm"],
        "num_updates": float(len(updates)),
    }


def measured_loss(samples: Sequence[TrainSample], score: Score, num_workers: int, on_progress: OnProgress) -> dict[str, float]:
    """The token mean of -log-probability of the sampled tokens, without training.

    Args:
        score: log-probabilities of each tree's scored positions, without gradient, M each.
    """
    usable = [sample for sample in samples if is_trainable(sample)]
    total = 0.0
    counts: Counter[str] = Counter()
    for start in range(0, len(usable), _SAMPLES_AT_A_TIME):
        chunk = usable[start : start + _SAMPLES_AT_A_TIME]
        trees = [pack(part) for part in fill_bins(chunk, num_workers, TOKENS_PER_MICRO_BATCH, ALL_ALIKE)]
        for tree, scored_M in zip(trees, score(trees), strict=True):
            total -= float(scored_M[torch.tensor([term.scored for term in tree.terms])].double().sum())
        counts.update(tree_counts(trees))
        on_progress(min((start + _SAMPLES_AT_A_TIME) / len(usable), 1.0))
    return dict(counts) | {"loss": total / counts["num_tokens"]}
