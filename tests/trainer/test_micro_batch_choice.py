"""GRPO, SFT and DPO split a batch by the same rule: no layer twice where a split is cheaper, no prompt anew where a second pass is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import make_sample
from tests.trainer.conftest import MakeTrainer
from tests.trainer.gradients import BARE_ADAM, assert_same_gradients, taken_gradients
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

from journeyman.modeling import gradient_checkpointing
from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Checkpointing, Dpo, Grpo, Sft

# What `auto` computes of one micro-batch without a second pass, in these tests.
FREE_TOKENS = 154
NUM_LAYERS = 2
METHODS = ["grpo", "sft", "dpo"]


@pytest.fixture
def trainer(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> LoraTrainer:
    trainer = make_trainer()
    checkpoints = trainer._checkpoints
    monkeypatch.setattr(gradient_checkpointing, "MAX_KEPT_BYTES", FREE_TOKENS * checkpoints.bytes_per_token)
    monkeypatch.setattr(checkpoints, "num_free_tokens", FREE_TOKENS)
    return trainer


def attempts(count: int, num_prompt: int, num_new: int) -> list[TrainSample]:
    uniform = random.Random(count * num_prompt)

    def draw(length: int) -> list[int]:
        return [uniform.randrange(3, 300) for _ in range(length)]

    prompt = draw(num_prompt)
    return [make_sample([*prompt, *draw(num_new)], num_prompt, advantage=1.0 + number / 8) for number in range(count)]


@contextmanager
def counted_tokens() -> Iterator[list[int]]:
    """Tokens that went forward through a layer under it, where a gradient was wanted."""
    count = [0]

    def hook(module: nn.Module, inputs: Any) -> None:
        count[0] += inputs[0].shape[1] if isinstance(module, LlamaMLP) and torch.is_grad_enabled() else 0

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def step(trainer: LoraTrainer, method: str, samples: list[TrainSample], choice: Checkpointing) -> tuple[dict[str, float], float]:
    """Metrics, and how many tokens went forward, counted once for all layers."""
    given: dict[str, Any] = {"adam": BARE_ADAM, "gradient_checkpointing": choice}
    with counted_tokens() as count:
        if method == "grpo":
            metrics = trainer.policy_step([samples], Grpo(**given), lambda _: None)
        elif method == "sft":
            metrics = trainer.supervised_step(samples, Sft(**given, batch_size=64), lambda _: None)
        else:
            pairs = [SamplePair((left,), (right,)) for left, right in zip(samples[::2], samples[1::2], strict=True)]
            metrics = trainer.preference_step(pairs, Dpo(**given, batch_size=64), lambda _: None)
    return metrics, count[0] / NUM_LAYERS


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_can_be_split_without_loss_is_never_computed_twice(trainer: LoraTrainer, method: str) -> None:
    unlike = [one for number in range(8) for one in attempts(1, 60 + number, 6)]
    metrics, num_forward = step(trainer, method, unlike, "auto")
    assert metrics["num_computed_tokens"] == metrics["num_unpacked_tokens"] == num_forward


@pytest.mark.parametrize("num_prompt", [140, 200])
@pytest.mark.parametrize("method", METHODS)
def test_a_long_prompt_is_computed_once_for_all_attempts_even_if_twice_forward(
    trainer: LoraTrainer, make_trainer: MakeTrainer, tmp_path: Path, method: str, num_prompt: int
) -> None:
    samples = attempts(8, num_prompt, 6)
    metrics, num_forward = step(trainer, method, samples, "auto")
    assert metrics["num_computed_tokens"] == num_prompt + 8 * 6
    assert num_forward == 2 * (num_prompt + 8 * 6)
    whole = make_trainer()
    step(whole, method, samples, False)
    assert_same_gradients(taken_gradients(trainer, tmp_path / "auto"), taken_gradients(whole, tmp_path / "whole"))
