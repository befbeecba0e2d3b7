"""Drawn tokens follow the distribution that was asked for, and log-probabilities are those of the unmodified one."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from tests.engine.local.requests import request

from journeyman.engine.local.rows import Row
from journeyman.engine.local.sampler import draw

PROBABILITIES = [0.4, 0.3, 0.0, 0.2, 0.06, 0.04]
LOGITS = torch.tensor(PROBABILITIES).log() + 3.0
NUM_DRAWS = 4000


def make_row(seed: int = 0, **parameters: Any) -> Row:
    return Row(request((1,), **parameters), lambda _: None, random.Random(seed))


def shares(**parameters: Any) -> list[float]:
    """How often each token is drawn by rows of one batch, each with a stream of its own."""
    rows = [make_row(seed, **parameters) for seed in range(NUM_DRAWS)]
    ids, logprobs = draw(LOGITS.repeat(NUM_DRAWS, 1), rows)
    for token, logprob in zip(ids, logprobs, strict=True):
        assert logprob == pytest.approx(float(LOGITS[token] - LOGITS.logsumexp(0)), abs=1e-5)
    counts = Counter(ids)
    return [counts[token] / NUM_DRAWS for token in range(len(PROBABILITIES))]


def normalised(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, PROBABILITIES),
        ({"temperature": 0.5}, normalised([p**2 for p in PROBABILITIES])),
        ({"temperature": 2.0}, normalised([p**0.5 for p in PROBABILITIES])),
        ({"top_k": 2}, normalised([0.4, 0.3, 0, 0, 0, 0])),
        ({"top_k": 100}, PROBABILITIES),
        ({"top_p": 0.65}, normalised([0.4, 0.3, 0, 0, 0, 0])),
        ({"top_p": 0.85}, normalised([0.4, 0.3, 0, 0.2, 0, 0])),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 1e-7}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 1e-40}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 5e-324, "top_p": 0.9}, [1, 0, 0, 0, 0, 0]),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.7}, normalised([0.16, 0.09, 0, 0, 0, 0])),
    ],
    ids=str,
)
def test_tokens_follow_the_distribution_asked_for(parameters: dict[str, float], expected: list[float]) -> None:
    # Five standard deviations of a share of 4000 draws; an impossible token is never drawn.
    for share, probability in zip(shares(**parameters), expected, strict=True):
        deviation = (probability * (1 - probability) / NUM_DRAWS) ** 0.5
        assert abs(share - probability) <= 5 * deviation


@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_temperature_zero_takes_the_likeliest(more: dict[str, float]) -> None:
    ids, _ = draw(LOGITS.repeat(20, 1), [make_row(seed, temperature=0.0, **more) for seed in range(20)])
    assert set(ids) == {0}


def test_rows_of_one_batch_do_not_change_each_other() -> None:
    settings: list[dict[str, Any]] = [{}, {"temperature": 0.0}, {"top_k": 2}, {"temperature": 3.0}, {}, {"top_p": 0.5}]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(settings), 50, generator=generator)
    together = draw(logits, [make_row(seed, **parameters) for seed, parameters in enumerate(settings)])
    for index, parameters in enumerate(settings):
        ids, logprobs = draw(logits[index : index + 1], [make_row(index, **parameters)])
        assert ids[0] == together[0][index]
        assert logprobs[0] == pytest.approx(together[1][index], abs=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
def test_the_ends_of_the_unit_interval_give_possible_tokens(uniform: float) -> None:
    class Constant(random.Random):
        def random(self) -> float:
            return uniform

    logits = torch.tensor([[float("-inf"), 1.0, 0.5, float("-inf")]])
    ids, logprobs = draw(logits, [Row(request((1,)), lambda _: None, Constant())])
    assert ids[0] in (1, 2)
    assert logprobs[0] > -2
