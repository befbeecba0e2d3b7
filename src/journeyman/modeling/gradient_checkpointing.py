"""Gradient checkpointing: a decoder layer keeps only its input, and the backward pass computes the layer again.

Training Deep Nets with Sublinear Memory Cost (Chen et al., 1604.06174), one segment a layer. The same operations run twice on the same
numbers, so the gradients are those without it, bit for bit; it costs a second forward pass. Not for what a crash leaves behind: that is
the store's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from journeyman.errors import SettingError
from journeyman.modeling.allocator import return_freed_memory
from journeyman.types.settings import Checkpointing

# `auto` keeps at most this much of one micro-batch, so that with the head, a layer's own needs and what the allocator leaves between
# blocks a worker stays below 3 GB: 1,650 tokens of SmolLM2-135M. Above it memory decides what fits at all; below it, time is worth more.
MAX_KEPT_BYTES = 2 << 30
# The keyword of the decoder's forward that asks for it.
KEYWORD = "checkpoint_layers"
# Small objects of the graph end up between the large freed tensors, so that each layer needs some new memory: what is free goes back to
# the system after so many layers. After each it would cost more.
LAYERS_PER_RETURN = 5


@dataclass(slots=True)
class LayerInputs:
    """The inputs that one forward keeps: in tensors made before its first layer.

    Were they made one after the other, each would stand between the memory that its layer has used and freed, and the next layer's larger
    tensors would not fit into what is left: four times as much memory would be held as is used.
    """

    num_layers: int
    _free: list[Tensor] = field(default_factory=list)

    def keep(self, hidden: Tensor) -> Tensor:
        """A copy of `hidden` through which gradients go as through itself."""
        if not self._free:
            self._free = [torch.empty_like(hidden) for _ in range(self.num_layers)]
        elif len(self._free) % LAYERS_PER_RETURN == 0:
            return_freed_memory()
        return _Copy.apply(hidden, [self._free.pop()])  # type: ignore[no-any-return, no-untyped-call]


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, places: list[Tensor]) -> Tensor:  # noqa: ARG004 - torch's signature
        return places[0].copy_(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - torch's signature
        return gradient, None


class LayerCheckpoints:
    """Prepares the layers of one adapted decoder, and decides which micro-batches are computed with checkpoints.

    Args:
        model: with its adapter; layers are changed in place, but compute as before until a forward passes `keywords(...)` that ask.
        num_workers: how many micro-batches are computed at once.

    Attributes:
        num_free_tokens: the most that `auto` computes without checkpoints where memory is not short; of the model alone, so that a
            split by it is the same on every run.
    """

    def __init__(self, model: nn.Module, num_workers: int) -> None:
        self._num_layers = _prepare(model)
        self._num_workers = num_workers
        self.bytes_per_token = kept_bytes_per_token(model)
        self.num_free_tokens = max(1, MAX_KEPT_BYTES // max(1, self.bytes_per_token))

    def keywords(self, num_tokens: int, choice: Checkpointing) -> dict[str, LayerInputs]:
        """What to pass to the forward of `num_tokens` tokens: nothing, or the request to keep the inputs of layers only.

        `auto` asks when keeping everything would take more than 2 GiB, or than a worker's share of half of the memory that is free now.
        That the free memory differs from run to run changes no result. Raises SettingError for `True` where no layer can do it.

        Example:
            >>> checkpoints.keywords(4_096, "auto")  # of SmolLM2-135M: 5 GB
            {'checkpoint_layers': LayerInputs(num_layers=30)}
        """
        if choice is True and not self._num_layers:
            raise SettingError(
                "gradient_checkpointing is not supported for this model: transformers marks none of its layers as recomputable",
                hint="leave it out, and lower tokens_per_micro_batch if memory is short",
            )
        is_wanted = num_tokens * self.bytes_per_token > self._limit() if choice == "auto" else choice
        return {KEYWORD: LayerInputs(self._num_layers)} if is_wanted and self._num_layers else {}

    def _limit(self) -> int:
        return min(MAX_KEPT_BYTES, int(psutil.virtual_memory().available) // 2 // self._num_workers)


def kept_bytes_per_token(model: nn.Module) -> int:
    """About how much the backward pass needs kept of each token: the inputs and outputs of the adapted layers, in float32.

    Inputs are kept for the adapter's gradient, and what lies between two linear layers keeps about as much as their outputs. Measured
    on SmolLM2-135M: see docs/performance.md.
    """
    shapes = {name: parameter.shape for name, parameter in model.named_parameters() if parameter.requires_grad}
    inputs = sum(shape[1] for name, shape in shapes.items() if ".lora_A." in name)
    outputs = sum(shape[0] for name, shape in shapes.items() if ".lora_B." in name)
    return 4 * (inputs + outputs)


def _prepare(model: nn.Module) -> int:
    """Make the outermost recomputable layers understand the keyword; how many there are."""
    count = 0
    pending = list(model.children())
    while pending:
        module = pending.pop()
        if isinstance(module, GradientCheckpointingLayer):
            # Bound to this layer, so that a deep copy of the model computes with the copy's layer.
            module.forward = MethodType(_forward, module)
            count += 1
        else:
            pending.extend(module.children())
    return count


def _forward(layer: nn.Module, hidden: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """The layer's own forward; with `checkpoint_layers`, keeping only its input.

    transformers has a switch of its own for this, but it asks for training mode (and so for dropout), and is one for all threads.
    """
    inputs: LayerInputs | None = keywords.pop(KEYWORD, None)
    forward = partial(type(layer).forward, layer)
    if inputs is None or not torch.is_grad_enabled():
        return forward(hidden, *arguments, **keywords)  # type: ignore[no-any-return]
    # No dropout anywhere, so there is no random state to bring back: doing that would disturb other threads' draws.
    return checkpoint(  # type: ignore[no-any-return]
        forward, inputs.keep(hidden), *arguments, use_reentrant=False, preserve_rng_state=False, **keywords
    )
