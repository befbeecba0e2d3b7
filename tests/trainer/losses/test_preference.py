"""Preference losses have the published values, and push the way they should."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from journeyman.trainer.losses.preference import PairLoss, Side, preference_loss
from journeyman.types.settings import Dpo


def pair(chosen: float, rejected: float, settings: Dpo, *, num_terms: tuple[int, int] = (1, 1)) -> PairLoss:
    """The loss of one pair whose sides changed by so many nats since a reference at 0."""
    sides = [
        Side(torch.tensor([value]), torch.tensor([count]), torch.zeros(1))
        for value, count in zip((chosen, rejected), num_terms, strict=True)
    ]
    return preference_loss(sides[0], sides[1], settings, num_terms[0])


@pytest.mark.parametrize(
    ("given", "change", "expected"),
    [
        ({}, 0.0, 0.693147),
        ({}, 1.0, 0.644397),
        ({}, -1.0, 0.744397),
        ({"loss": "hinge"}, 1.0, 0.9),
        ({"loss": "hinge"}, -1.0, 1.1),
        ({"loss": "hinge"}, 10.5, 0.0),
        ({"label_smoothing": 0.1}, 1.0, 0.654397),
        ({"label_smoothing": 0.1}, -1.0, 0.734397),
        ({"loss": "ipo"}, 0.0, 25.0),
        ({"loss": "ipo"}, 5.0, 0.0),
        ({"loss": "sigmoid_norm", "beta": 0.1}, 1.0, 0.644397),
        ({"loss": "simpo", "beta": 2.0, "gamma": 1.0}, 0.5, 0.693147),
    ],
)
def test_golden_values(given: dict[str, Any], change: float, expected: float) -> None:
    assert float(pair(change, 0.0, Dpo(**given)).loss_P) == pytest.approx(expected, abs=1e-6)
    # Only the difference counts.
    assert float(pair(change - 3.0, -3.0, Dpo(**given)).loss_P) == pytest.approx(expected, abs=1e-5)


def test_golden_value_of_orpo() -> None:
    # Mean log-probabilities ln 0.5 and ln 0.2: odds 1 and 1/4, their ratio 4; -0.1 log sigmoid(ln 4) = -0.1 ln 0.8.
    found = pair(4 * math.log(0.5), 2 * math.log(0.2), Dpo(loss="orpo"), num_terms=(4, 2))
    assert float(found.loss_P) == pytest.approx(math.log(2.0) - 0.1 * math.log(0.8), abs=1e-6)


@pytest.mark.parametrize("loss", ["ipo", "sigmoid_norm", "simpo"])
def test_losses_of_means_do_not_see_length(loss: str) -> None:
    short = pair(-2.0, -4.0, Dpo(loss=loss), num_terms=(2, 4)).loss_P
    longer = pair(-6.0, -8.0, Dpo(loss=loss), num_terms=(6, 8)).loss_P
    assert float(short) == pytest.approx(float(longer))


def test_rewards_are_beta_times_what_is_compared() -> None:
    found = pair(3.0, -1.0, Dpo(beta=0.2))
    assert (float(found.chosen_reward_P), float(found.rejected_reward_P)) == pytest.approx((0.6, -0.2))
    found = pair(3.0, -1.0, Dpo(loss="ipo", beta=0.2), num_terms=(3, 2))
    assert (float(found.chosen_reward_P), float(found.rejected_reward_P)) == pytest.approx((0.2, -0.1))


def test_orpo_is_exact_where_probabilities_are_near_one_or_zero() -> None:
    for mean in (-1e-5, -1e-3, -0.69, -0.7, -30.0):
        value = torch.tensor([mean], dtype=torch.float64, requires_grad=True)
        sides = Side(value, torch.ones(1)), Side(torch.tensor([-1.0], dtype=torch.float64), torch.ones(1))
        found = preference_loss(*sides, Dpo(loss="orpo", beta=1.0), 1.0).loss_P
        odds = (mean - math.log(-math.expm1(mean))) - (-1.0 - math.log(-math.expm1(-1.0)))
        assert float(found.detach()) == pytest.approx(math.log1p(math.exp(-odds)) - mean, rel=1e-9)
        (slope,) = torch.autograd.grad(found.sum(), value)
        assert -1e6 < float(slope) < 0.0


def test_a_loss_with_a_reference_refuses_sides_without_one() -> None:
    side = Side(torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="reference"):
        preference_loss(side, side, Dpo(), 1.0)
