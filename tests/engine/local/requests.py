"""Requests of random prompts, and the check that a sample's log-probabilities are the model's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.tiny import plain_logprobs

from journeyman.types.sampling import Sample, SampleRequest, SamplingParameters

VOCABULARY = 313


def random_ids(seed: int | str, count: int) -> tuple[int, ...]:
    uniform = random.Random(seed)
    return tuple(uniform.randrange(3, VOCABULARY) for _ in range(count))


def request(prompt: Sequence[int], *, adapter: str | None = None, stop_token_ids: tuple[int, ...] = (), **parameters: Any) -> SampleRequest:
    return SampleRequest(tuple(prompt), SamplingParameters(**parameters), adapter, stop_token_ids)


def assert_logprobs_of(model: Any, prompt: Sequence[int], sample: Sample) -> None:
    """The sample's log-probabilities are those of plain transformers (and PEFT) to 1e-4."""
    assert len(sample.token_ids) == len(sample.logprobs) > 0
    with torch.no_grad():
        expected = plain_logprobs(model, [*prompt, *sample.token_ids])[len(prompt) - 1 :]
    assert list(sample.logprobs) == pytest.approx(expected.tolist(), abs=1e-4)
