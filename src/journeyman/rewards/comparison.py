"""Comparing the attempts of a group: who is shown with whom, one scale for scores of different calls, and fair rewards of them.

A call over many attempts confuses judges, and scores of different calls are not on one scale. So there are two rounds of small calls. The
second deals the attempts of a call to all calls, each at the mirrored place (a judge that favours early places favours nobody). Nobody is
knocked out, as in ArenaRL (2601.06487): GRPO needs the low places told apart as well. Plain functions on numbers, and the gates that words
cannot open; not for calling a model (judge_model.py).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from journeyman.shaping import differ, tie_means
from journeyman.types.trajectory import Trajectory

RewardKind = Literal["scores", "ranks"]

MAX_LISTWISE = 5
# Ridge on a call's (scale, offset). Stronger suits a judge that is only noisy, weaker one that only drifts; chosen in simulation.
_RIDGE = (0.3, 0.5)
_NUM_ITERATIONS = 8
_WRITTEN_CALL = re.compile(r"<tool_call|<function[=_]|\"(?:name|function|arguments)\"\s*:", re.IGNORECASE)
# Openers that say nothing and are known to fool judging models ("master keys", 2507.08794), alone or with punctuation.
_OPENER = re.compile(
    r"(?:thought process|let'?s (?:think|solve)(?: (?:this )?(?:problem )?step by step)?"
    r"|(?:the )?(?:final )?(?:answer|solution|explanation)(?: is)?"
    r"|sure|certainly|of course|here is (?:the|my) (?:answer|solution)|solución|réponse|lösung|antwort|解|答案|解答|解説|思考过程)",
    re.IGNORECASE,
)


def plan_calls(count: int, seed: int | str) -> list[tuple[int, ...]]:
    """The calls over `count` attempts, each a tuple of indexes in the order shown: the first half of the list is the first round.

    Up to 5 attempts: one call, and the same in exactly reversed order.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    if count <= MAX_LISTWISE:
        return [tuple(order), tuple(reversed(order))]
    num_calls = math.ceil(count / MAX_LISTWISE)
    first = [order[start::num_calls] for start in range(num_calls)]
    dealt: list[list[tuple[float, int]]] = [[] for _ in range(num_calls)]
    for row, members in enumerate(first):
        for place, index in enumerate(members):
            dealt[(place * num_calls // len(members) + row) % num_calls].append((place / max(1, len(members) - 1), index))
    second = [[index for _, index in sorted(call, key=lambda item: -item[0])] for call in _levelled(dealt)]
    return [tuple(call) for call in (*first, *second)]


def _levelled(calls: list[list[tuple[float, int]]]) -> list[list[tuple[float, int]]]:
    """Calls whose sizes differ by one at most: the last of a long one moves to a short one."""
    while max(map(len, calls)) - min(map(len, calls)) > 1:
        min(calls, key=len).append(max(calls, key=len).pop())
    return calls


@dataclass(frozen=True, slots=True)
class _Seen:
    """One score. `place`: from 0.5 for the first of its call to -0.5 for the last."""

    call: int
    attempt: int
    place: float
    score: float


def link(count: int, calls: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Quality of each attempt on one scale in [0, 1], from calls and their scores; then what each round alone says, for comparing them.

    `scores[c][p]` is the score of attempt `calls[c][p]`. Every attempt must be in one call of each half of `calls`. Two calls (the same
    attempts in reversed order) give the plain mean. More are fitted by alternating least squares: score = scale * quality + offset +
    slope * place, one (scale, offset) per call, held near (1, 0), and one slope for the judge.
    """
    seen = [
        _Seen(call, attempt, 0.5 - at / (len(members) - 1) if len(members) > 1 else 0.0, score)
        for call, members in enumerate(calls)
        for at, (attempt, score) in enumerate(zip(members, scores[call], strict=True))
    ]
    scales, slope = [(1.0, 0.0)] * len(calls), 0.0
    quality = _quality(count, seen, scales, slope)
    for _ in range(_NUM_ITERATIONS if len(calls) > 2 else 0):
        scales = [
            _scale([(quality[one.attempt], one.score - slope * one.place) for one in seen if one.call == call], sum(quality) / count)
            for call in range(len(calls))
        ]
        residuals = [scales[one.call][0] * (_on_common_scale(one, scales, slope) - quality[one.attempt]) for one in seen]
        slope += sum(one.place * residual for one, residual in zip(seen, residuals, strict=True)) / sum(one.place**2 for one in seen)
        quality = _quality(count, seen, scales, slope)
    rounds: list[list[float]] = [[0.0] * count, [0.0] * count]
    for one in seen:
        rounds[2 * one.call // len(calls)][one.attempt] = _on_common_scale(one, scales, slope)
    return [min(1.0, max(0.0, value)) for value in quality], rounds[0], rounds[1]


def _on_common_scale(one: _Seen, scales: Sequence[tuple[float, float]], slope: float) -> float:
    scale, offset = scales[one.call]
    return (one.score - offset - slope * one.place) / scale


def _quality(count: int, seen: Sequence[_Seen], scales: Sequence[tuple[float, float]], slope: float) -> list[float]:
    """The mean of each attempt's scores on the common scale; a score of a wide scale says more."""
    weights, totals = [0.0] * count, [0.0] * count
    for one in seen:
        weight = scales[one.call][0] ** 2
        weights[one.attempt] += weight
        totals[one.attempt] += weight * _on_common_scale(one, scales, slope)
    return [total / weight for total, weight in zip(totals, weights, strict=True)]


def _scale(pairs: Sequence[tuple[float, float]], centre: float) -> tuple[float, float]:
    """Scale and offset of a call from (quality, score), by ridge regression towards (1, 0); a scale stays between 1/4 and 4."""
    sum_q = sum(quality - centre for quality, _ in pairs)
    sum_qq = sum((quality - centre) ** 2 for quality, _ in pairs) + _RIDGE[0]
    sum_r = sum(score - quality for quality, score in pairs)
    sum_qr = sum((quality - centre) * (score - quality) for quality, score in pairs)
    size = len(pairs) + _RIDGE[1]
    determinant = sum_qq * size - sum_q**2
    scale = min(4.0, max(0.25, 1.0 + (sum_qr * size - sum_r * sum_q) / determinant))
    return scale, (sum_qq * sum_r - sum_q * sum_qr) / determinant + centre * (1.0 - scale)


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

    Ties and the spread gate are those of training (`shaping.py`).
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


def gate_level(attempt: Trajectory) -> int:
    """2: a call ran. 1: neither. 0: it tried to call and nothing ever parsed, or it says nothing (empty, punctuation, a bare opener)."""
    events = attempt.tool_events
    if any(not event.is_error for event in events):
        return 2
    if events and all(event.arguments is None for event in events):
        return 0
    texts = [turn.reply.content or "" for turn in attempt.turns]
    has_calls = bool(events) or any(turn.reply.tool_calls for turn in attempt.turns)
    if not has_calls and any(_WRITTEN_CALL.search(text) for text in texts):
        return 0
    return 0 if not has_calls and all(says_nothing(text) for text in texts) else 1


def says_nothing(text: str) -> bool:
    """Whether a reply is empty, only punctuation, or a lone opener.

    Example:
        >>> says_nothing(" : "), says_nothing("Thought process:"), says_nothing("It is 5.")
        (True, True, False)
    """
    bare = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    return not bare or _OPENER.fullmatch(bare) is not None


def gated(scores: Sequence[float], attempts: Sequence[Trajectory]) -> list[float]:
    """Scores with level 0 held at or below the lowest score of level 2."""
    levels = [gate_level(attempt) for attempt in attempts]
    ran = [score for score, level in zip(scores, levels, strict=True) if level == 2]
    cap = min(ran, default=1.0)
    return [min(score, cap) if level == 0 else score for score, level in zip(scores, levels, strict=True)]
