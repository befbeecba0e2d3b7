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
from journeyman.modeling.devices import return_freed_memory
from journeyman.types.settings import Checkpointing

# `auto` keeps at most this much of one micro-batch, so that with the head, a layer's own needs and what the allocator leaves between
# blocks a worker stays below 3 GB: 1,540 tokens of SmolLM2-135M. Above it memory decides what fits at all; below it, time is worth more.
MAX_KEPT_BYTES = 7 << 28
# The keyword of the decoder's forward that asks for it.
KEYWORD = "layer_memory"
# Small objects of the graph end up between the large freed tensors, so that each layer needs some new memory: what is free goes back to
# the system after so many layers. After each it would cost more; where less than this is kept in all, it is not worth its time.
LAYERS_PER_RETURN = 5
MIN_RETURNED_BYTES = 1 << 30


@dataclass(slots=True)
class LayerMemory:
    """What one forward keeps of its layers, and gives back to the system between them.

    Inputs that are kept lie in tensors made before the first layer. Were they made one after the other, each would stand between the
    memory that its layer has used and freed, and the next layer's larger tensors would not fit into what is left: four times as much
    memory would be held as is used.

    Attributes:
        keeps_inputs_only: the backward pass computes the layers again.
    """

    num_layers: int
    keeps_inputs_only: bool
    _num_entered: int = 0
    _free: list[Tensor] = field(default_factory=list)

    def enter(self, hidden: Tensor) -> Tensor:
        """What the next layer computes with, given its input: that input, or a kept copy through which gradients go as through itself."""
        is_due = self._num_entered % LAYERS_PER_RETURN == 0
        if is_due:
            return_freed_memory()
        self._num_entered += 1
        if not self.keeps_inputs_only:
            return hidden
        if not self._free:
            self._free = [torch.empty_like(hidden) for _ in range(self.num_layers)]
        return _Copy.apply(hidden, [self._free.pop()], is_due)  # type: ignore[no-any-return, no-untyped-call]


class _Copy(torch.autograd.Function):
    """Into the place given; on the way back, when its layer has been computed again, what that freed is returned if it is due."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, places: list[Tensor], is_due: bool) -> Tensor:
        ctx.is_due = is_due
        return places[0].copy_(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.is_due:
            return_freed_memory()
        return gradient, None, None


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

    def free_tokens(self, choice: Checkpointing) -> int | None:
        """The most tokens of a micro-batch whose layers are computed once under `choice`, where memory is not short; None: of any."""
        if choice == "auto":
            return self.num_free_tokens
        return 0 if choice else None

    def keywords(self, num_tokens: int, choice: Checkpointing) -> dict[str, LayerMemory]:
        """What to pass to the forward of `num_tokens` tokens: the request to keep the inputs of layers only, or to keep all and return
        what is free in between; nothing where there is too little of it.

        `auto` asks when keeping everything would take more than 1.75 GiB, or than a worker's share of half of the memory that is free now.
        That the free memory differs from run to run changes no result. Raises SettingError for `True` where no layer can do it.

        Example:
            >>> checkpoints.keywords(4_096, "auto")  # of SmolLM2-135M: 5 GB
            {'layer_memory': LayerMemory(num_layers=30, keeps_inputs_only=True)}
        """
        if choice is True and not self._num_layers:
            raise SettingError(
                "gradient_checkpointing is not supported for this model: transformers marks none of its layers as recomputable",
                hint="leave it out, and lower tokens_per_micro_batch if memory is short",
            )
        kept = num_tokens * self.bytes_per_token
        is_wanted = kept > self._limit() if choice == "auto" else choice
        if not self._num_layers or not (is_wanted or kept > MIN_RETURNED_BYTES):
            return {}
        return {KEYWORD: LayerMemory(self._num_layers, is_wanted)}

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
    """The layer's own forward; with `layer_memory`, as that says.

    transformers has a switch of its own for this, but it asks for training mode (and so for dropout), and is one for all threads.
    """
    memory: LayerMemory | None = keywords.pop(KEYWORD, None)
    forward = partial(type(layer).forward, layer)
    if memory is None or not torch.is_grad_enabled():
        return forward(hidden, *arguments, **keywords)  # type: ignore[no-any-return]
    taken = memory.enter(hidden)
    if not memory.keeps_inputs_only:
        return forward(taken, *arguments, **keywords)  # type: ignore[no-any-return]
    # No dropout anywhere, so there is no random state to bring back: doing that would disturb other threads' draws.
    return checkpoint(  # type: ignore[no-any-return]
        forward, taken, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords
    )
