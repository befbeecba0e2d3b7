"""The clipped policy-gradient loss, token by token.

GRPO (DeepSeekMath 2402.03300) with the asymmetric clip and the token mean over the whole batch of DAPO (2503.14476), and the k3
penalty to the base model of the former. Differences: the behaviour policy is the sampler itself (its stored log-probabilities), so no
second forward pass is needed and the ratio also corrects what little the sampler's arithmetic differs; the sum is returned, the caller
divides by the number of terms of the whole optimiser batch, which makes the result independent of the split into micro-batches.

Shapes: N loss terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Sums over the N terms: the loss (differentiable), and what is logged of it (detached)."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    gap: Tensor
    gap_max: Tensor


def policy_loss(
    logprob_N: Tensor,
    old_logprob_N: Tensor,
    advantage_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    base_logprob_N: Tensor | None = None,
    kl_coefficient: float = 0.0,
) -> PolicyLoss:
    """Sum over tokens of -min(ratio * A, clip(ratio) * A) + kl_coefficient * k3.

    A NaN old log-probability counts as "no difference" (ratio 1 with gradient), never as a NaN loss.
    """
    old_N = torch.where(old_logprob_N.isnan(), logprob_N.detach(), old_logprob_N)
    log_ratio_N = (logprob_N - old_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_N = log_ratio_N.exp()
    clipped_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_N = -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)
    if base_logprob_N is not None and kl_coefficient > 0.0:
        loss_N = loss_N + kl_coefficient * k3(logprob_N, base_logprob_N)
    with torch.no_grad():
        is_clipped_N = clipped_N * advantage_N < ratio_N * advantage_N
        gap_N = log_ratio_N.abs()
        gap_max = gap_N.max() if len(gap_N) else torch.zeros(())
    return PolicyLoss(loss_N.sum(), ratio_N.detach().sum(), is_clipped_N.sum(), gap_N.sum(), gap_max)


def k3(logprob_N: Tensor, base_logprob_N: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || base) per token, never negative: exp(d) - d - 1 with d = base - policy."""
    difference_N = (base_logprob_N - logprob_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference_N.exp() - difference_N - 1.0
