"""A step with gradient checkpointing is the step without it, bit for bit, whatever is trained and by how many workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import LORA, base_of, random_group, write_adapter
from tests.trainer.gradients import BARE_ADAM, taken_gradients
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Checkpointing, Grpo, Sft

GROUPS = [random_group(seed, vocabulary=300) for seed in range(3)]


@contextmanager
def counted_layers() -> Iterator[list[int]]:
    """How many forward passes of an MLP were made under it, in any thread."""
    count = [0]

    def hook(module: nn.Module, _inputs: Any) -> None:
        count[0] += isinstance(module, LlamaMLP)

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def step(trainer: LoraTrainer, state: Path, method: str, checkpointing: Checkpointing) -> tuple[list[Tensor], float, int]:
    """Gradient and loss of one step from `state`, and how often a layer was computed."""
    trainer.load_state(state)
    with counted_layers() as count:
        if method == "grpo":
            metrics = trainer.policy_step(GROUPS, Grpo(adam=BARE_ADAM, gradient_checkpointing=checkpointing), lambda _: None)
        else:
            samples = [sample for group in GROUPS for sample in group]
            settings = Sft(adam=BARE_ADAM, batch_size=64, gradient_checkpointing=checkpointing)
            metrics = trainer.supervised_step(samples, settings, lambda _: None)
    return taken_gradients(trainer, state.parent / "after"), metrics["loss"], count[0]


@pytest.mark.parametrize("method", ["grpo", "sft"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_packed_gradients_with_checkpoints_equal_those_without_bit_for_bit(
    sharp_model: Path, tmp_path: Path, method: str, precision: str, num_workers: int
) -> None:
    trainer = LoraTrainer(base_of(sharp_model), LORA, num_workers, precision=precision)
    state = tmp_path / "state"
    trainer.save_state(state)
    write_adapter(sharp_model, state / "adapter")
    plain, plain_loss, plain_count = step(trainer, state, method, False)
    again, again_loss, again_count = step(trainer, state, method, True)
    _, _, auto_count = step(trainer, state, method, "auto")
    trainer.close()
    assert again_count == plain_count + 2 * num_workers
    assert auto_count == plain_count, "batches as small as these are not worth computing twice"
    assert again_loss == plain_loss
    assert len(plain) == len(again) == 28
    assert all(bool(torch.count_nonzero(gradient)) for gradient in plain)
    assert [index for index, (left, right) in enumerate(zip(plain, again, strict=True)) if not torch.equal(left, right)] == []
