"""Linear layers in bfloat16, everything else in float32: for processors that multiply bfloat16 in hardware.

Weights and inputs of the (large) linear layers are rounded to bfloat16 and accumulated in float32 by the hardware; the residual stream,
norms, attention, LoRA and the head stay in float32. Sampler and trainer round the same numbers in the same places, so their
log-probabilities stay close, which they do not when the residual stream itself is bfloat16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from journeyman.errors import SettingError

Precision = Literal["float32", "bfloat16"]

_CPU_FLAGS = ("avx512_bf16", "amx_bf16")


def choose_precision(wanted: str = "auto", device: str = "cpu") -> Precision:
    """`auto`: bfloat16 where the processor multiplies it in hardware (AVX512-BF16, AMX, CUDA from Ampere on), else float32."""
    if wanted == "auto":
        return "bfloat16" if _has_fast_bfloat16(device) else "float32"
    if wanted not in ("float32", "bfloat16"):
        raise SettingError(f"unknown precision {wanted!r}", hint="use auto, float32 or bfloat16")
    return wanted  # type: ignore[return-value]


def _has_fast_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    try:
        flags = Path("/proc/cpuinfo").read_text() if device == "cpu" else ""
    except OSError:
        return False
    return any(flag in flags for flag in _CPU_FLAGS)


class BFloat16Linear(nn.Linear):
    """A frozen linear layer that computes in bfloat16 and returns the type it was given."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input.to(self.weight.dtype), self.weight, self.bias).to(input.dtype)


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus LoRA, computed as the trainer does (PEFT's order of operations): for sampling in bfloat16, where
    merging would round the small update away."""

    def __init__(self, base: nn.Module, lora_A: Tensor, lora_B: Tensor, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(lora_A.float(), requires_grad=False)
        self.lora_B = nn.Parameter(lora_B.float(), requires_grad=False)
        self.scaling = scaling

    def forward(self, input: Tensor) -> Tensor:
        low_rank = nn.functional.linear(nn.functional.linear(input, self.lora_A), self.lora_B)
        out: Tensor = self.base(input) + low_rank * self.scaling
        return out


def round_linear_layers(module: nn.Module) -> None:
    """Replace every linear layer but the head by a `BFloat16Linear`, in place."""
    head = module.get_output_embeddings()  # type: ignore[operator]
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and layer is not head:
            rounded = BFloat16Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
            rounded.weight = nn.Parameter(layer.weight.to(torch.bfloat16), requires_grad=False)
            if layer.bias is not None:
                rounded.bias = nn.Parameter(layer.bias.to(torch.bfloat16), requires_grad=False)
            module.set_submodule(name, rounded)
