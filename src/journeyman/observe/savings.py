"""How much shared prefixes saved in a run, from the metrics of its steps. Not for the packing itself (`trainer.packing`)."""

from __future__ import annotations

from collections.abc import Sequence


def packing_saving(history: Sequence[dict[str, float]]) -> float | None:
    """How many times more tokens one row a trajectory would have computed; None when no step of `history` trained.

    Example:
        >>> packing_saving([{"train/num_unpacked_tokens": 300.0, "train/num_computed_tokens": 100.0}])
        3.0
    """
    computed = sum(metrics.get("train/num_computed_tokens", 0.0) for metrics in history)
    unpacked = sum(metrics.get("train/num_unpacked_tokens", 0.0) for metrics in history)
    return unpacked / computed if computed else None
