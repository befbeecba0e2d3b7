"""Pairs of samples for tests, and their log-probabilities one row at a time under plain models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tests.tiny import make_sample, plain_logprobs, plain_model
from torch import Tensor

from journeyman.trainer.base import SamplePair
from journeyman.trainer.losses.preference import Side

LOSSES = ("sigmoid", "hinge", "ipo", "sigmoid_norm", "simpo", "orpo")


def random_pairs(count: int = 6, *, seed: int = 1, vocabulary: int = 300) -> list[SamplePair]:
    """Pairs of one sample a side: all begin alike, the sides of a pair have its prompt in common, every other pair its first words too."""
    uniform = random.Random(seed)

    def draw(length: int) -> list[int]:
        return [uniform.randrange(3, vocabulary) for _ in range(length)]

    system = draw(8)
    pairs = []
    for number in range(count):
        prompt = system + draw(5)
        common = draw(2) if number % 2 else []
        sides = [make_sample([*prompt, *common, *draw(uniform.randrange(1, 9))], len(prompt)) for _ in range(2)]
        pairs.append(SamplePair((sides[0],), (sides[1],), f"pair {number}"))
    return pairs


def plain_sides(model: Any, pairs: Sequence[SamplePair]) -> tuple[Side, Side]:
    """Both sides of each pair without a reference, each sample computed by itself."""
    sides = []
    for samples in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs]):
        sums = [
            torch.cat([plain_logprobs(model, one.token_ids)[torch.tensor(one.is_sampled[1:])] for one in side]).sum() for side in samples
        ]
        sides.append(Side(torch.stack(sums), torch.tensor([sum(one.num_sampled for one in side) for side in samples])))
    return sides[0], sides[1]


def plain_reference(base: Path, pairs: Sequence[SamplePair]) -> tuple[Tensor, Tensor]:
    """The sums of both sides under a second model without adapter."""
    with torch.no_grad():
        chosen, rejected = plain_sides(plain_model(base), pairs)
    return chosen.logprob_P, rejected.logprob_P


def two_samples(values: Sequence[Sequence[float]]) -> list[tuple[Sequence[float], Sequence[float]]]:
    """(chosen, rejected) of each pair from a flat list."""
    return list(zip(values[0::2], values[1::2], strict=True))
