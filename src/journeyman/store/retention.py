"""Which steps of a run stay on disk: pure functions. Not for deleting: `checkpoints.py` and the service's `weights.py` do that."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Retention


def kept_steps(steps: Iterable[int], newest: int, retention: Retention, scores: Mapping[int, float]) -> frozenset[int]:
    """Those of `steps` to keep: the `newest` newest, the best by `scores`, and every n-th.

    Example:
        >>> sorted(kept_steps(range(7), 2, Retention(best=1, every=3), {1: 0.2, 4: 0.9, 5: 0.1}))
        [0, 3, 4, 5, 6]
    """
    present = sorted(set(steps))
    kept = set(present[-newest:])
    sign = -1.0 if retention.best_is == "lowest" else 1.0
    by_score = sorted((step for step in present if step in scores), key=lambda step: (sign * scores[step], step))
    kept.update(by_score[-retention.best :] if retention.best else ())
    if retention.every:
        kept.update(step for step in present if step % retention.every == 0)
    return frozenset(kept)


def version_scores(rows: Iterable[StepMetrics], metric: str) -> dict[int, float]:
    """The score of each version by a metric of the steps.

    The attempts of training step n were made by version n - 1, so that is the one that a training metric tells about; a metric of
    another phase (`eval`) tells about the version of its own step.
    """
    return {row.step - (row.phase == "train"): row.metrics[metric] for row in rows if metric in row.metrics}


def missing_metric(rows: Sequence[StepMetrics], retention: Retention) -> str | None:
    """A line when the best versions were asked for, and no step has the metric: then none is kept. Nobody asked by the defaults.

    None before the second step of the training itself: a warm start has other metrics.
    """
    known = {name for row in rows for name in row.metrics}
    is_default = (retention.metric, retention.best) == (Retention().metric, Retention().best)
    if is_default or not retention.best or retention.metric in known or sum(row.phase == "train" for row in rows) < 2:
        return None
    near = difflib.get_close_matches(retention.metric, known, n=3, cutoff=0.5)
    there = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
    return f"no step has the metric {retention.metric!r} (retention.metric), so no version is kept for being the best; {there}"
