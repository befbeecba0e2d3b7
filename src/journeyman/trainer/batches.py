"""Batches of a job with several epochs: their order, and going through them when one gradient or another is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from journeyman.trainer.base import OnProgress
from journeyman.trainer.optimizer import NotFiniteError
from journeyman.trainer.skipping import Skips

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def shuffled_batches(count: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Numbers below `count` in batches, each number once an epoch, in a random order that `seed` decides.

    Example:
        >>> [len(batch) for batch in shuffled_batches(5, 2, epochs=2, seed=0)]
        [2, 2, 1, 2, 2, 1]
    """
    generator = torch.Generator().manual_seed(seed)
    batches: list[list[int]] = []
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        batches += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return batches


def num_batches(count: int, batch_size: int, epochs: int) -> int:
    """How many `shuffled_batches` makes."""
    return epochs * -(-count // batch_size)


def each_batch(batches: Sequence[Batch], update: Callable[[Batch], Result], on_progress: OnProgress, skips: Skips) -> list[Result]:
    """What `update` gives of each batch; one whose gradient is not finite is skipped, and is missing here.

    Raises NotFiniteError when it is the last (no later one would show that the weights are sound, so the step as a whole is to be
    skipped), TrainingError at the third in a row, those that `skips` has counted before included.
    """
    results: list[Result] = []
    for index, batch in enumerate(batches):
        try:
            results.append(update(batch))
        except NotFiniteError as error:
            if index + 1 == len(batches):
                raise
            skips.skip(f"batch {index + 1} of {len(batches)}", error)
        else:
            skips.forget()
        on_progress((index + 1) / len(batches))
    return results
