"""From a judge's scores to fair rewards: behind the tie rule and the spread gate of training, ranks; and how far two orders agree.

Plain functions on numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from journeyman.types.shaping import differ, tie_means

RewardKind = Literal["scores", "ranks"]


def ranks(scores: Sequence[float]) -> list[float]:
    """Ranks from 0 (worst) to 1 (best), equal scores share their mean rank; a single score is 0.5.

    Example:
        >>> ranks([0.2, 0.9, 0.2])
        [0.25, 1.0, 0.25]
    """
    if len(scores) < 2:
        return [0.5 for _ in scores]
    return [
        (sum(other < score for other in scores) + 0.5 * (sum(other == score for other in scores) - 1)) / (len(scores) - 1)
        for score in scores
    ]


def fair_rewards(scores: Sequence[float], *, kind: RewardKind = "scores", tie_width: float = 0.0, min_spread: float = 0.0) -> list[float]:
    """Rewards of one group. Scores that differ by no more than `min_spread` in all become equal: jitter teaches nothing.

    Ties and the gate are those of training (`types/shaping.py`).
    """
    if scores and not differ(scores, min_spread):
        mean = sum(scores) / len(scores)
        return [mean for _ in scores] if kind == "scores" else [0.5 for _ in scores]
    means = tie_means(scores, tie_width)
    even = [means[score] for score in scores]
    return even if kind == "scores" else ranks(even)


def order_agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The share of pairs that two readings of the same attempts put in the same order; half for a pair that one of them ties, and
    pairs that both tie do not count. 0.5 is chance. None when no pair counts."""
    points = []
    for left, right in combinations(range(len(first)), 2):
        one, other = _sign(first[left] - first[right]), _sign(second[left] - second[right])
        if one or other:
            points.append(0.5 if not (one and other) else float(one == other))
    return sum(points) / len(points) if points else None


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)
