"""Large groups in small listwise calls: two rounds in which every attempt meets others, from the opposite place; then one scale.

A listwise call over many attempts confuses judges, and scores of different calls are not on one scale. Of N attempts, m = ceil(N / 5)
calls make the first round; the second deals them anew so that the attempts of one call spread over all calls, each at the mirrored
place (a judge that favours early places favours nobody). Every attempt is shown twice, O(N). Differs from the seeded single
elimination of ArenaRL (2601.06487): nobody is knocked out, so that the low places are told apart as well (GRPO uses them all), and a
group of 8 needs 4 calls, not 14.

Scores are then put on one scale by least squares: a judge whose calls agree is averaged, a judge whose scale drifts from call to call is
corrected. Not for calling a model (ruler.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

MAX_LISTWISE = 5
# Ridge on a call's (scale, offset). Stronger suits a judge that is only noisy, weaker one that only drifts; chosen in simulation.
_RIDGE = (0.3, 0.5)
_NUM_ITERATIONS = 8


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


def link(count: int, calls: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Quality of each attempt on one scale in [0, 1], from calls and their scores; then what each round alone says, for comparing them.

    `scores[c][p]` is the score of attempt `calls[c][p]`. Every attempt must be in one call of each half of `calls`. With two calls
    (the same attempts in reversed order) quality is the plain mean.
    """
    fit = _Fit(count, calls, scores)
    if len(calls) > 2:
        for _ in range(_NUM_ITERATIONS):
            fit.improve()
    rounds: list[list[float]] = [[0.0] * count, [0.0] * count]
    for call, members in enumerate(calls):
        for index, value in zip(members, fit.values(call), strict=True):
            rounds[2 * call // len(calls)][index] = value
    return [min(1.0, max(0.0, value)) for value in fit.quality], rounds[0], rounds[1]


class _Fit:
    """s = a·q + b + slope·place, by alternating least squares: one (a, b) per call, held near (1, 0), and one slope for the judge."""

    def __init__(self, count: int, calls: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> None:
        self._calls, self._scores, self._count = calls, scores, count
        self._places = [[_place(place, len(members)) for place in range(len(members))] for members in calls]
        self._scale, self._offset, self._slope = [1.0] * len(calls), [0.0] * len(calls), 0.0
        self.quality = self._mean_values()

    def values(self, call: int) -> list[float]:
        """A call's scores on the common scale."""
        offset, scale = self._offset[call], self._scale[call]
        return [(score - offset - self._slope * place) / scale for score, place in zip(self._scores[call], self._places[call], strict=True)]

    def improve(self) -> None:
        """One round: calls from qualities, the slope over places, qualities from calls."""
        centre = sum(self.quality) / self._count
        for call, members in enumerate(self._calls):
            targets = [score - self._slope * place for score, place in zip(self._scores[call], self._places[call], strict=True)]
            known = [self.quality[index] - centre for index in members]
            self._scale[call], offset = _fit(known, [target - centre for target in targets], _RIDGE)
            self._offset[call] = offset + centre - self._scale[call] * centre
        steps = [(place, residual) for call in range(len(self._calls)) for place, residual in self._residuals(call)]
        self._slope += sum(place * residual for place, residual in steps) / max(1e-9, sum(place * place for place, _ in steps))
        self.quality = self._mean_values()

    def _residuals(self, call: int) -> list[tuple[float, float]]:
        out = []
        for index, score, place in zip(self._calls[call], self._scores[call], self._places[call], strict=True):
            expected = self._scale[call] * self.quality[index] + self._offset[call] + self._slope * place
            out.append((place, score - expected))
        return out

    def _mean_values(self) -> list[float]:
        weight, total = [0.0] * self._count, [0.0] * self._count
        for call, members in enumerate(self._calls):
            for index, value in zip(members, self.values(call), strict=True):
                weight[index] += self._scale[call] ** 2
                total[index] += self._scale[call] ** 2 * value
        return [value / size for value, size in zip(total, weight, strict=True)]


def _levelled(calls: list[list[tuple[float, int]]]) -> list[list[tuple[float, int]]]:
    """Calls whose sizes differ by one at most: the last of a long one moves to a short one."""
    while max(map(len, calls)) - min(map(len, calls)) > 1:
        min(calls, key=len).append(max(calls, key=len).pop())
    return calls


def _place(place: int, size: int) -> float:
    """From 0.5 for the first place to -0.5 for the last."""
    return 0.5 - place / (size - 1) if size > 1 else 0.0


def _fit(quality: Sequence[float], scores: Sequence[float], ridge: tuple[float, float]) -> tuple[float, float]:
    """Scale and offset of one call by ridge regression towards (1, 0); a scale stays between 1/4 and 4."""
    sum_q, sum_qq = sum(quality), sum(value * value for value in quality)
    left = [value - one for value, one in zip(scores, quality, strict=True)]
    sum_r, sum_qr = sum(left), sum(one * value for one, value in zip(quality, left, strict=True))
    a11, a12, a22 = sum_qq + ridge[0], sum_q, len(quality) + ridge[1]
    determinant = a11 * a22 - a12 * a12
    scale = 1.0 + (sum_qr * a22 - sum_r * a12) / determinant
    offset = (a11 * sum_r - a12 * sum_qr) / determinant
    return min(4.0, max(0.25, scale)), offset
