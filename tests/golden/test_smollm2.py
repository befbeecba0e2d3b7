"""On the real 135M model: sampler and trainer agree, and packing is exact. The numbers that everything else rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.local.requests import request
from tests.tiny import LORA, base_of, make_sample, plain_model, write_adapter
from tests.trainer.gradients import (
    BARE_ADAM,
    assert_same_gradients,
    clipped,
    plain_gradients,
    plain_loss,
    taken_gradients,
    with_old_logprobs,
)

from journeyman.engine.local.engine import LocalEngine
from journeyman.modeling.base_models import load_tokenizer
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import Grpo

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant with a clock."},
    {"role": "user", "content": "What time is it in Nairobi when it is noon in Lima? Answer in one sentence."},
]


@pytest.fixture(scope="module")
def adapter(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(smollm2_folder, folder, scale=0.02)
    return folder


@pytest.fixture(scope="module")
def trainer(smollm2_folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoraTrainer]:
    trainer = LoraTrainer(base_of(smollm2_folder), LORA, 1, precision="float32")
    state = tmp_path_factory.mktemp("state")
    trainer.save_state(state)
    write_adapter(smollm2_folder, state / "adapter", scale=0.02)
    trainer.load_state(state)
    yield trainer
    trainer.close()


@pytest.fixture(scope="module")
def samples(smollm2_folder: Path, adapter: Path) -> list[TrainSample]:
    """Three conversations of two turns each, sampled with the adapter: shared prompt, then turns of their own."""

    async def converse() -> list[TrainSample]:
        engine = LocalEngine.create(base_of(smollm2_folder), num_workers=1, device="cpu", precision="float32")
        await engine.load_adapter("model@1", adapter)
        tokenizer = load_tokenizer(smollm2_folder)
        prompt = tuple(tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False))
        reminder = tuple(tokenizer.encode("<|im_end|>\n<|im_start|>user\nAre you sure?<|im_end|>\n<|im_start|>assistant\n"))

        async def attempt(seed: int) -> TrainSample:
            first = await engine.sample(request(prompt, adapter="model@1", max_tokens=12, seed=seed))
            ids = (*prompt, *first.token_ids, *reminder)
            second = await engine.sample(request(ids, adapter="model@1", max_tokens=10, seed=seed))
            given = range(len(prompt) + 12, len(ids))
            logprobs = [*first.logprobs, *second.logprobs]
            return make_sample((*ids, *second.token_ids), len(prompt), logprobs=logprobs, given=given, advantage=1.0 - seed)

        out = await asyncio.gather(*(attempt(seed) for seed in range(3)))
        await engine.close()
        return list(out)

    return asyncio.run(converse())


def test_sampler_and_trainer_agree_over_two_turns(samples: list[TrainSample], trainer: LoraTrainer) -> None:
    for sample, logprobs in zip(samples, trainer.logprobs(samples), strict=True):
        sampled = [value for value, is_sampled in zip(sample.logprobs, sample.is_sampled, strict=True) if is_sampled]
        assert len(sampled) == 22
        assert sampled == pytest.approx(logprobs, abs=1e-4)


def test_packed_gradients_equal_unpacked_ones(
    samples: list[TrainSample], trainer: LoraTrainer, smollm2_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    """Runs last in this file: it moves the trainer's weights."""
    settings = Grpo(adam=BARE_ADAM, max_logprob_gap=5.0)
    shifted = with_old_logprobs(samples, trainer.logprobs(samples), (0.0, 0.1, 0.6, -0.5))
    metrics = trainer.policy_step([shifted], settings, lambda _: None)
    model = plain_model(smollm2_folder, adapter, trainable=True)
    loss = plain_loss(model, shifted, clipped(settings))
    # The terms are of size 1 and cancel: the error is relative to them, not to their mean.
    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    # Measured: worst tensor 1.1e-5, median 4.7e-6, which is float32 through thirty layers in another order.
    assert_same_gradients(taken_gradients(trainer, tmp_path), plain_gradients(model, loss), relative=3e-5)
