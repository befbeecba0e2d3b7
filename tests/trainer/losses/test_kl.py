"""The three estimates of the KL divergence on the textbook example, value and gradient."""

from __future__ import annotations

import pytest
import torch

from journeyman.trainer.losses.kl import kl_terms
from journeyman.types.losses import KlEstimator


@pytest.mark.parametrize(
    ("estimator", "values", "gradients"),
    [
        ("k1", [0.1, -0.1, -0.2], [1.0, 1.0, 1.0]),
        ("k2", [0.005, 0.005, 0.02], [0.1, -0.1, -0.2]),
        ("k3", [0.004837, 0.005171, 0.021403], [0.095163, -0.105171, -0.221403]),
    ],
)
def test_each_estimator_has_its_known_values_and_gradient(estimator: KlEstimator, values: list[float], gradients: list[float]) -> None:
    logprobs = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    got = kl_terms(logprobs, torch.tensor([-1.1, -0.4, -1.8]), estimator)
    got.sum().backward()
    assert got.detach().tolist() == pytest.approx(values, abs=1e-6)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(gradients, abs=1e-6)


def test_on_policy_the_expected_gradient_is_the_one_that_the_documentation_names() -> None:
    logits = torch.tensor([0.3, -0.7, 1.1], requires_grad=True)
    base = torch.log_softmax(torch.tensor([1.0, 0.2, -0.5]), dim=0)
    logprobs = torch.log_softmax(logits, dim=0)
    weights = logprobs.detach().exp()

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    estimated = {name: gradient((weights * kl_terms(logprobs, base, name)).sum()) for name in ("k1", "k2", "k3")}
    torch.testing.assert_close(estimated["k1"], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(estimated["k2"], gradient((logprobs.exp() * (logprobs - base)).sum()))
    torch.testing.assert_close(estimated["k3"], gradient((base.exp() * (base - logprobs)).sum()))
