"""Packing is exact: loss and gradients are those of one row a trajectory through plain transformers and PEFT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import make_sample, plain_logprobs, plain_model, random_group
from tests.trainer.gradients import (
    BARE_ADAM,
    assert_same_gradients,
    clipped,
    plain_gradients,
    plain_loss,
    plain_terms,
    taken_gradients,
    with_old_logprobs,
)
from torch import Tensor

from journeyman.trainer.base import TrainSample
from journeyman.trainer.losses.policy import policy_loss
from journeyman.trainer.losses.terms import BatchTotals, divisor
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Grpo, Sft

# Ratios inside the clip, above it and below it.
SHIFTS = (0.0, 0.1, -0.15, 0.6, -0.5)
SETTINGS = Grpo(adam=BARE_ADAM, max_logprob_gap=5.0)


def two_groups(trainer: LoraTrainer) -> list[list[TrainSample]]:
    groups = [random_group(seed, vocabulary=300, num_samples=12) for seed in (1, 2)]
    return [with_old_logprobs(group, trainer.logprobs(group), SHIFTS) for group in groups]


@pytest.mark.parametrize(("tokens_per_micro_batch", "num_batches"), [(4096, 1), (64, 3)])
def test_packed_gradients_equal_unpacked_ones(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path, tokens_per_micro_batch: int, num_batches: int
) -> None:
    groups = two_groups(trainer)
    settings = SETTINGS.model_copy(update={"tokens_per_micro_batch": tokens_per_micro_batch})
    assert len(trainer._policy_trees(groups, settings)) >= num_batches
    metrics = trainer.policy_step(groups, settings, lambda _: None)
    model = plain_model(sharp_model, adapter, trainable=True)
    loss = plain_loss(model, [sample for group in groups for sample in group], clipped(settings))
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert metrics["num_computed_tokens"] < metrics["num_unpacked_tokens"]
    assert 0 < metrics["clip_fraction"] < 1
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), plain_gradients(model, loss))


def test_packed_gradients_with_a_penalty_to_the_base_equal_unpacked_ones(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path
) -> None:
    groups = two_groups(trainer)
    settings = SETTINGS.model_copy(update={"kl_coefficient": 0.5})
    trainer.policy_step(groups, settings, lambda _: None)
    model, base = plain_model(sharp_model, adapter, trainable=True), plain_model(sharp_model)
    samples = iter([sample for group in groups for sample in group])

    def loss_of(logprob: Tensor, old: Tensor, advantage: float) -> Tensor:
        sample = next(samples)
        reference = plain_logprobs(base, sample.token_ids)[[index for index, sampled in enumerate(sample.is_sampled[1:]) if sampled]]
        difference = reference.detach() - logprob
        return clipped(settings)(logprob, old, advantage) + 0.5 * (difference.exp() - difference - 1)

    loss = plain_loss(model, [sample for group in groups for sample in group], loss_of)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), plain_gradients(model, loss))


def several_segments(trainer: LoraTrainer) -> list[TrainSample]:
    """One group in which samples 0 and 7, 1 and 8, ... are segments of one trajectory."""
    samples = random_group(5, vocabulary=300, num_samples=13)
    shifted = with_old_logprobs(samples, trainer.logprobs(samples), (0.01, -0.3, 0.05, 0.2))
    return [
        TrainSample(sample.token_ids, sample.is_sampled, sample.logprobs, samples[number % 7].advantage, f"t{number % 7}")
        for number, sample in enumerate(shifted)
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "gspo", "clip_low": 0.05, "clip_high": 0.05},
        {"loss": "grpo", "mismatch": {"kind": "geometric_mask", "min_ratio": 0.97, "max_ratio": 1.03}},
        {"loss": "dr_grpo", "entropy_bonus": 0.5},
        {"loss": "cispo", "mismatch": "token_mask"},
    ],
    ids=lambda given: str(given["loss"]),
)
def test_packed_gradients_of_trajectories_in_several_micro_batches_equal_unpacked_ones(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    settings = Grpo(**given, adam=BARE_ADAM, max_logprob_gap=5.0, tokens_per_micro_batch=64)
    samples = several_segments(trainer)
    assert len(trainer._policy_trees([samples], settings)) > 1
    metrics = trainer.policy_step([samples], settings, lambda _: None)
    model = plain_model(sharp_model, adapter, trainable=True)
    logprobs, entropies, terms = plain_terms(model, samples)
    totals = BatchTotals.of_one(terms.sequence_N)
    loss = policy_loss(logprobs, entropies, terms, settings, totals).loss / divisor(settings.loss, totals)
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert all(map(math.isfinite, metrics.values()))
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), plain_gradients(model, loss))


def test_packed_gradients_of_bnpo_are_those_of_each_groups_own_mean(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path
) -> None:
    groups = [random_group(seed, vocabulary=300)[:size] for seed, size in ((1, 7), (2, 3))]
    groups = [with_old_logprobs(group, trainer.logprobs(group), (0.01, -0.3, 0.05, 0.2)) for group in groups]
    settings = Grpo(loss="bnpo", adam=BARE_ADAM, max_logprob_gap=5.0, tokens_per_micro_batch=64)
    metrics = trainer.policy_step(groups, settings, lambda _: None)
    model = plain_model(sharp_model, adapter, trainable=True)
    loss = torch.stack([plain_loss(model, group, clipped(settings)) for group in groups]).mean()
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), plain_gradients(model, loss))


def test_packed_supervised_gradients_equal_unpacked_ones(trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path) -> None:
    samples = random_group(3, vocabulary=300)
    metrics = trainer.supervised_step(samples, Sft(adam=BARE_ADAM, batch_size=16), lambda _: None)
    model = plain_model(sharp_model, adapter, trainable=True)
    loss = plain_loss(model, samples, lambda logprob, old, advantage: -logprob)
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "after"), plain_gradients(model, loss))


def test_packed_logprobs_equal_unpacked_ones(trainer: LoraTrainer, sharp_model: Path, adapter: Path) -> None:
    samples = [*random_group(4, vocabulary=300), make_sample([5], 0), make_sample([5, 6, 7], 3)]
    model = plain_model(sharp_model, adapter)
    for sample, logprobs in zip(samples, trainer.logprobs(samples), strict=True):
        if len(sample.token_ids) < 2:
            assert logprobs == []
            continue
        expected = plain_logprobs(model, sample.token_ids).tolist()
        chosen = [value for value, sampled in zip(expected, sample.is_sampled[1:], strict=True) if sampled]
        assert logprobs == pytest.approx(chosen, abs=2e-5)
