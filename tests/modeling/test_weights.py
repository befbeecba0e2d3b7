"""Refused when they are loaded: damaged files of weights, and models whose layers carry something on other than by attention."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.modeling.test_attention import write_model
from transformers import AutoModelForCausalLM

from journeyman.errors import ModelNotFoundError, SettingError
from journeyman.modeling import weights
from journeyman.modeling.attention import ATTENTION_NAME, register_attention
from journeyman.modeling.weights import check_packable, load_module

LFM2 = {"block_ff_dim": 48, "layer_types": ["conv", "full_attention"]}
GRANITE_HYBRID = {
    "layer_types": ["mamba", "attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "num_local_experts": 0,
    "shared_intermediate_size": 48,
}
HYBRIDS = [("lfm2", LFM2, "conv"), ("granitemoehybrid", GRANITE_HYBRID, "linear_attention")]


def loaded(folder: Path) -> Any:
    """As `load_module` loads it, without its check."""
    register_attention()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, attn_implementation=ATTENTION_NAME).eval()


@pytest.mark.parametrize(("kind", "settings", "layer"), HYBRIDS)
def test_a_hybrid_is_refused_by_its_architecture_and_layers_with_what_to_do(
    tmp_path: Path, kind: str, settings: dict[str, Any], layer: str
) -> None:
    folder = write_model(tmp_path, kind, **settings)
    with pytest.raises(SettingError, match=rf"{kind} .* {layer}") as caught:
        load_module(folder)
    assert caught.value.reason == "not_only_attention"
    assert caught.value.hint


@pytest.mark.parametrize(("kind", "settings", "layer"), HYBRIDS)
def test_a_hybrid_that_does_not_say_so_is_found_by_what_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, settings: dict[str, Any], layer: str
) -> None:
    module = loaded(write_model(tmp_path, kind, **settings))
    monkeypatch.setattr(weights, "_ATTENTION_TYPES", {"attention", "full_attention", layer})
    with pytest.raises(SettingError, match=kind) as caught:
        check_packable(module)
    assert caught.value.reason == "not_only_attention"
    assert len(module.get_decoder().layers) == 2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "granite", "gpt2"])
def test_a_model_that_only_attends_is_taken_and_is_whole_afterwards(tmp_path: Path, kind: str) -> None:
    module = loaded(write_model(tmp_path, kind, **({"n_embd": 32, "n_layer": 2, "n_head": 4} if kind == "gpt2" else {})))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    check_packable(module)
    assert weights._branch_difference(module) < 1e-5
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_of_weights_is_named_with_what_to_do(tiny_model: Path, tmp_path: Path, share: float) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors") as caught:
        load_module(folder)
    assert caught.value.reason == "damaged_weights"
    assert caught.value.hint
