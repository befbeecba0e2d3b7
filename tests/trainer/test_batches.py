"""Steps that are skipped name what they were computed from."""

from __future__ import annotations

import pytest
from tests.tiny import make_sample, random_group

from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Grpo


def test_a_gradient_that_is_finite_and_too_large_for_its_norm_names_the_largest_advantage_first(
    trainer: LoraTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    odd = make_sample([9, 8, 7], 1)
    huge = TrainSample(odd.token_ids, odd.is_sampled, odd.logprobs, 1e25, "the-huge-one")
    metrics = trainer.policy_step([[*random_group(1, vocabulary=300), huge]], Grpo(), lambda _: None)
    assert metrics["num_skipped_in_a_row"] == 1
    assert "(with the-huge-one, a sample" in caplog.text
