"""bfloat16 layers stay close to float32, and the sampler rounds where the trainer rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.modeling.test_lora import logits_of
from tests.tiny import LORA, write_adapter

from journeyman.errors import SettingError
from journeyman.modeling.lora import adapted_module, add_lora, load_adapter, read_adapter
from journeyman.modeling.precision import AdaptedLinear, BFloat16Linear, choose_precision
from journeyman.modeling.weights import load_module


def test_bfloat16_layers_predict_nearly_what_float32_predicts(sharp_model: Path) -> None:
    exact, rounded = load_module(sharp_model), load_module(sharp_model, precision="bfloat16")
    difference = torch.log_softmax(logits_of(exact), -1) - torch.log_softmax(logits_of(rounded), -1)
    assert 0 < difference.abs().max() < 0.1


def test_only_the_linear_layers_are_rounded(sharp_model: Path) -> None:
    module = load_module(sharp_model, precision="bfloat16")
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear):
            assert isinstance(layer, BFloat16Linear) == (name != "lm_head"), name
            assert layer.weight.dtype == (torch.float32 if name == "lm_head" else torch.bfloat16)
    assert all(p.dtype == torch.float32 for name, p in module.named_parameters() if "norm" in name or "embed" in name)
    assert logits_of(module).dtype == torch.float32


def test_in_bfloat16_the_sampler_adds_lora_as_the_trainer_does(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    trained = add_lora(load_module(sharp_model, precision="bfloat16"), LORA)
    load_adapter(trained, tmp_path)
    served = adapted_module(load_module(sharp_model, precision="bfloat16"), *read_adapter(tmp_path))
    assert any(isinstance(layer, AdaptedLinear) for layer in served.modules())
    torch.testing.assert_close(logits_of(served), logits_of(trained.get_base_model()), rtol=1e-5, atol=1e-5)


def test_a_small_update_is_not_rounded_away_in_bfloat16(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path, scale=1e-4)
    base = load_module(sharp_model, precision="bfloat16")
    served = adapted_module(base, *read_adapter(tmp_path))
    assert not torch.equal(logits_of(served), logits_of(base))


def test_a_precision_is_honoured_or_refused() -> None:
    assert choose_precision("float32") == "float32"
    assert choose_precision("bfloat16") == "bfloat16"
    assert choose_precision("auto") in ("float32", "bfloat16")
    with pytest.raises(SettingError, match="float16"):
        choose_precision("float16")
