"""Samples that do not fit the model's context: refused by the id of their trajectory, or dropped and counted. Never cut."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.errors import ContextLengthError
from journeyman.types.samples import TrainSample
from journeyman.types.settings import WhenTooLong


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
