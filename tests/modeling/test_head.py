"""Token log-probabilities, entropies and their hand-made gradients are those of a plain log-softmax."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from journeyman.modeling.head import ROWS_PER_CHUNK, Head, token_logprobs
from journeyman.modeling.weights import load_module

WIDTH, VOCABULARY = 8, 31
SCALINGS = [(1.0, None), (0.25, None), (1.0, 3.0), (2.0, 5.0)]


def make_head(scale: float, softcap: float | None, *, bias: bool = False) -> Head:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator)
    return Head(weight, torch.randn(VOCABULARY, generator=generator) if bias else None, scale, softcap)


def positions(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(count, WIDTH, generator=generator, requires_grad=True)
    return hidden, torch.randint(0, VOCABULARY, (count,), generator=generator)


def plainly(hidden: Tensor, head: Head, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden, head.weight_VE, head.bias_V) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    log_probs = torch.log_softmax(logits, dim=-1)
    return log_probs.gather(1, targets[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)


@pytest.mark.parametrize("count", [1, 7, ROWS_PER_CHUNK + 5])
@pytest.mark.parametrize(("scale", "softcap"), SCALINGS)
def test_logprobs_and_their_gradient_equal_autograd(scale: float, softcap: float | None, count: int) -> None:
    head = make_head(scale, softcap, bias=True)
    hidden, targets = positions(count)
    weights = torch.linspace(-1, 1, count)
    logprobs, entropies = token_logprobs(hidden, head, targets)
    expected, expected_entropies = plainly(hidden, head, targets)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, expected_entropies.detach(), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((logprobs * weights).sum(), hidden)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), hidden)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "softcap"), SCALINGS)
def test_the_entropy_has_its_gradient_when_asked(scale: float, softcap: float | None) -> None:
    head = make_head(scale, softcap)
    hidden, targets = positions(9)
    logprobs, entropies = token_logprobs(hidden, head, targets, entropy_gradient=True)
    expected, expected_entropies = plainly(hidden, head, targets)
    (gradient,) = torch.autograd.grad((logprobs - 2 * entropies).sum(), hidden)
    (expected_gradient,) = torch.autograd.grad((expected - 2 * expected_entropies).sum(), hidden)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_the_entropy_carries_no_gradient_when_not_asked() -> None:
    hidden, targets = positions(3)
    _, entropies = token_logprobs(hidden, make_head(1.0, None), targets)
    assert not entropies.requires_grad


def test_without_gradients_the_numbers_are_the_same() -> None:
    head = make_head(2.0, 5.0)
    hidden, targets = positions(ROWS_PER_CHUNK + 1)
    with_gradient = token_logprobs(hidden, head, targets)
    without = token_logprobs(hidden.detach(), head, targets)
    for left, right in zip(with_gradient, without, strict=True):
        assert torch.equal(left.detach(), right)


def test_no_position_is_no_number() -> None:
    logprobs, entropies = token_logprobs(torch.zeros(0, WIDTH), make_head(1.0, None), torch.zeros(0, dtype=torch.long))
    assert logprobs.shape == entropies.shape == (0,)


def test_the_head_of_a_model_gives_the_models_logits(sharp_model: Path) -> None:
    from tests.tiny import plain_model

    model = plain_model(sharp_model)
    ids = torch.tensor([[5, 9, 30]])
    with torch.no_grad():
        expected = model(input_ids=ids)
        hidden = model.get_decoder()(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(Head.of(load_module(sharp_model)).logits(hidden), expected.logits[0])
