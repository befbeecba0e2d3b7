"""Supervised fine-tuning: which samples make a batch, and the negative log-likelihood of their sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from journeyman.trainer.batches import shuffled_batches
from journeyman.trainer.packing import PackedTree
from journeyman.types.samples import TrainSample
from journeyman.types.settings import Sft


def is_trainable(sample: TrainSample) -> bool:
    """Whether it gives a loss term: a sampled token with something before it."""
    return any(sample.is_sampled[1:])


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
