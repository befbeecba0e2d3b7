"""Estimates of KL(policy || base) from the log-probabilities of sampled tokens (Schulman, "Approximating KL Divergence", 2020).

With d = base - policy: k1 = -d, unbiased, may be negative; k2 = d^2 / 2, biased, low variance; k3 = exp(d) - d - 1, unbiased, never
negative. As a *loss* they differ in their gradients: on-policy that of k1 is zero in expectation, that of k2 the gradient of
KL(policy || base), that of k3 the gradient of KL(base || policy).
"""

from __future__ import annotations

from torch import Tensor

from journeyman.types.losses import KlEstimator

MAX_LOG_RATIO = 20.0


def kl_terms(logprob_N: Tensor, base_logprob_N: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """The estimate of each token, [N], nats. Above a difference of 20 the exp of k3 goes on as its tangent: finite, and it still pulls.

    Example (policy -1.0, base -1.1): k1 0.1, k2 0.005, k3 0.004837.
    """
    difference_N = base_logprob_N - logprob_N
    if estimator == "k1":
        return -difference_N
    if estimator == "k2":
        return difference_N**2 / 2
    capped_N = difference_N.clamp(max=MAX_LOG_RATIO)
    return capped_N.exp() * (1.0 + difference_N - capped_N) - difference_N - 1.0
