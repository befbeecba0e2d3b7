"""Fixtures for every part: a tiny ChatML tokenizer, built here, and the real 135M model's folder when this machine
has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from journeyman import redaction

# The speed of a shared machine is no property of the code: examples may take as long as pytest's own timeout lets them.
settings.register_profile("journeyman", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("journeyman")

# An engine process takes seconds to start: only tests of them have some.
os.environ["JOURNEYMAN_ENGINE_PROCESSES"] = "0"


@pytest.fixture(autouse=True)
def secrets_of_this_test() -> Iterator[None]:
    """What one test tells a process to hide is no secret in the next."""
    before = dict(redaction._secrets)
    yield
    redaction._secrets.clear()
    redaction._secrets.update(before)


def build_tiny_tokenizer() -> Any:
    """A byte-level tokenizer with ChatML markers: any text round-trips, and common words have several spellings in
    tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = 'system user assistant tool_call tool_response name arguments {"name": "get", "arguments": {}} hello'
    backend.train_from_iterator([text] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return build_tiny_tokenizer()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The converted SmolLM2-135M-Instruct; tests that need it are marked real_model and skip with this reason
    elsewhere."""
    cache = Path(os.environ.get("JOURNEYMAN_CACHE", Path.home() / ".cache" / "journeyman"))
    folder = cache / "models" / "smollm2-135m"
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"no SmolLM2-135M weights at {folder}; `make setup` puts them there")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """The folder of a random model of a few thousand parameters: enough to run a program, not to say anything."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sharp_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A tiny random model with large weights: its predictions are far from uniform, so numeric comparisons mean something."""
    from tests.tiny import build_model

    return build_model(tmp_path_factory.mktemp("sharp-model"), tiny_tokenizer)
