"""Correction of the difference between the probabilities of the sampler and of the trainer, for the same weights.

The gap of a token is trainer - sampler log-probability before the step's first update. Token weights are exp(gap), truncated (TIS) or
masked (IcePop); the geometric mask leaves out whole trajectories by the *mean* gap. Differs from TRL's default, which masks by the
sum: there long trajectories exceed any bound by chance.

Shapes: N terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from journeyman.trainer.losses.kl import MAX_LOG_RATIO
from journeyman.types.losses import GeometricMask, Mismatch, TokenMask, TokenTruncate


def gaps(trainer_logprob_N: Tensor, sampler_logprob_N: Tensor) -> Tensor:
    """Trainer - sampler log-probability of each token, [N], within +-20; 0 where the sampler's is unknown (NaN)."""
    gap_N = trainer_logprob_N - sampler_logprob_N
    return torch.where(sampler_logprob_N.isnan(), torch.zeros_like(gap_N), gap_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def is_by_token(mismatch: Mismatch) -> bool:
    """Whether tokens are weighted; the clipped ratio is then to the trainer's log-probabilities, not to the sampler's."""
    return isinstance(mismatch, TokenTruncate | TokenMask)


def mismatch_weights(mismatch: Mismatch, gap_N: Tensor, mean_gap_N: Tensor | None = None) -> Tensor | None:
    """What each token's loss is multiplied by, [N]; None = 1 for all.

    Args:
        mean_gap_N: mean gap of the token's trajectory; needed by the geometric mask.

    Example (gaps 0.2, 1.0, -1.0): token_truncate(2.0) gives 1.2214, 2.0, 0.3679; token_mask(0.5, 5.0) gives 1.2214, 2.7183, 0.
    """
    if isinstance(mismatch, TokenTruncate):
        return gap_N.exp().clamp(max=mismatch.max_weight)
    if isinstance(mismatch, TokenMask):
        weight_N = gap_N.exp()
        is_inside_N = (weight_N >= mismatch.min_weight) & (weight_N <= mismatch.max_weight)
        return torch.where(is_inside_N, weight_N, torch.zeros_like(weight_N))
    if isinstance(mismatch, GeometricMask):
        if mean_gap_N is None:
            raise ValueError("the geometric mask needs the mean gap of each trajectory")
        ratio_N = mean_gap_N.exp()
        return ((ratio_N >= mismatch.min_ratio) & (ratio_N <= mismatch.max_ratio)).to(gap_N.dtype)
    return None
