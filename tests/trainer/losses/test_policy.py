"""The clipped loss on the textbook example, value and gradient, and where its limits are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from journeyman.trainer.losses.policy import k3, policy_loss

LOGPROBS = [-1.0, -0.5, -2.0]
OLD = torch.tensor([-1.2, -0.9, -1.5])
BASE = torch.tensor([-1.1, -0.4, -1.8])


def value_and_gradient(old: Tensor, advantage: float, clip_low: float, clip_high: float, **more: object) -> tuple[list[float], list[float]]:
    """The loss of each token by itself (the function returns the sum), and its gradient."""
    values, gradients = [], []
    for index in range(len(LOGPROBS)):
        logprob = torch.tensor(LOGPROBS[index : index + 1], requires_grad=True)
        base = {key: value[index : index + 1] if isinstance(value, Tensor) else value for key, value in more.items()}
        result = policy_loss(logprob, old[index : index + 1], torch.tensor([advantage]), clip_low=clip_low, clip_high=clip_high, **base)  # type: ignore[arg-type]
        result.loss.backward()
        assert logprob.grad is not None
        values.append(float(result.loss.detach()))
        gradients.append(float(logprob.grad))
    return values, gradients


@pytest.mark.parametrize(
    ("advantage", "clip_high", "values", "gradients"),
    [
        (1.0, 0.2, [-1.2, -1.2, -0.606531], [0, 0, -0.606531]),
        (-1.0, 0.2, [1.221403, 1.491825, 0.8], [1.221403, 1.491825, 0]),
        (1.0, 0.28, [-1.221403, -1.28, -0.606531], [-1.221403, 0, -0.606531]),
        (-1.0, 0.28, [1.221403, 1.491825, 0.8], [1.221403, 1.491825, 0]),
    ],
)
def test_the_clipped_loss_has_its_known_values_and_gradients(
    advantage: float, clip_high: float, values: list[float], gradients: list[float]
) -> None:
    got_values, got_gradients = value_and_gradient(OLD, advantage, 0.2, clip_high)
    assert got_values == pytest.approx(values, abs=1e-5)
    assert got_gradients == pytest.approx(gradients, abs=1e-5)


def test_the_loss_is_the_sum_over_tokens_and_what_is_logged_too() -> None:
    result = policy_loss(torch.tensor(LOGPROBS), OLD, torch.ones(3), clip_low=0.2, clip_high=0.28)
    assert float(result.loss) == pytest.approx(-1.221403 - 1.28 - 0.606531, abs=1e-5)
    assert float(result.ratio) == pytest.approx(1.221403 + 1.491825 + 0.606531, abs=1e-5)
    assert int(result.clipped) == 1
    assert float(result.gap) == pytest.approx(0.2 + 0.4 + 0.5, abs=1e-6)
    assert float(result.gap_max) == pytest.approx(0.5, abs=1e-6)


def test_k3_has_its_known_values_and_gradient() -> None:
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    values = k3(logprobs, BASE)
    values.sum().backward()
    assert values.detach().tolist() == pytest.approx([0.004837, 0.005171, 0.021403], abs=1e-6)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.095163, -0.105171, -0.221403], abs=1e-6)


def test_the_penalty_to_the_base_is_added_to_the_loss() -> None:
    plain, plain_gradients = value_and_gradient(OLD, 1.0, 0.2, 0.2)
    values, gradients = value_and_gradient(OLD, 1.0, 0.2, 0.2, base_logprob_N=BASE, kl_coefficient=0.5)
    assert [a - b for a, b in zip(values, plain, strict=True)] == pytest.approx([0.0024185, 0.0025855, 0.0107015], abs=1e-6)
    slopes = [a - b for a, b in zip(gradients, plain_gradients, strict=True)]
    assert slopes == pytest.approx([0.0475815, -0.0525855, -0.1107015], abs=1e-6)


def test_the_penalty_is_off_without_a_coefficient() -> None:
    assert value_and_gradient(OLD, 1.0, 0.2, 0.2, base_logprob_N=BASE) == value_and_gradient(OLD, 1.0, 0.2, 0.2)


@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_an_unknown_old_logprob_counts_as_no_difference(advantage: float) -> None:
    values, gradients = value_and_gradient(torch.full((3,), float("nan")), advantage, 0.2, 0.28)
    assert values == pytest.approx([-advantage] * 3)
    assert gradients == pytest.approx([-advantage] * 3)


@pytest.mark.parametrize("old", [-500.0, 500.0])
def test_an_absurd_difference_stays_finite_and_does_not_move_the_policy(old: float) -> None:
    for advantage in (1.0, -1.0):
        values, gradients = value_and_gradient(torch.full((3,), old), advantage, 0.2, 0.28, base_logprob_N=torch.full((3,), old))
        assert all(map(torch.isfinite, map(torch.tensor, values)))
        assert gradients == [0.0, 0.0, 0.0]


def test_no_terms_are_no_loss() -> None:
    nothing = torch.zeros(0)
    result = policy_loss(nothing, nothing, nothing, clip_low=0.2, clip_high=0.28)
    assert float(result.loss) == 0.0
    assert float(result.gap_max) == 0.0
