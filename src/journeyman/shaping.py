"""What rewards become before they are compared: the overlong penalty, the tie rule, and whether a group then teaches anything.

One place, because trainer, rewards and recipes must agree on which groups have spread. Plain numbers; not for advantages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from journeyman.types.losses import OverlongPenalty
from journeyman.types.settings import Grpo
from journeyman.types.trajectory import Group, Trajectory

Rewards = Sequence[float | None]
#: Rewards are sums of decimal fractions: 0.95 - 0.9 is not more than 0.05, whatever binary makes of it.
ROUNDING: Final = 1e-9


def has_spread(group: Group, settings: Grpo) -> bool:
    """Whether a scored group carries a gradient under these settings: what the trainer decides, known before it is asked."""
    penalties = overlong_penalties(group.trajectories, settings.overlong)
    return differ(tied(penalised(group.rewards, penalties), settings.tie_width), settings.min_spread)


def differ(rewards: Rewards, min_spread: float) -> bool:
    """Whether there are two rewards that lie further apart than `min_spread`."""
    known = [reward for reward in rewards if reward is not None]
    return len(known) > 1 and max(known) - min(known) > min_spread + ROUNDING


def overlong_penalties(trajectories: Sequence[Trajectory], penalty: OverlongPenalty | None) -> list[float]:
    """What is added to the reward of each; nothing (an empty list) where the penalty is off."""
    return [] if penalty is None else [overlong_penalty(one.num_sampled_tokens, penalty) for one in trajectories]


def overlong_penalty(num_tokens: int, penalty: OverlongPenalty) -> float:
    """DAPO eq. 13 times the coefficient: what is added to the reward of a trajectory of `num_tokens` sampled tokens.

    Example:
        >>> [overlong_penalty(length, OverlongPenalty(max_tokens=100, cache_tokens=20)) for length in (80, 90, 100, 101)]
        [0.0, -0.5, -1.0, -1.0]
    """
    free = penalty.max_tokens - penalty.cache_tokens
    if num_tokens <= free:
        return 0.0
    return penalty.coefficient * max((free - num_tokens) / penalty.cache_tokens, -1.0)


def penalised(rewards: Rewards, penalties: Sequence[float]) -> list[float | None]:
    """The rewards with their penalties, if there are any; what is no finite number is None."""
    known = [reward if reward is not None and math.isfinite(reward) else None for reward in rewards]
    if not penalties:
        return known
    return [None if reward is None else reward + penalty for reward, penalty in zip(known, penalties, strict=True)]


def tied(rewards: Rewards, width: float) -> list[float | None]:
    """The rewards with those that lie within `width` of the lowest of them replaced by their mean; what is no number is None.

    Example:
        >>> tied([0.5, 0.75, 1.0, None], 0.25)
        [0.625, 0.625, 1.0, None]
    """
    means = tie_means([reward for reward in rewards if reward is not None and math.isfinite(reward)], width)
    return [None if reward is None else means.get(reward) for reward in rewards]


def tie_means(values: Sequence[float], width: float) -> dict[float, float]:
    """What each value counts as: the mean of those that lie within `width` of the lowest of them; 0 changes nothing."""
    clusters: list[list[float]] = []
    for value in sorted(values):
        is_near = bool(clusters) and (value == clusters[-1][0] or (width > 0.0 and value - clusters[-1][0] <= width + ROUNDING))
        if is_near:
            clusters[-1].append(value)
        else:
            clusters.append([value])
    # A mean of equal values may differ from them in its last bit.
    return {value: value if one[0] == one[-1] else math.fsum(one) / len(one) for one in clusters for value in one}
