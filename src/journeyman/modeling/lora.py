"""LoRA through PEFT: wrap a module, save and read adapters in PEFT's format, merge them into plain weights for sampling.

The folder format is PEFT's (`adapter_config.json`, `adapter_model.safetensors`), so vLLM and PEFT load what we write.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from journeyman.errors import AdapterError
from journeyman.modeling.precision import AdaptedLinear, BFloat16Linear
from journeyman.modeling.weights import share_weights
from journeyman.types.settings import LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
_FOREIGN_SETTINGS = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "layer_replication")


def add_lora(module: nn.Module, settings: LoraSettings) -> PeftModel:
    """Wrap `module` with trainable LoRA on every linear layer but the head; B starts at zero, A from `settings.seed`."""
    # Here, since sampling needs none of it and it takes longer to import than torch: an engine process starts without.
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for a property under the name it had before; nothing a user could act on.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        torch.default_generator.manual_seed(settings.seed)  # not those of GPUs: they would stay so
        model = get_peft_model(module, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The LoRA tensors under PEFT's file names, detached, in float32."""
    return {
        name.replace(".default.", "."): parameter.detach().float().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and float32 bytes, in name order: equal if and only if the adapters are equal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_adapter(model: PeftModel, folder: Path) -> str:
    """Write the adapter into `folder` (made if missing), flushed to disk; returns its fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = adapter_tensors(model)
    save_file(tensors, str(folder / WEIGHTS_FILE))
    model.peft_config["default"].save_pretrained(str(folder))
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    return fingerprint(tensors)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], float]:
    """The tensors of an adapter folder and its scaling (alpha / rank, or alpha / sqrt(rank) for rslora).

    Raises:
        AdapterError: missing or unreadable files, or a kind of adapter other than plain LoRA.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        tensors = load_file(str(folder / WEIGHTS_FILE))
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(
            f"the adapter in {folder} cannot be read: {error}", hint="give a folder written by Journeyman or PEFT"
        ) from error
    _require_plain_lora(config, tensors, folder)
    rank = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    return tensors, float(config["lora_alpha"]) / float(rank)


def _require_plain_lora(config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """What we would silently get wrong is refused: other methods, scalings that differ by layer, halves of a pair."""
    foreign = [key for key in _FOREIGN_SETTINGS if config.get(key)]
    if config.get("peft_type", "LORA") != "LORA":
        foreign.append(f"peft_type {config['peft_type']}")
    if config.get("bias", "none") != "none":
        foreign.append(f"bias {config['bias']}")
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    if not tensors:
        foreign.append("no tensors")
    if tensors.keys() != {f"{layer}.lora_{half}.weight" for layer in layers for half in "AB"}:
        foreign.append("tensors that are no pairs of lora_A and lora_B")
    if foreign:
        raise AdapterError(f"the adapter in {folder} uses {', '.join(foreign)}", hint="only plain LoRA adapters are served")


def load_adapter(model: PeftModel, folder: Path) -> str:
    """Copy the adapter in `folder` into the trainable LoRA parameters; returns its fingerprint."""
    tensors, _ = read_adapter(folder)
    own = {name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise AdapterError(
            f"the adapter in {folder} does not fit this model",
            hint="use the base model, rank and layers that it was trained with",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return fingerprint(tensors)


def adapted_module(base: nn.Module, tensors: Mapping[str, Tensor], scaling: float) -> nn.Module:
    """A module to sample from that shares `base`'s tensors except the adapted weights.

    Those become W + scaling * B @ A, computed in float32; layers that compute in bfloat16 get LoRA beside them instead, because rounding
    the sum would lose small updates. An adapter whose B are all zero changes nothing: the result is the base exactly.
    """
    adapted = share_weights(base)
    for name in sorted({name.rsplit(".lora_", 1)[0] for name in tensors}):
        path = name.removeprefix(_PREFIX)
        try:
            layer = adapted.get_submodule(path)
        except AttributeError as error:
            raise AdapterError(f"the adapter adapts {path}, which the base model does not have") from error
        lora_A, lora_B = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        if not isinstance(layer, nn.Linear) or layer.weight.shape != (lora_B.shape[0], lora_A.shape[1]):
            raise AdapterError(f"the adapter's {path} has another shape than the base model's")
        if lora_B.any():
            _adapt(adapted, path, layer, lora_A.to(layer.weight.device), lora_B.to(layer.weight.device), scaling)
    return adapted


def _adapt(module: nn.Module, path: str, layer: nn.Linear, lora_A: Tensor, lora_B: Tensor, scaling: float) -> None:
    if isinstance(layer, BFloat16Linear):
        module.set_submodule(path, AdaptedLinear(layer, lora_A, lora_B, scaling))
    else:
        merged = layer.weight.float() + (lora_B.float() @ lora_A.float()) * scaling
        layer.weight = nn.Parameter(merged.to(layer.weight.dtype), requires_grad=False)
