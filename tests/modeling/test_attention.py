"""Our attention function computes what transformers computes, for the architectures that small models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import plain_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from journeyman.errors import EngineError, ModelNotFoundError
from journeyman.modeling.attention import causal_attention
from journeyman.modeling.base_models import config_context_length
from journeyman.modeling.head import Head
from journeyman.modeling.weights import context_length, load_module, share_weights

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Causal:
    """The layout of one plain sequence."""

    def attend(self, layer: int, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float) -> Tensor:
        return causal_attention(query_HTD, key_KTD, value_KTD, scaling)


def write_model(folder: Path, kind: str, **settings: Any) -> Path:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | settings))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {"sliding_window": None}),
        ("granite", {"logits_scaling": 8.0, "attention_multiplier": 0.2, "residual_multiplier": 0.22, "embedding_multiplier": 3.0}),
    ],
)
def test_logits_equal_those_of_transformers(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    folder = write_model(tmp_path, kind, **settings)
    ids = torch.tensor([[3, 17, 5, 44, 60, 8, 3, 17]])
    ours = load_module(folder)
    with torch.no_grad():
        expected = plain_model(folder)(input_ids=ids).logits[0]
        hidden = ours.get_decoder()(input_ids=ids, use_cache=False, layout=Causal()).last_hidden_state[0]  # type: ignore[operator]
    torch.testing.assert_close(Head.of(ours).logits(hidden), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_queries", [1, 3, 6])
def test_queries_are_the_last_of_the_keys(num_queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    key, value = torch.randn(2, 6, 5, generator=generator), torch.randn(2, 6, 5, generator=generator)
    query = torch.randn(4, num_queries, 5, generator=generator)
    out = causal_attention(query, key, value, 0.3)
    for head in range(4):
        for index in range(num_queries):
            seen = 6 - num_queries + index + 1
            scores = (key[head // 2, :seen] @ query[head, index]) * 0.3
            torch.testing.assert_close(out[index, head], torch.softmax(scores, 0) @ value[head // 2, :seen])


def test_a_forward_without_a_layout_is_refused(sharp_model: Path) -> None:
    with pytest.raises(ValueError, match="layout"):
        load_module(sharp_model)(input_ids=torch.tensor([[5, 6]]))


def test_a_loaded_module_is_frozen_and_knows_its_context(sharp_model: Path) -> None:
    module = load_module(sharp_model)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training
    assert context_length(module) == 512


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        load_module(tmp_path)


def test_sharing_weights_takes_no_memory_and_changes_stay_apart(sharp_model: Path) -> None:
    module = load_module(sharp_model)
    other = share_weights(module)
    for left, right in zip(module.parameters(), other.parameters(), strict=True):
        assert left.data_ptr() == right.data_ptr()
    layer = other.get_submodule("model.layers.0.mlp.up_proj")
    before = module.get_submodule("model.layers.0.mlp.up_proj").weight.clone()  # type: ignore[operator, union-attr]
    layer.weight = torch.nn.Parameter(torch.zeros_like(before), requires_grad=False)
    assert torch.equal(module.get_submodule("model.layers.0.mlp.up_proj").weight, before)  # type: ignore[arg-type]


def test_the_context_ends_with_a_sliding_window(tmp_path: Path) -> None:
    assert context_length(load_module(write_model(tmp_path / "windowed", "mistral", sliding_window=16))) == 16
    assert context_length(load_module(write_model(tmp_path / "full", "qwen2", use_sliding_window=False))) == 64
    assert config_context_length(AutoConfig.for_model("llama4_text", max_position_embeddings=64, attention_chunk_size=32)) == 32


def test_attention_that_we_do_not_compute_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "gemma2", query_pre_attn_scalar=8, attn_logit_softcapping=50.0)
    with pytest.raises(EngineError, match="soft-capped"):
        load_module(folder)
