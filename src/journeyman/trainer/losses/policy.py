"""The policy-gradient losses of the GRPO family on flat loss terms: value, gradient, and what is logged of them.

Sources: GRPO (DeepSeekMath 2402.03300), Dr. GRPO (2503.20783), DAPO (2503.14476), CISPO (MiniMax-M1 2506.13585), GSPO (2507.18071).
Differences: the behaviour policy is the sampler itself (its stored log-probabilities), so no second forward pass is needed and the
ratio also corrects what little the sampler's arithmetic differs, unless tokens are weighted by a mismatch correction; a trajectory of
several segments counts once; log-ratios are limited to +-20. The *sum* over terms is returned, the caller divides by `divisor` of the
whole optimiser batch: the result does not depend on the split into micro-batches. `bnpo`, which TRL divides by what happens to lie in
one pass, is here the mean of each group.

A ratio a trajectory is written term by term as GSPO-token: its value is the trajectory's, its gradient flows through the term's own
log-probability. Summed over a trajectory this is the gradient of GSPO.

The sampler's probabilities differ from the trainer's for the same weights. The gap of a token is trainer - sampler log-probability before
the step's first update. Token weights are exp(gap), truncated (TIS) or masked (IcePop); the geometric mask leaves out whole trajectories
by the *mean* gap. Differs from TRL's default, which masks by the sum: there long trajectories exceed any bound by chance.

Shapes: N loss terms, S sequences (trajectories) of the optimiser batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.trainer.losses.terms import BatchTotals, Terms, divisor, sequence_means, term_weights
from journeyman.types.losses import CispoLoss, GeometricMask, KlEstimator, Loss, Mismatch, TokenMask, TokenTruncate
from journeyman.types.settings import Grpo, has_sequence_ratio

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class Precomputed:
    """What was computed before this pass; None where there is nothing.

    Attributes:
        first_logprob_N: the trainer's log-probabilities before the step's first update; None in the first update: they are the current.
        base_logprob_N: those of the base model; with a KL coefficient they must be there.
        log_ratio_S, gap_S: mean log-ratio to the old policy and mean gap to the sampler of the sequences with terms in several
            micro-batches, NaN for the others.
    """

    first_logprob_N: Tensor | None = None
    base_logprob_N: Tensor | None = None
    log_ratio_S: Tensor | None = None
    gap_S: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss summed over the terms (differentiable), and sums of what is logged; keys that end in `_max` are maxima."""

    loss: Tensor
    sums: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Objective:
    """Each term's loss, and where its gradient is cut: below, above the allowed ratio."""

    loss_N: Tensor
    is_low_N: Tensor
    is_high_N: Tensor


def policy_loss(
    logprob_N: Tensor, entropy_N: Tensor, terms: Terms, settings: Grpo, totals: BatchTotals, precomputed: Precomputed | None = None
) -> PolicyLoss:
    """Sum over terms of weight x (mismatch weight x policy term + kl_coefficient x KL) - the entropy bonus.

    Divide by `divisor(settings.loss, totals)`.

    Args:
        logprob_N: the current policy's log-probabilities (nats), with gradient.
        entropy_N: of the distributions they come from (nats); with gradient when there is an entropy bonus.

    Example:
        >>> logprob, sampler = torch.tensor([-1.0, -0.5, -2.0]), torch.tensor([-1.2, -0.9, -1.5])
        >>> terms = Terms(sampler, torch.ones(3), torch.zeros(3, dtype=torch.long))
        >>> result = policy_loss(logprob, torch.zeros(3), terms, Grpo(), BatchTotals.of_one(terms.sequence_N))
        >>> round(float(result.loss), 6)   # -(1.221403 + 1.28 + 0.606531)
        -3.107934
    """
    precomputed = precomputed or Precomputed()
    first_N = logprob_N.detach() if precomputed.first_logprob_N is None else precomputed.first_logprob_N
    gap_N = gaps(first_N, terms.sampling_logprob_N)
    token_log_ratio_N = log_ratios(logprob_N, terms, settings, precomputed.first_logprob_N)
    log_ratio_N = token_log_ratio_N
    if has_sequence_ratio(settings.loss):
        mean_N = sequence_means(token_log_ratio_N.detach(), terms.sequence_N, totals, precomputed.log_ratio_S)
        log_ratio_N = mean_N + (logprob_N - logprob_N.detach())
    importance_ratio_N = log_ratio_N.exp()
    objective = _objective(logprob_N, importance_ratio_N, terms.advantage_N, settings.loss)
    correction_N = _correction(settings, gap_N, terms, totals, precomputed)
    loss_N = objective.loss_N if correction_N is None else objective.loss_N * correction_N
    kl_N = None
    if settings.kl_coefficient > 0.0:
        if precomputed.base_logprob_N is None:
            raise ValueError("a KL coefficient needs the base model's log-probabilities")
        kl_N = kl_terms(logprob_N, precomputed.base_logprob_N, settings.kl_estimator)
        if settings.kl_importance_weight:
            kl_N = kl_N * token_log_ratio_N.exp()
        loss_N = loss_N + settings.kl_coefficient * kl_N
    weight_N = term_weights(settings.loss, terms, totals)
    loss = (loss_N if weight_N is None else loss_N * weight_N).sum()
    if settings.entropy_bonus > 0.0:
        # A mean over tokens whatever the loss divides by, so the coefficient means the same for each.
        share = divisor(settings.loss, totals) / totals.num_terms
        loss = loss - settings.entropy_bonus * share * entropy_N.sum()
    with torch.no_grad():
        sums = _logged(loss, importance_ratio_N, objective, entropy_N) | _logged_gaps(first_N, gap_N, correction_N, settings)
        if kl_N is not None:
            sums["kl_penalty"] = float(kl_N.sum())
    return PolicyLoss(loss, sums)


def log_ratios(logprob_N: Tensor, terms: Terms, settings: Grpo, first_logprob_N: Tensor | None) -> Tensor:
    """log(current / old policy) of each token, [N], within +-20.

    The old policy is the sampler; with token weights against mismatch it is the trainer before the step, and so it is where the
    sampler's log-probability is unknown.
    """
    first_N = logprob_N.detach() if first_logprob_N is None else first_logprob_N
    sampler_N = terms.sampling_logprob_N
    old_N = first_N if is_by_token(settings.mismatch) else torch.where(sampler_N.isnan(), first_N, sampler_N)
    return (logprob_N - old_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def kl_terms(logprob_N: Tensor, base_logprob_N: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """Estimates of KL(policy || base) from the log-probabilities of sampled tokens, [N], nats.

    With d = base - policy (Schulman, "Approximating KL Divergence", 2020): k1 = -d, unbiased, may be negative; k2 = d^2 / 2, biased, low
    variance; k3 = exp(d) - d - 1, unbiased, never negative. As a *loss* they differ in their gradients: on-policy that of k1 is zero in
    expectation, that of k2 the gradient of KL(policy || base), that of k3 the gradient of KL(base || policy). Above a difference of 20 the
    exp of k3 goes on as its tangent: finite, and it still pulls.

    Example (policy -1.0, base -1.1): k1 0.1, k2 0.005, k3 0.004837.
    """
    difference_N = base_logprob_N - logprob_N
    if estimator == "k1":
        return -difference_N
    if estimator == "k2":
        return difference_N**2 / 2
    capped_N = difference_N.clamp(max=MAX_LOG_RATIO)
    return capped_N.exp() * (1.0 + difference_N - capped_N) - difference_N - 1.0


def gaps(trainer_logprob_N: Tensor, sampling_logprob_N: Tensor) -> Tensor:
    """Trainer - sampler log-probability of each token, [N], within +-20; 0 where the sampler's is unknown (NaN)."""
    gap_N = trainer_logprob_N - sampling_logprob_N
    return torch.where(sampling_logprob_N.isnan(), torch.zeros_like(gap_N), gap_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


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


def _objective(logprob_N: Tensor, ratio_N: Tensor, advantage_N: Tensor, loss: Loss) -> _Objective:
    if isinstance(loss, CispoLoss):
        weight_N = ratio_N.detach().clamp(loss.min_weight, loss.max_weight)
        return _Objective(-weight_N * advantage_N * logprob_N, ratio_N < loss.min_weight, ratio_N > loss.max_weight)
    low, high = 1.0 - loss.clip_low, 1.0 + loss.clip_high
    clipped_N = ratio_N.clamp(low, high)
    delta = getattr(loss, "delta", None)
    capped_N = ratio_N if delta is None else ratio_N.clamp(max=delta)
    loss_N = -torch.minimum(capped_N * advantage_N, clipped_N * advantage_N)
    is_low_N = (ratio_N < low) & (advantage_N < 0)
    is_high_N = (ratio_N > high) & (advantage_N > 0)
    if delta is not None:
        is_high_N = is_high_N | ((ratio_N > delta) & (advantage_N < 0))
    return _Objective(loss_N, is_low_N, is_high_N)


def _correction(settings: Grpo, gap_N: Tensor, terms: Terms, totals: BatchTotals, precomputed: Precomputed) -> Tensor | None:
    mean_gap_N = None
    if isinstance(settings.mismatch, GeometricMask):
        mean_gap_N = sequence_means(gap_N, terms.sequence_N, totals, precomputed.gap_S)
    return mismatch_weights(settings.mismatch, gap_N, mean_gap_N)


def _logged(loss: Tensor, ratio_N: Tensor, objective: _Objective, entropy_N: Tensor) -> dict[str, float]:
    return {
        "loss": float(loss.detach()),
        "ratio": float(ratio_N.sum()),
        "clipped_low": float(objective.is_low_N.sum()),
        "clipped_high": float(objective.is_high_N.sum()),
        "entropy": float(entropy_N.sum()),
    }


def _logged_gaps(first_N: Tensor, gap_N: Tensor, correction_N: Tensor | None, settings: Grpo) -> dict[str, float]:
    weight_N = gap_N.exp()
    size_N = gap_N.abs()
    probability_gap_N = (first_N.exp() - (first_N - gap_N).exp()).abs()
    sums = {
        "gap": float(size_N.sum()),
        "gap_max": _maximum(size_N),
        "probability_gap": float(probability_gap_N.sum()),
        "probability_gap_max": _maximum(probability_gap_N),
        "gap_k3": float((weight_N - gap_N - 1.0).sum()),
        "weight": float(weight_N.sum()),
        "squared_weight": float((weight_N**2).sum()),
        "masked": 0.0 if correction_N is None else float((correction_N == 0).sum()),
        "truncated_weights": 0.0,
    }
    if isinstance(settings.mismatch, TokenTruncate):
        sums["truncated_weights"] = float((weight_N > settings.mismatch.max_weight).sum())
    return sums


def _maximum(values_N: Tensor) -> float:
    return float(values_N.max()) if len(values_N) else 0.0
