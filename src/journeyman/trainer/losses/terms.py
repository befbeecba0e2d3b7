"""Flat loss terms and the trajectories they belong to: sums and means over trajectories without padding. Not for what a term costs.

A term is one sampled token of one sample. A *sequence* is a trajectory: all its segments together, wherever they were packed.

Shapes: N terms of one micro-batch, S sequences and G groups of the whole optimiser batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.types.losses import BnpoLoss, DrGrpoLoss, GrpoLoss, GspoLoss, Loss


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one micro-batch.

    Attributes:
        sampling_logprob_N: log-probability (nats) under the sampler; NaN = unknown, it counts as "no difference".
        advantage_N: the same for all terms of a sequence.
        sequence_N: number of the term's sequence, 0 <= number < S.
    """

    sampling_logprob_N: Tensor
    advantage_N: Tensor
    sequence_N: Tensor


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """What is counted over the whole optimiser batch before anything is computed: no result depends on the split into micro-batches.

    Attributes:
        num_terms_S: terms of each sequence, in all micro-batches together; at least 1.
        group_S: number of each sequence's group, 0 <= number < G.
    """

    num_terms_S: Tensor
    group_S: Tensor

    @property
    def num_terms(self) -> int:
        return int(self.num_terms_S.sum())

    @property
    def num_sequences(self) -> int:
        return len(self.num_terms_S)

    @property
    def num_groups(self) -> int:
        return int(self.group_S.max()) + 1

    def group_terms(self) -> Tensor:
        """Terms of each sequence's whole group, [S]."""
        counts_G = torch.zeros(self.num_groups, dtype=self.num_terms_S.dtype, device=self.num_terms_S.device)
        return counts_G.index_add(0, self.group_S, self.num_terms_S)[self.group_S]

    @classmethod
    def of_one(cls, sequence_N: Tensor) -> BatchTotals:
        """The totals of a batch that is one micro-batch of one group; every sequence number below the largest has a term."""
        num_terms_S = torch.bincount(sequence_N)
        return cls(num_terms_S, torch.zeros_like(num_terms_S))


def sequence_sums(values_N: Tensor, sequence_N: Tensor, totals: BatchTotals) -> Tensor:
    """Sum of the values of each sequence, [S]; 0 for a sequence without a term here."""
    sums_S = torch.zeros(totals.num_sequences, dtype=values_N.dtype, device=values_N.device)
    return sums_S.index_add(0, sequence_N, values_N)


def sequence_means(values_N: Tensor, sequence_N: Tensor, totals: BatchTotals, known_S: Tensor | None = None) -> Tensor:
    """Each term's mean over its sequence, [N].

    Args:
        known_S: means of the sequences that have terms in other micro-batches too (NaN for the others): their terms here are not all.
    """
    means_S = sequence_sums(values_N, sequence_N, totals) / totals.num_terms_S
    if known_S is not None:
        means_S = torch.where(known_S.isnan(), means_S, known_S)
    return means_S[sequence_N]


def term_weights(loss: Loss, terms: Terms, totals: BatchTotals) -> Tensor | None:
    """Weight of each term in the sum that is divided by `divisor`, [N]; None = 1 for all."""
    if isinstance(loss, GrpoLoss | GspoLoss):
        return 1.0 / totals.num_terms_S[terms.sequence_N]
    if isinstance(loss, BnpoLoss):
        return 1.0 / totals.group_terms()[terms.sequence_N]
    return None


def divisor(loss: Loss, totals: BatchTotals) -> float:
    """What the sum over all terms of the batch is divided by, once.

    Example (three sequences of 100, 200 and 400 terms): a token's share is 1/700 in `dapo`, 1/300, 1/600 and 1/1200 in `grpo`,
    1/1536 each in `dr_grpo` with `max_length=512`.
    """
    if isinstance(loss, GrpoLoss | GspoLoss):
        return float(totals.num_sequences)
    if isinstance(loss, DrGrpoLoss):
        return float(totals.num_sequences * loss.max_length)
    if isinstance(loss, BnpoLoss):
        return float(totals.num_groups)
    return float(totals.num_terms)
