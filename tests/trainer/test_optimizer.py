"""An update is made with sound gradients, or nothing changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from journeyman.trainer.optimizer import LoraOptimizer, NotFiniteError
from journeyman.types.settings import AdamSettings


def updated(gradients: list[float]) -> tuple[LoraOptimizer, nn.Parameter]:
    """After an update with each gradient."""
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = LoraOptimizer([parameter])
    for gradient in gradients:
        optimizer.apply([torch.full((2,), gradient)], 1.0, 0.1, AdamSettings())
    return optimizer, parameter


def test_gradients_that_are_zero_move_nothing_whatever_the_moments_are() -> None:
    (optimizer, moved), (still, same) = updated([1.0, 0.0, 0.0]), updated([1.0])
    assert torch.equal(moved, same)
    assert all(torch.equal(value, still.tensors()[name]) for name, value in optimizer.tensors().items())
    assert optimizer.apply([torch.zeros(2)], 1.0, 0.1, AdamSettings()) == 0.0


@pytest.mark.parametrize("gradient", [float("nan"), float("inf"), 1e30])
def test_gradients_that_are_not_finite_or_too_large_to_be_squared_are_refused_and_change_nothing(gradient: float) -> None:
    optimizer, parameter = updated([1.0])
    before, state = parameter.detach().clone(), optimizer.tensors()
    with pytest.raises(NotFiniteError):
        optimizer.apply([torch.full((2,), gradient)], 1.0, 0.1, AdamSettings())
    assert torch.equal(parameter, before)
    assert all(torch.equal(value, state[name]) for name, value in optimizer.tensors().items())
