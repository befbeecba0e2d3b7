"""Layers that are computed again give the same gradients bit for bit and keep far less; who asks for it gets it or is told why not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.modeling.test_attention import Causal, write_model
from tests.tiny import LORA
from torch import Tensor, nn

from journeyman.errors import SettingError
from journeyman.modeling import gradient_checkpointing
from journeyman.modeling.gradient_checkpointing import (
    KEYWORD,
    LAYERS_PER_RETURN,
    MAX_KEPT_BYTES,
    MIN_RETURNED_BYTES,
    LayerCheckpoints,
    LayerMemory,
    kept_bytes_per_token,
)
from journeyman.modeling.lora import add_lora
from journeyman.modeling.precision import Precision
from journeyman.modeling.weights import load_module

IDS = torch.tensor([[3, 17, 5, 44, 60, 8, 3, 17]])


def adapted_model(folder: Path, precision: Precision = "float32") -> Any:
    """An adapted model in eval mode whose B are not zero."""
    model = add_lora(load_module(folder, precision=precision), LORA).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def gradients(model: Any, keywords: dict[str, LayerMemory]) -> tuple[tuple[Tensor, ...], int, int]:
    """Of a sum of squares; beside it the bytes kept for the backward pass, and how often a layer's MLP was computed."""
    decoder = model.get_base_model().get_decoder()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}
    calls = 0

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hooks = [layer.mlp.register_forward_pre_hook(count) for layer in decoder.layers]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = decoder(input_ids=IDS, use_cache=False, layout=Causal(), **keywords).last_hidden_state
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    result = torch.autograd.grad((hidden**2).sum(), [parameter for parameter in model.parameters() if parameter.requires_grad])
    for hook in hooks:
        hook.remove()
    return result, num_bytes, calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "granite"])
def test_layers_computed_again_give_the_same_gradients_bit_for_bit(tmp_path: Path, kind: str, precision: Precision) -> None:
    model = adapted_model(write_model(tmp_path, kind, **({"sliding_window": None} if kind == "mistral" else {})), precision)
    asked = LayerCheckpoints(model, 1).keywords(8, True)
    plain, plain_bytes, plain_calls = gradients(model, {})
    again, again_bytes, again_calls = gradients(model, asked)
    assert (plain_calls, again_calls) == (2, 4)
    assert again_bytes < plain_bytes / 5
    assert all(float(gradient.abs().max()) > 0 for gradient in plain)
    assert all(torch.equal(left, right) for left, right in zip(plain, again, strict=True))


def test_without_a_gradient_nothing_is_computed_again(sharp_model: Path) -> None:
    model = adapted_model(sharp_model)
    asked = LayerCheckpoints(model, 1).keywords(8, True)
    decoder = model.get_base_model().get_decoder()
    with torch.no_grad():
        plain = decoder(input_ids=IDS, use_cache=False, layout=Causal()).last_hidden_state
        assert torch.equal(decoder(input_ids=IDS, use_cache=False, layout=Causal(), **asked).last_hidden_state, plain)


def test_a_deep_copy_computes_with_its_own_layers(sharp_model: Path) -> None:
    model = adapted_model(sharp_model)
    asked = LayerCheckpoints(model, 1).keywords(8, True)
    other = copy.deepcopy(model)
    before, _, _ = gradients(model, asked)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.mul_(2.0)
    after, _, _ = gradients(other, asked)
    assert not any(torch.equal(left, right) for left, right in zip(before, after, strict=True))
    assert all(torch.equal(left, right) for left, right in zip(before, gradients(model, asked)[0], strict=True))


def test_auto_asks_where_keeping_everything_takes_too_much(sharp_model: Path) -> None:
    checkpoints = LayerCheckpoints(adapted_model(sharp_model), 1)
    assert checkpoints.keywords(100, "auto") == {}
    assert checkpoints.keywords(MAX_KEPT_BYTES // checkpoints.bytes_per_token + 1, "auto") == {KEYWORD: LayerMemory(2, True)}
    assert checkpoints.keywords(10**9, False) == {KEYWORD: LayerMemory(2, False)}
    assert checkpoints.keywords(MIN_RETURNED_BYTES // checkpoints.bytes_per_token, False) == {}


def test_auto_gives_each_of_many_workers_its_share_of_the_free_memory(sharp_model: Path) -> None:
    model = adapted_model(sharp_model)
    assert LayerCheckpoints(model, 1).keywords(100, "auto") == {}
    assert LayerCheckpoints(model, 10**9).keywords(100, "auto") == {KEYWORD: LayerMemory(2, True)}


def test_a_model_without_recomputable_layers_refuses_to_be_asked() -> None:
    checkpoints = LayerCheckpoints(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 1)
    assert checkpoints.keywords(10**12, "auto") == {}
    with pytest.raises(SettingError, match="gradient_checkpointing"):
        checkpoints.keywords(1, True)


def test_what_is_kept_of_a_token_is_what_the_adapted_layers_take_and_give(sharp_model: Path) -> None:
    hidden, keys, inner = 32, 16, 48
    a_layer = 4 * ((hidden + hidden) * 2 + (hidden + keys) * 2 + (hidden + inner) * 3)
    assert kept_bytes_per_token(adapted_model(sharp_model)) == 2 * a_layer


def test_kept_inputs_are_made_before_the_first_layer_and_carry_gradients() -> None:
    memory = LayerMemory(3, keeps_inputs_only=True)
    hidden = torch.arange(4.0, requires_grad=True)
    kept = [memory.enter(hidden * factor) for factor in (1.0, 2.0, 3.0)]
    assert [tensor.tolist() for tensor in kept] == [[0, 1, 2, 3], [0, 2, 4, 6], [0, 3, 6, 9]]
    assert torch.autograd.grad(kept[0].sum() + kept[2].sum(), hidden)[0].tolist() == [4.0] * 4
    assert len({tensor.untyped_storage().data_ptr() for tensor in kept}) == 3


@pytest.mark.parametrize("keeps_inputs_only", [True, False])
def test_what_layers_freed_is_returned_every_few_layers_on_both_ways(monkeypatch: pytest.MonkeyPatch, keeps_inputs_only: bool) -> None:
    returns: list[int] = []
    monkeypatch.setattr(gradient_checkpointing, "return_freed_memory", lambda: returns.append(entered))
    memory = LayerMemory(2 * LAYERS_PER_RETURN + 1, keeps_inputs_only)
    hidden = torch.ones(2, requires_grad=True)
    last = hidden
    for entered in range(memory.num_layers):  # noqa: B007 - read when memory is returned
        last = memory.enter(last) * 1.0
    assert returns == [0, LAYERS_PER_RETURN, 2 * LAYERS_PER_RETURN]
    last.sum().backward()
    # Kept inputs are those of layers that the backward pass computes again, and so frees again.
    assert len(returns) == (6 if keeps_inputs_only else 3)


def test_the_gradient_is_the_same_where_memory_is_returned_in_between(sharp_model: Path) -> None:
    model = adapted_model(sharp_model)
    plain, _, _ = gradients(model, {})
    returning, _, calls = gradients(model, {KEYWORD: LayerMemory(2, keeps_inputs_only=False)})
    assert calls == 2
    assert all(torch.equal(left, right) for left, right in zip(plain, returning, strict=True))
