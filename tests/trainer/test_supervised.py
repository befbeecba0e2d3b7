"""Supervised steps: filled bins change the cost and nothing else; the loss can be measured without training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import make_sample, plain_model, random_group
from tests.trainer.conftest import MakeTrainer
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, plain_loss, taken_gradients

from journeyman.errors import ContextLengthError, TrainingError
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Sft

SETTINGS = Sft(adam=BARE_ADAM, batch_size=64)


def quiet(_: float) -> None:
    return None


def uneven() -> list[TrainSample]:
    """Ends of a long conversation and of a short one: a fixed split computes both beginnings on every worker."""
    return [*random_group(1, vocabulary=300, num_prompt=60), *random_group(2, vocabulary=300, num_prompt=3)]


@pytest.mark.parametrize("tokens_per_micro_batch", [4096, 64])
def test_filled_bins_give_the_gradients_of_one_tree_with_fewer_tokens_than_rows_have(
    make_trainer: MakeTrainer, tmp_path: Path, tokens_per_micro_batch: int
) -> None:
    settings = SETTINGS.model_copy(update={"tokens_per_micro_batch": tokens_per_micro_batch})
    whole, filled = make_trainer(1), make_trainer(2)
    expected = whole.supervised_step(uneven(), SETTINGS, quiet)
    found = filled.supervised_step(uneven(), settings, quiet)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found["num_tokens"] == expected["num_tokens"]
    assert_same_gradients(taken_gradients(filled, tmp_path / "filled"), taken_gradients(whole, tmp_path / "whole"))
    assert found["num_computed_tokens"] < found["num_unpacked_tokens"]


def test_the_measured_loss_is_that_of_plain_transformers_and_trains_nothing(
    trainer: LoraTrainer, sharp_model: Path, adapter: Path, tmp_path: Path
) -> None:
    samples = [*uneven(), make_sample([5], 0)]
    before = trainer.fingerprint()
    told: list[float] = []
    measured = trainer.measure_loss(samples, "refuse", told.append)
    assert (trainer.fingerprint(), trainer.step) == (before, 0)
    with torch.no_grad():
        plain = plain_loss(plain_model(sharp_model, adapter), samples[:-1], lambda logprob, old, advantage: -logprob)
    assert measured["loss"] == pytest.approx(float(plain), rel=1e-5)
    assert measured["loss"] == pytest.approx(trainer.supervised_step(samples, SETTINGS, quiet)["loss"], rel=1e-5)
    assert told[-1] == 1.0


def test_the_loss_of_many_samples_is_measured_part_by_part(trainer: LoraTrainer) -> None:
    samples = [sample for seed in range(24) for sample in random_group(seed, vocabulary=300)]
    told: list[float] = []
    measured = trainer.measure_loss(samples, "refuse", told.append)
    assert len(told) == 3
    assert told == sorted(told)
    parts = [trainer.measure_loss(samples[start : start + 48], "refuse", quiet) for start in range(0, len(samples), 48)]
    mean = sum(part["loss"] * part["num_tokens"] for part in parts) / sum(part["num_tokens"] for part in parts)
    assert measured["loss"] == pytest.approx(mean, rel=1e-6)


def test_what_cannot_be_measured_is_refused_or_dropped(trainer: LoraTrainer) -> None:
    too_long = make_sample(list(range(3, 203)) * 3, 100)
    with pytest.raises(ContextLengthError):
        trainer.measure_loss([*uneven(), too_long], "refuse", quiet)
    assert trainer.measure_loss([*uneven(), too_long], "drop", quiet)["num_examples_too_long"] == 1
    with pytest.raises(TrainingError) as caught:
        trainer.measure_loss([make_sample([5], 0)], "refuse", quiet)
    assert caught.value.reason == "no_trained_token"
