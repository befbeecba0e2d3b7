"""Which steps of a run stay on disk: pure functions. Not for deleting: `checkpoints.py` and the service's `weights.py` do that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from journeyman.types.retention import Retention
from journeyman.types.runs import StepMetrics


def kept_steps(steps: Iterable[int], newest: int, retention: Retention, scores: Mapping[int, float]) -> frozenset[int]:
    """Those of `steps` to keep: the `newest` newest, the best by `scores`, and every n-th.

    Example:
        >>> sorted(kept_steps(range(7), 2, Retention(best=1, every=3), {1: 0.2, 4: 0.9, 5: 0.1}))
        [0, 3, 4, 5, 6]
    """
    present = sorted(set(steps))
    kept = set(present[-newest:])
    by_score = sorted((step for step in present if step in scores), key=lambda step: (scores[step], step))
    kept.update(by_score[len(by_score) - retention.best :] if retention.best else ())
    if retention.every:
        kept.update(step for step in present if step % retention.every == 0)
    return frozenset(kept)


def version_scores(rows: Iterable[StepMetrics], metric: str) -> dict[int, float]:
    """The score of each version by a metric of the steps.

    The attempts of training step n were made by version n - 1, so that is the one that a training metric tells about; a metric of
    another phase (`eval`) tells about the version of its own step.
    """
    return {row.step - (row.phase == "train"): row.metrics[metric] for row in rows if metric in row.metrics}
