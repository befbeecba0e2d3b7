"""Supervised fine-tuning: which samples make a batch, and the negative log-likelihood of their sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from journeyman.trainer.packing import PackedTree
from journeyman.types.samples import TrainSample
from journeyman.types.settings import Sft


def is_trainable(sample: TrainSample) -> bool:
    """Whether it gives a loss term: a sampled token with something before it."""
    return any(sample.is_sampled[1:])


def supervised_batches(samples: Sequence[TrainSample], settings: Sft) -> list[list[TrainSample]]:
    """Batches of all epochs, in a random order that `settings.seed` decides; samples without a term are left out."""
    generator = torch.Generator().manual_seed(settings.seed)
    batches = []
    for _ in range(settings.epochs):
        order = torch.randperm(len(samples), generator=generator).tolist()
        for start in range(0, len(order), settings.batch_size):
            batch = [samples[index] for index in order[start : start + settings.batch_size] if is_trainable(samples[index])]
            if batch:
                batches.append(batch)
    return batches


def supervised_loss(trees: Sequence[PackedTree]) -> Callable[[int, Tensor, Tensor], tuple[Tensor, dict[str, float]]]:
    """The sum of -log-probability over the terms of tree `number`; the caller divides by the terms of the whole batch."""

    def objective(number: int, scored_M: Tensor, entropy_M: Tensor) -> tuple[Tensor, dict[str, float]]:
        del entropy_M
        loss = -scored_M[torch.tensor([term.scored for term in trees[number].terms])].sum()
        return loss, {"loss": float(loss.detach())}

    return objective
