"""Rewards to advantages: the estimators, behind the tie rule and the spread gate of `shaping.py`. Plain numbers; no tensors.

Estimators: `zscore` is (r - mean) / (population std + 1e-6) (DeepSeekMath 2402.03300, ddof 0 as in OpenPipe ART; TRL has ddof 1 and
1e-4); `mean` is r - mean (Dr. GRPO 2503.20783); `rank` is the average rank, centred and scaled to [-1, 1], ties sharing one rank; `rloo`
is r - mean of the others (2402.14740); `batch_std` is (r - mean of the group) / (population std of the whole batch + 1e-6) (Lite-PPO
2508.08221). Only `rank` depends on nothing but the order: z-scores keep the spacing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.shaping import Rewards, differ, tied
from journeyman.types.losses import Advantage

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class BatchAdvantages:
    """Advantages of each group (None = the group teaches nothing), and what was seen.

    `num_tied` counts rewards that share their value with another of their group, the tie rule applied; `num_rewards` all valid ones.
    """

    groups: tuple[list[float] | None, ...]
    num_without_spread: int
    num_tied: int
    num_rewards: int


def batch_advantages(groups: Sequence[Rewards], kind: Advantage, *, min_spread: float = 0.0, tie_width: float = 0.0) -> BatchAdvantages:
    """Advantages of a whole batch of groups, in the order of their rewards.

    A reward of None, NaN or infinity is excluded from the statistics and gets advantage 0. A group with fewer than two rewards, or
    whose rewards differ by no more than `min_spread`, carries no gradient: None.

    Example:
        >>> batch_advantages([[1.0, 0.0, None], [0.5, 0.5]], "mean").groups
        ([0.5, -0.5, 0.0], None)
    """
    shaped = [tied(group, tie_width) for group in groups]
    valid = [[reward for reward in group if reward is not None] for group in shaped]
    scale = 1.0 / (_deviation([reward for group in valid for reward in group]) + EPSILON) if kind == "batch_std" else 1.0
    out: list[list[float] | None] = []
    for group, rewards in zip(shaped, valid, strict=True):
        if not differ(group, min_spread):
            out.append(None)
            continue
        by_value = _by_value(rewards, kind, scale)
        out.append([0.0 if reward is None else by_value[reward] for reward in group])
    num_tied = sum(rewards.count(reward) > 1 for rewards in valid for reward in rewards)
    return BatchAdvantages(tuple(out), sum(group is None for group in out), num_tied, sum(map(len, valid)))


def _by_value(valid: Sequence[float], kind: Advantage, scale: float) -> dict[float, float]:
    if kind == "rank":
        return _ranks(valid)
    if kind == "zscore":
        scale = 1.0 / (_deviation(valid) + EPSILON)
    elif kind == "rloo":
        scale = len(valid) / (len(valid) - 1)
    mean = math.fsum(valid) / len(valid)
    return {reward: (reward - mean) * scale for reward in valid}


def _deviation(values: Sequence[float]) -> float:
    """Population standard deviation; 0 of nothing."""
    if not values:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _ranks(valid: Sequence[float]) -> dict[float, float]:
    ordered = sorted(valid)
    count = len(ordered)
    out = {}
    for value in set(ordered):
        first = ordered.index(value)
        average = first + (ordered.count(value) - 1) / 2
        out[value] = (average - (count - 1) / 2) * 2 / (count - 1)
    return out
