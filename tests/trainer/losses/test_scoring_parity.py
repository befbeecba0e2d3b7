"""Advantages and weights against mismatch equal those that TRL 1.16's GRPOTrainer computes; where we differ on purpose, it is shown."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trainer.losses.trl_scoring import TrlScoring, trl_scoring
from torch import Tensor

from journeyman.trainer.advantages import batch_advantages
from journeyman.trainer.losses.policy import gaps, mismatch_weights
from journeyman.types.losses import GeometricMask, TokenMask, TokenTruncate
from journeyman.types.settings import Advantage

NAN = float("nan")
widely = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def trl() -> TrlScoring:
    return trl_scoring()


@st.composite
def reward_groups(draw: st.DrawFn) -> list[list[float]]:
    """One to four groups of one size; some rewards are missing, at least two of a group are there and differ."""
    size = draw(st.integers(2, 6))
    groups = []
    for _ in range(draw(st.integers(1, 4))):
        group = [draw(st.integers(-20, 20)) / 10 for _ in range(size)]
        group[1] = group[0] + draw(st.integers(1, 10)) / 10
        groups.append([*group[:2], *(draw(st.sampled_from([reward, reward, NAN])) for reward in group[2:])])
    return groups


def ours(groups: list[list[float]], kind: Advantage) -> Tensor:
    found = batch_advantages(groups, kind).groups
    assert None not in found
    return torch.tensor([advantage for group in found for advantage in group or ()])


def theirs(trl: TrlScoring, groups: list[list[float]], scale: str) -> Tensor:
    return trl(torch.tensor(groups).flatten(), len(groups[0]), scale=scale)["advantages"]


def deviation(rewards: Tensor, *, of_sample: bool) -> float:
    return float(rewards[~rewards.isnan()].std(correction=int(of_sample)))


def test_parity_of_centred_rewards_with_missing_ones(trl: TrlScoring) -> None:
    @widely
    @given(reward_groups())
    def check(groups: list[list[float]]) -> None:
        torch.testing.assert_close(ours(groups, "mean"), theirs(trl, groups, "none"), rtol=1e-5, atol=1e-5)

    check()


@pytest.mark.parametrize(("kind", "scale"), [("zscore", "group"), ("batch_std", "batch")])
def test_parity_of_scaled_rewards_ends_at_the_standard_deviation(trl: TrlScoring, kind: Advantage, scale: str) -> None:
    # TRL divides by the sample deviation + 1e-4, we by that of the population + 1e-6: a constant factor in what is divided together.
    @widely
    @given(reward_groups())
    def check(groups: list[list[float]]) -> None:
        expected = theirs(trl, groups, scale)
        factors = []
        for group in groups:
            together = torch.tensor(group if scale == "group" else groups).flatten()
            factor = (deviation(together, of_sample=True) + 1e-4) / (deviation(together, of_sample=False) + 1e-6)
            factors += [factor] * len(group)
        assert min(factors) > 1.0
        torch.testing.assert_close(ours(groups, kind), expected * torch.tensor(factors), rtol=1e-4, atol=1e-4)

    check()


@st.composite
def logprobs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Log-probabilities of trainer and sampler, [rows, tokens], near and far apart; some of the sampler's are unknown."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    trained = -torch.rand(shape, generator=generator) * 4
    sampled = trained + draw(st.sampled_from([0.0, 1e-3, 0.5, 2.0])) * torch.randn(shape, generator=generator)
    sampled[torch.rand(shape, generator=generator) < 0.2] = NAN
    return trained, sampled


@pytest.mark.parametrize(
    ("mismatch", "mode", "bounds"),
    [
        (TokenTruncate(), "token_truncate", (None, 2.0)),
        (TokenTruncate(max_weight=1.1), "token_truncate", (None, 1.1)),
        (TokenMask(), "token_mask", (0.5, 5.0)),
        (TokenMask(min_weight=0.9, max_weight=1.2), "token_mask", (0.9, 1.2)),
    ],
    ids=str,
)
def test_parity_of_the_weights_against_mismatch_with_unknown_ones(
    trl: TrlScoring, mismatch: Any, mode: str, bounds: tuple[Any, Any]
) -> None:
    @widely
    @given(logprobs())
    def check(pair: tuple[Tensor, Tensor]) -> None:
        trained, sampled = pair
        found = mismatch_weights(mismatch, gaps(trained, sampled).flatten())
        assert found is not None
        expected = trl(torch.zeros(len(trained)), 1, trained=trained, sampled=sampled, mode=mode, bounds=bounds)
        torch.testing.assert_close(found.view_as(trained), expected["importance_sampling_ratio"], rtol=1e-5, atol=1e-6)

    check()


@pytest.mark.parametrize(("num_tokens", "is_kept_by_trl"), [(400, True), (500, False)])
def test_parity_ends_where_trl_masks_a_trajectory_by_the_sum_of_its_gaps(trl: TrlScoring, num_tokens: int, is_kept_by_trl: bool) -> None:
    # TRL's default drops a trajectory when exp(sum of gaps) is above 3: a drift of 0.0025 a token after 440 tokens. We take the mean.
    trained = torch.full((1, num_tokens), -1.0)
    found = trl(torch.zeros(1), 1, trained=trained, sampled=trained - 0.0025, mode="sequence_mask", bounds=(None, 3.0))
    assert bool(found["importance_sampling_ratio"].item()) is is_kept_by_trl
    gap = gaps(trained, trained - 0.0025)[0]
    kept = mismatch_weights(GeometricMask(), gap, gap)
    assert kept is not None
    assert bool(kept.all())
    assert math.exp(0.0025) < GeometricMask().max_ratio
