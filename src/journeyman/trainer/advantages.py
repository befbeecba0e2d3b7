"""Rewards of one group to advantages. Plain numbers; no tensors.

Estimators: `zscore` is (r - mean) / (population std + 1e-6) (DeepSeekMath 2402.03300, ddof 0 as in OpenPipe ART); `mean` is r - mean
(Dr. GRPO 2503.20783); `rank` is the average rank, centred and scaled to [-1, 1], ties sharing one rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from journeyman.types.settings import Advantage

EPSILON = 1e-6


def compute_advantages(rewards: Sequence[float | None], kind: Advantage = "zscore", min_spread: float = 1e-3) -> list[float] | None:
    """Advantages in the order of `rewards`, or None when the group teaches nothing.

    A reward of None (or NaN) is excluded from the statistics and gets advantage 0. A group with fewer than two rewards, or whose
    rewards differ by no more than `min_spread`, carries no gradient: None.

    Example:
        >>> compute_advantages([1.0, 0.0, None], "mean")
        [0.5, -0.5, 0.0]
    """
    valid = [reward for reward in rewards if reward is not None and not math.isnan(reward)]
    if len(valid) < 2 or max(valid) - min(valid) <= min_spread:
        return None
    by_value = _ranks(valid) if kind == "rank" else _standardised(valid, divide=kind == "zscore")
    return [by_value[reward] if reward is not None and not math.isnan(reward) else 0.0 for reward in rewards]


def _standardised(valid: Sequence[float], *, divide: bool) -> dict[float, float]:
    mean = math.fsum(valid) / len(valid)
    deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in valid) / len(valid))
    scale = 1.0 / (deviation + EPSILON) if divide else 1.0
    return {reward: (reward - mean) * scale for reward in valid}


def _ranks(valid: Sequence[float]) -> dict[float, float]:
    ordered = sorted(valid)
    count = len(ordered)
    out = {}
    for value in set(ordered):
        first = ordered.index(value)
        average = first + (ordered.count(value) - 1) / 2
        out[value] = (average - (count - 1) / 2) * 2 / (count - 1)
    return out
