"""The learning rate over the steps of a run. Not inside a step: an optimiser step sees one rate."""

from __future__ import annotations


def rate_factor(number: int, steps: int, *, warmup_steps: int = 0, decay_to: float = 1.0) -> float:
    """What the learning rate of step `number` (from 0) of `steps` is multiplied by.

    It rises over `warmup_steps` in equal parts, then falls in a straight line to `decay_to` at the last step.

    Example:
        >>> [round(rate_factor(number, 5, warmup_steps=2, decay_to=0.5), 2) for number in range(5)]
        [0.33, 0.67, 1.0, 0.75, 0.5]
    """
    if number < warmup_steps:
        return (number + 1) / (warmup_steps + 1)
    done = (number - warmup_steps) / max(steps - 1 - warmup_steps, 1)
    return 1.0 - min(done, 1.0) * (1.0 - decay_to)
