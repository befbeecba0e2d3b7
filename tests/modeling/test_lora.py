"""An adapter survives the disk, is PEFT's own, and merged it predicts what it predicted while it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.modeling.test_attention import Causal
from tests.tiny import LORA, plain_model, write_adapter
from torch import Tensor, nn

from journeyman.errors import AdapterError
from journeyman.modeling.head import Head
from journeyman.modeling.lora import adapted_module, adapter_tensors, add_lora, fingerprint, load_adapter, read_adapter, save_adapter
from journeyman.modeling.weights import load_module
from journeyman.types.settings import LoraSettings

IDS = torch.tensor([[5, 9, 30, 7, 7, 12, 100]])


def logits_of(module: nn.Module) -> Tensor:
    with torch.no_grad():
        hidden = module.get_decoder()(input_ids=IDS, use_cache=False, layout=Causal()).last_hidden_state[0]  # type: ignore[operator]
        return Head.of(module).logits(hidden)


def plain_logits(base: Path, adapter: Path | None = None) -> Tensor:
    with torch.no_grad():
        return plain_model(base, adapter)(input_ids=IDS).logits[0]  # type: ignore[no-any-return]


def rewrite_config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_an_adapter_comes_back_from_disk_as_it_was(sharp_model: Path, tmp_path: Path) -> None:
    written = write_adapter(sharp_model, tmp_path)
    tensors, scaling = read_adapter(tmp_path)
    assert scaling == LORA.alpha / LORA.rank
    assert fingerprint(tensors) == written
    other = add_lora(load_module(sharp_model), LORA.model_copy(update={"seed": 9}))
    assert fingerprint(adapter_tensors(other)) != written
    assert load_adapter(other, tmp_path) == written
    assert fingerprint(adapter_tensors(other)) == written
    assert save_adapter(other, tmp_path / "again") == written


def test_the_fingerprint_sees_every_value_and_name_and_no_order(sharp_model: Path, tmp_path: Path) -> None:
    written = write_adapter(sharp_model, tmp_path)
    tensors, _ = read_adapter(tmp_path)
    assert fingerprint(dict(reversed(tensors.items()))) == written
    name = sorted(tensors)[3]
    changed = tensors | {name: tensors[name].clone()}
    changed[name][0, 0] += 1e-6
    assert fingerprint(changed) != written
    assert fingerprint({key + "x" if key == name else key: value for key, value in tensors.items()}) != written


def test_peft_loads_our_folder_and_predicts_the_same(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    merged = adapted_module(load_module(sharp_model), *read_adapter(tmp_path))
    expected = plain_logits(sharp_model, tmp_path)
    assert (expected - plain_logits(sharp_model)).abs().max() > 0.1, "the adapter must matter in this test"
    torch.testing.assert_close(logits_of(merged), expected, rtol=1e-5, atol=2e-5)


def test_the_trained_module_predicts_what_peft_predicts(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    model = add_lora(load_module(sharp_model), LORA)
    load_adapter(model, tmp_path)
    torch.testing.assert_close(logits_of(model.get_base_model()), plain_logits(sharp_model, tmp_path), rtol=1e-5, atol=2e-5)


def test_a_new_adapter_changes_nothing_at_all(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path, scale=0.0)
    base = load_module(sharp_model)
    assert torch.equal(logits_of(adapted_module(base, *read_adapter(tmp_path))), logits_of(base))


def test_merging_leaves_the_base_alone(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    base = load_module(sharp_model)
    before = logits_of(base)
    adapted_module(base, *read_adapter(tmp_path))
    assert torch.equal(logits_of(base), before)


def test_lora_starts_the_same_for_the_same_seed_and_spares_the_head(sharp_model: Path) -> None:
    first, second, third = (
        adapter_tensors(add_lora(load_module(sharp_model), LoraSettings(rank=2, alpha=4, seed=seed))) for seed in (5, 5, 6)
    )
    assert fingerprint(first) == fingerprint(second) != fingerprint(third)
    assert not any("lm_head" in name for name in first)
    assert len(first) == 2 * 2 * 7, "A and B of the seven linear layers of both blocks"
    assert not any(tensor.any() for name, tensor in first.items() if "lora_B" in name)


def test_drawing_an_adapter_leaves_the_random_state_alone(sharp_model: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    add_lora(load_module(sharp_model), LORA)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_adapter_of_another_rank_is_refused(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter(add_lora(load_module(sharp_model), LoraSettings(rank=2)), tmp_path)


def test_an_adapter_of_another_model_is_refused(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    tensors, scaling = read_adapter(tmp_path)
    name = next(name for name in tensors if "lora_B" in name)
    with pytest.raises(AdapterError, match="another shape"):
        adapted_module(load_module(sharp_model), tensors | {name: torch.ones(3, LORA.rank)}, scaling)
    moved = {key.replace("layers.1.", "layers.7."): value for key, value in tensors.items()}
    with pytest.raises(AdapterError, match="does not have"):
        adapted_module(load_module(sharp_model), moved, scaling)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 64}},
        {"peft_type": "IA3"},
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(sharp_model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    write_adapter(sharp_model, tmp_path)
    rewrite_config(tmp_path, **changes)
    with pytest.raises(AdapterError):
        read_adapter(tmp_path)


def test_a_rank_stabilised_adapter_has_its_own_scaling(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    rewrite_config(tmp_path, use_rslora=True)
    assert read_adapter(tmp_path)[1] == pytest.approx(LORA.alpha / LORA.rank**0.5)


def test_a_missing_or_broken_folder_is_a_clear_error(sharp_model: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(tmp_path / "nowhere")
    write_adapter(sharp_model, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(tmp_path)


def test_an_adapter_of_no_tensors_would_serve_the_base_and_is_refused(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    save_file({}, str(tmp_path / "adapter_model.safetensors"))
    with pytest.raises(AdapterError):
        read_adapter(tmp_path)


def test_an_adapter_lacking_a_half_is_refused(sharp_model: Path, tmp_path: Path) -> None:
    write_adapter(sharp_model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(str(file))
    tensors.pop(next(name for name in tensors if "lora_A" in name))
    save_file(tensors, str(file))
    with pytest.raises(AdapterError):
        adapted_module(load_module(sharp_model), *read_adapter(tmp_path))
