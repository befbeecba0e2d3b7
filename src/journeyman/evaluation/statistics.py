"""Statistics of evaluations: intervals of a proportion, paired comparisons, the noise of a comparison with itself, pass@k and pass^k.

Plain functions on numbers; what the numbers are of is the caller's business. `scipy` is imported when an interval is asked for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal

from journeyman.errors import SettingError
from journeyman.types.record import Record

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95


class Interval(Record):
    """A mean with its interval, in the unit of the scores (a proportion for 0/1 scores)."""

    mean: float
    low: float
    high: float
    confidence: float = CONFIDENCE

    def text(self, *, as_points: bool = False) -> str:
        """ "72.0 % [61.4, 80.9]", or "+41.0 points [+30.2, +51.1]" for a difference of proportions."""
        if as_points:
            return f"{100 * self.mean:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class PairedComparison(Record):
    """Two variants on the same items, `before` and `after`.

    Attributes:
        won, lost: items where after is better, worse. both, neither: items where the two are equal, and the score is above 0, or 0
            (for 0/1 scores: solved by both, by neither).
        before, after: means with intervals; Wilson's for 0/1 scores, bootstrap otherwise.
        difference: mean of after - before, with a paired bootstrap interval over items (10,000 resamples, fixed seed).
        p_value: exact two-sided McNemar (the sign test on won and lost); 1.0 when nothing differs.
        num_missing: items left out, because a side has no measurement of them; `num_items` does not count them.
    """

    num_items: int
    won: int
    lost: int
    both: int
    neither: int
    before: Interval
    after: Interval
    difference: Interval
    p_value: float
    num_missing: int = 0

    def text(self) -> str:
        """One line for a report."""
        left_out = f" ({self.num_missing} more are missing on a side)" if self.num_missing else ""
        return (
            f"{self.difference.text(as_points=True)}, 95 % interval, {self.num_items} scenarios{left_out}: "
            f"{self.won} won, {self.lost} lost, {self.both} both, {self.neither} neither; McNemar p = {self.p_value:.2g}"
        )


class NoiseFloor(Record):
    """How far a variant differs from itself: differences between two halves of its own repeated attempts.

    `mean_size` is the mean and `high` the 95th percentile of |difference|, in the unit of the scores.
    """

    num_items: int
    num_splits: int
    mean_size: float
    high: float

    def text(self) -> str:
        return f"{100 * self.mean_size:.1f} points on average, below {100 * self.high:.1f} points in 95 % of {self.num_splits} splits"


def proportion_interval(
    num_successes: int, num_trials: int, *, method: Literal["wilson", "clopper_pearson"] = "wilson", confidence: float = CONFIDENCE
) -> Interval:
    """Interval of a proportion: Wilson's score interval, or Clopper and Pearson's exact one. No trials: [0, 1]."""
    if not 0 <= num_successes <= num_trials:
        raise SettingError(f"{num_successes} successes of {num_trials} trials is not a proportion")
    if num_trials == 0:
        return Interval(mean=0.0, low=0.0, high=1.0, confidence=confidence)
    from scipy.stats import binomtest

    name: Literal["wilson", "exact"] = "wilson" if method == "wilson" else "exact"
    found = binomtest(num_successes, num_trials).proportion_ci(confidence, method=name)
    return Interval(mean=num_successes / num_trials, low=float(found.low), high=float(found.high), confidence=confidence)


def bootstrap_interval(values: Sequence[float], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Interval:
    """Percentile bootstrap of the mean over items: one value per item, so attempts at one item stay together (clusters)."""
    if not values:
        raise SettingError("a bootstrap needs at least one value")
    mean = math.fsum(values) / len(values)
    if all(value == values[0] for value in values):
        return Interval(mean=mean, low=mean, high=mean)
    import numpy as np

    generator = np.random.default_rng(seed)
    array = np.asarray(values, dtype=np.float64)
    means = np.empty(num_resamples)
    # In blocks: 10,000 x items at once would be large for long lists.
    for start in range(0, num_resamples, 500):
        rows = generator.integers(0, len(array), size=(min(500, num_resamples - start), len(array)))
        means[start : start + len(rows)] = array[rows].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


def mean_interval(values: Sequence[float]) -> Interval:
    """Wilson's interval when every value is 0 or 1, a bootstrap over items otherwise."""
    if all(value in (0.0, 1.0) for value in values):
        return proportion_interval(int(sum(values)), len(values))
    return bootstrap_interval(values)


def paired_comparison(left: Sequence[float | None], right: Sequence[float | None], *, seed: int = 0) -> PairedComparison:
    """Compare two variants item by item; the sequences hold one score per item (0/1, or a mean over its attempts), in the same order.

    None is a missing measurement: its pair is left out of every number and counted in `num_missing`.

    Raises SettingError when the sequences differ in length, or no item is measured on both sides.

    Example:
        >>> found = paired_comparison([0, 0, 1, 0, None], [1, 1, 1, 0, 1])
        >>> found.won, found.num_items, found.num_missing
        (2, 4, 1)
    """
    if len(left) != len(right):
        raise SettingError(f"a paired comparison needs the same items on both sides, got {len(left)} and {len(right)} scores")
    pairs = [(one, other) for one, other in zip(left, right, strict=True) if one is not None and other is not None]
    if not pairs:
        raise SettingError(f"a paired comparison needs an item that is measured on both sides, got none of {len(left)}")
    before, after = zip(*pairs, strict=True)
    differences = [float(other) - float(one) for one, other in pairs]
    won, lost = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    equal = [one for one, value in zip(before, differences, strict=True) if value == 0]
    difference = bootstrap_interval(differences, seed=seed)
    if won == 0 or lost == 0:
        # A bootstrap of few, one-sided differences is too sure of itself: widen to what an exact interval allows.
        difference = _widen(difference, differences)
    return PairedComparison(
        num_items=len(differences),
        won=won,
        lost=lost,
        both=sum(value > 0 for value in equal),
        neither=sum(value <= 0 for value in equal),
        before=mean_interval(before),
        after=mean_interval(after),
        difference=difference,
        p_value=mcnemar_p_value(won, lost),
        num_missing=len(left) - len(pairs),
    )


def _widen(found: Interval, differences: Sequence[float]) -> Interval:
    """For 0/1 scores with all differences on one side: at least the exact interval of their share."""
    if not all(value in (-1.0, 0.0, 1.0) for value in differences):
        return found
    num_different = sum(value != 0 for value in differences)
    exact = proportion_interval(num_different, len(differences), method="clopper_pearson")
    if num_different == 0:
        return found.model_copy(update={"low": -exact.high, "high": exact.high})
    if found.mean > 0:
        return found.model_copy(update={"low": min(found.low, exact.low), "high": max(found.high, exact.high)})
    return found.model_copy(update={"low": min(found.low, -exact.high), "high": max(found.high, -exact.low)})


def mcnemar_p_value(won: int, lost: int) -> float:
    """Exact two-sided McNemar test: the chance of so uneven a split of won + lost fair coins."""
    if won + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost).pvalue)


def noise_floor(scores: Sequence[Sequence[float]], *, num_splits: int = 200, seed: int = 0) -> NoiseFloor:
    """A/A: split each item's repeated scores (at least 2) into two random halves and compare the halves, many times."""
    if not scores or any(len(item) < 2 for item in scores):
        raise SettingError("a noise floor needs at least 2 attempts per item", hint="evaluate with a group size of 2 or more, sampled")
    generator = random.Random(seed)
    sizes = []
    for _ in range(num_splits):
        total = 0.0
        for item in scores:
            mixed = generator.sample(list(item), len(item))
            half = len(mixed) // 2
            total += math.fsum(mixed[:half]) / half - math.fsum(mixed[half : 2 * half]) / half
        sizes.append(abs(total / len(scores)))
    sizes.sort()
    high = sizes[min(len(sizes) - 1, math.ceil(0.95 * len(sizes)) - 1)]
    return NoiseFloor(num_items=len(scores), num_splits=num_splits, mean_size=math.fsum(sizes) / len(sizes), high=high)


def pass_at_k(num_attempts: int, num_successes: int, k: int) -> float:
    """Chance that at least one of k attempts succeeds: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, 2107.03374, equation 1)."""
    _check_k(num_attempts, num_successes, k)
    return 1.0 - math.comb(num_attempts - num_successes, k) / math.comb(num_attempts, k)


def pass_hat_k(num_attempts: int, num_successes: int, k: int) -> float:
    """pass^k, the chance that all of k attempts succeed: C(c, k) / C(n, k) (tau-bench, 2406.12045)."""
    _check_k(num_attempts, num_successes, k)
    return math.comb(num_successes, k) / math.comb(num_attempts, k)


def _check_k(num_attempts: int, num_successes: int, k: int) -> None:
    if not 1 <= k <= num_attempts or not 0 <= num_successes <= num_attempts:
        raise SettingError(f"k = {k} with {num_successes} successes of {num_attempts} attempts: k must be in 1..attempts")
