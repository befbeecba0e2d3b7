"""The learning rate over the steps of a run. Not inside a step: an optimiser step sees one rate."""

from __future__ import annotations

from collections.abc import Callable


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


def rate_change(made: int, before: Callable[[int], float], after: Callable[[int], float]) -> str:
    """What a resume behind step `made` under other settings does to the learning rate; empty when it goes on as it would have.

    Args:
        before, after: the learning rate of a step (from 0) under the old settings and under the new ones.
    """
    if made == 0 or after(made) == before(made):
        return ""
    return (
        f"the learning rate was {before(made - 1):.2e} in step {made} and will be {after(made):.2e} in step {made + 1}: there the "
        "schedule of the settings as they are now has it"
    )
