"""Which samples a step takes, in which batches and order, and what becomes of a batch whose gradient is not finite.

Samples that do not fit the model's context are refused by the id of their trajectory, or dropped and counted; never cut. Steps whose
gradient is NaN or infinite are skipped, named and counted; the third in a row is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from journeyman.errors import ContextLengthError, TrainingError
from journeyman.trainer.base import OnProgress, TrainSample
from journeyman.trainer.optimizer import NotFiniteError
from journeyman.types.settings import MAX_SKIPPED_IN_A_ROW, WhenTooLong

_log = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def fitting(
    groups: Sequence[Sequence[TrainSample]], context_length: int, when_too_long: WhenTooLong
) -> tuple[list[list[TrainSample]], int]:
    """The groups without the trajectories that have a sample longer than `context_length` tokens, and how many those are.

    Raises ContextLengthError for the first of them when they are to be refused.
    """
    kept: list[list[TrainSample]] = []
    num_dropped = 0
    for group in groups:
        too_long = [sample for sample in group if len(sample.token_ids) > context_length]
        if too_long and when_too_long == "refuse":
            sample = too_long[0]
            raise ContextLengthError(
                f"{sample.trajectory_id or 'a sample'} has {len(sample.token_ids)} tokens and the model's context is {context_length}",
                hint='shorten it, leave it out, or set when_too_long="drop"',
            )
        named = {sample.trajectory_id for sample in too_long if sample.trajectory_id}
        num_dropped += len(named) + sum(not sample.trajectory_id for sample in too_long)
        kept.append([sample for sample in group if len(sample.token_ids) <= context_length and sample.trajectory_id not in named])
    return kept, num_dropped


def is_trainable(sample: TrainSample) -> bool:
    """Whether it gives a loss term: a sampled token with something before it."""
    return any(sample.is_sampled[1:])


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


class Skips:
    """Counts what was skipped in a row. One sound update makes it forget."""

    def __init__(self, in_a_row: int = 0) -> None:
        self.in_a_row = in_a_row

    def forget(self) -> None:
        self.in_a_row = 0

    def skip(self, what: str, error: NotFiniteError) -> None:
        """Count `what` ("step 7") as skipped for `error`; raises TrainingError when it is the third in a row."""
        if self.in_a_row + 1 >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{what}: {error.message}; {MAX_SKIPPED_IN_A_ROW} in a row, so training stops",
                hint="lower the learning rate, or look at what is named here",
                reason="not_finite",
            ) from error
        self.in_a_row += 1
        _log.warning("%s was skipped (%d in a row): %s", what, self.in_a_row, error.message)


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
