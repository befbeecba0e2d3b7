"""From a judge's scores to fair rewards: ties, the spread gate, ranks; and how far two orders agree. Plain functions on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

RewardKind = Literal["scores", "ranks"]


def tied(scores: Sequence[float], width: float) -> list[float]:
    """Scores of which any within `width` of the lowest of their cluster share the cluster's mean. Order is kept, width 0 changes nothing.

    Example:
        >>> tied([0.5, 0.9, 0.52], 0.03)
        [0.51, 0.9, 0.51]
    """
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    out = list(scores)
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and scores[order[end]] - scores[order[start]] <= width + 1e-12:
            continue
        cluster = order[start:end]
        if scores[cluster[-1]] > scores[cluster[0]]:
            mean = sum(scores[index] for index in cluster) / len(cluster)
            for index in cluster:
                out[index] = mean
        start = end
    return out


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
    """Rewards of one group. Scores that differ by less than `min_spread` in all become equal: jitter teaches nothing."""
    if scores and max(scores) - min(scores) < min_spread:
        mean = sum(scores) / len(scores)
        return [mean for _ in scores] if kind == "scores" else [0.5 for _ in scores]
    even = tied(scores, tie_width)
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
