"""Tiny models whose predictions differ from token to token, adapters of them, and what plain transformers and PEFT say."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from journeyman.modeling.base_models import BaseModel
from journeyman.modeling.lora import add_lora, save_adapter
from journeyman.modeling.weights import load_module
from journeyman.trainer.base import TrainSample
from journeyman.types.settings import LoraSettings

LORA = LoraSettings(rank=4, alpha=8.0)
NAN = math.nan


def build_model(folder: Path, tokenizer: Any, *, num_positions: int = 512, initializer_range: float = 0.2, seed: int = 0) -> Path:
    """A random Llama with large weights: far from uniform predictions, so that a wrong key or position shows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=num_positions,
        initializer_range=initializer_range,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def base_of(folder: Path) -> BaseModel:
    return BaseModel("tiny", folder)


def write_adapter(base: Path, folder: Path, *, seed: int = 1, scale: float = 0.1, lora: LoraSettings = LORA) -> str:
    """An adapter with random A and, unless `scale` is 0, random B; returns its fingerprint."""
    model = add_lora(load_module(base), lora.model_copy(update={"seed": seed}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return save_adapter(model, folder)


def plain_model(base: Path, adapter: Path | None = None, *, trainable: bool = False) -> Any:
    """The model as transformers loads it, with its own attention, and the adapter as PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    if adapter is None:
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable).eval()


def plain_logprobs(model: Any, ids: Sequence[int]) -> Tensor:
    """Log-probability of each token but the first given those before it, [T - 1], from one plain forward."""
    row = torch.tensor([list(ids)])
    logits = model(input_ids=row).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, row[0, 1:, None])[:, 0]


def make_sample(
    ids: Sequence[int], num_given: int, *, logprobs: Sequence[float] | None = None, advantage: float = 0.0, given: Sequence[int] = ()
) -> TrainSample:
    """A sample whose tokens from `num_given` on were sampled, but those at the positions in `given`."""
    is_sampled = tuple(position >= num_given and position not in given for position in range(len(ids)))
    values = list(logprobs) if logprobs is not None else [NAN] * sum(is_sampled)
    filled = iter(values)
    return TrainSample(tuple(ids), is_sampled, tuple(next(filled) if sampled else 0.0 for sampled in is_sampled), advantage)


def random_group(seed: int, *, vocabulary: int, num_samples: int = 6, num_prompt: int = 12) -> list[TrainSample]:
    """Attempts at one prompt: some part at their first token, some after a shared first turn, two are equal."""
    uniform = random.Random(seed)

    def draw(count: int) -> list[int]:
        return [uniform.randrange(3, vocabulary) for _ in range(count)]

    prompt = draw(num_prompt)
    shared_turn, tool_result = draw(5), draw(4)
    group = []
    for number in range(num_samples):
        if number % 3 == 0:
            ids, given = prompt + draw(uniform.randrange(1, 9)), range(0)
        else:
            start = num_prompt + len(shared_turn)
            ids, given = prompt + shared_turn + tool_result + draw(uniform.randrange(1, 7)), range(start, start + len(tool_result))
        group.append(make_sample(ids, num_prompt, given=given, advantage=uniform.uniform(-2, 2)))
    group.append(make_sample(group[-1].token_ids, num_prompt, given=given, advantage=-1.0))
    return group
