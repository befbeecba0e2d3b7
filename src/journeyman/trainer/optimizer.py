"""The optimiser of the LoRA parameters: one update from summed gradients, what it holds on disk, and taking updates back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from journeyman.errors import TrainingError
from journeyman.types.settings import AdamSettings


class NotFiniteError(TrainingError):
    """A gradient is NaN or infinite; the update was not made."""


def global_norm(gradients: Sequence[Tensor]) -> float:
    """The norm of all gradients together; not finite when one of them is not, or when they are too large to be squared."""
    return float(torch.nn.utils.get_total_norm(gradients))


class LoraOptimizer:
    """AdamW over the trainable parameters, clipped by the global norm."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._adam = torch.optim.AdamW(self._parameters, lr=0.0)

    def apply(self, gradients: Sequence[Tensor], divisor: float, learning_rate: float, adam: AdamSettings) -> float:
        """One update with `gradients / divisor`; returns the norm before clipping. Raises NotFiniteError and changes nothing.

        Gradients that are zero everywhere change nothing either: what taught nothing must not move the weights by old momentum.
        """
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient / divisor
        norm = global_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        if not math.isfinite(norm):
            self._adam.zero_grad(set_to_none=True)
            raise NotFiniteError(f"the gradient is not finite (norm {norm}); the update was not made", hint="lower the learning rate")
        if norm == 0.0:
            self._adam.zero_grad(set_to_none=True)
            return 0.0
        torch.nn.utils.clip_grads_with_norm_(self._parameters, adam.max_gradient_norm, torch.tensor(norm))
        for group in self._adam.param_groups:
            group |= {
                "lr": learning_rate,
                "betas": (adam.beta1, adam.beta2),
                "eps": adam.epsilon,
                "weight_decay": adam.weight_decay,
            }
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """A step of several updates that fails in a later one takes the earlier ones back."""
        parameters = [parameter.detach().clone() for parameter in self._parameters]
        state = {key: {name: tensor.clone() for name, tensor in value.items()} for key, value in self._adam.state.items()}
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for parameter, before in zip(self._parameters, parameters, strict=True):
                    parameter.copy_(before)
            self._adam.state.clear()
            self._adam.state.update(state)
            raise

    def tensors(self) -> dict[str, Tensor]:
        """The moments, named `{parameter}.{moment}`."""
        out: dict[str, Tensor] = {}
        for index, parameter in enumerate(self._parameters):
            for key, value in self._adam.state.get(parameter, {}).items():
                out[f"{index}.{key}"] = torch.as_tensor(value).clone()
        return out

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What `tensors()` gave."""
        self._adam.state.clear()
        for name, tensor in tensors.items():
            index, key = name.split(".", 1)
            self._adam.state[self._parameters[int(index)]][key] = tensor
