"""Value and gradient of every preference loss equal those of TRL 1.16's trainers on the same tensors; where we differ on purpose, it is
shown.

Errors are relative, in float32: of the gradient to its norm, of the value to its size or 1, whichever is larger.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trainer.losses.trl_preference import PairRows, TrlPreference
from torch import Tensor

from journeyman.trainer.losses.preference import Side, preference_loss
from journeyman.types.settings import Dpo, needs_reference

TOLERANCE = 1e-5
LOSSES = ("sigmoid", "hinge", "ipo", "sigmoid_norm", "simpo", "orpo")
# Derandomised: a margin that falls on the hinge's edge rounds to either side.
widely = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def trl() -> TrlPreference:
    return TrlPreference()


@st.composite
def batches(draw: st.DrawFn) -> PairRows:
    """Pairs of any length with any mask (at least one trained token a side), the policy anywhere between the reference and far off."""
    num_pairs, length = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    scale = draw(st.sampled_from([0.0, 1e-3, 0.1, 1.0, 4.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    reference = -torch.rand(2 * num_pairs, length, generator=generator) * 4 - 0.01
    logprobs = (reference + scale * torch.randn(reference.shape, generator=generator)).clamp(max=-0.01)
    mask = torch.rand(reference.shape, generator=generator) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    mask[torch.arange(len(mask)), torch.randint(length, (len(mask),), generator=generator)] = True
    return PairRows(logprobs, reference, mask)


def ours(rows: PairRows, chosen: Dpo) -> Tensor:
    """Our loss of the rows: sums of both sides, the mean over pairs."""
    masked = torch.where(rows.mask, rows.logprobs, 0.0).sum(1)
    reference = torch.where(rows.mask, rows.reference, 0.0).sum(1)
    counts = rows.mask.sum(1)
    known = needs_reference(chosen.loss)
    sides = [
        Side(masked[at], counts[at], reference[at] if known else None)
        for at in (slice(0, rows.num_pairs), slice(rows.num_pairs, 2 * rows.num_pairs))
    ]
    return preference_loss(sides[0], sides[1], chosen, float(counts[: rows.num_pairs].sum()) / rows.num_pairs).loss_P.mean()


def assert_parity(trl: TrlPreference, rows: PairRows, chosen: Dpo) -> None:
    rows = replace(rows, logprobs=rows.logprobs.clone().requires_grad_())
    actual, expected = ours(rows, chosen), trl(rows, chosen.loss, sft_weight=chosen.sft_weight)
    value, wanted_value = float(actual.detach()), float(expected.detach())
    assert abs(value - wanted_value) <= TOLERANCE * max(abs(wanted_value), 1.0)
    got, wanted = (torch.autograd.grad(loss, rows.logprobs)[0] for loss in (actual, expected))
    assert float((got - wanted).norm()) <= TOLERANCE * float(wanted.norm())


@pytest.mark.parametrize("loss", LOSSES)
def test_parity_of_each_loss_with_its_defaults(trl: TrlPreference, loss: str) -> None:
    @widely
    @given(batches())
    def check(rows: PairRows) -> None:
        assert_parity(trl, rows, Dpo(loss=loss))

    check()


@pytest.mark.parametrize("loss", LOSSES)
def test_parity_of_beta(trl: TrlPreference, loss: str) -> None:
    @widely
    @given(batches(), st.floats(0.01, 5.0))
    def check(rows: PairRows, beta: float) -> None:
        assert_parity(trl, rows, Dpo(loss=loss, beta=beta))

    check()


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "simpo"])
def test_parity_of_label_smoothing(trl: TrlPreference, loss: str) -> None:
    @widely
    @given(batches(), st.floats(0.01, 0.49))
    def check(rows: PairRows, doubt: float) -> None:
        assert_parity(trl, rows, Dpo(loss=loss, label_smoothing=doubt))

    check()


def test_parity_of_simpos_margin(trl: TrlPreference) -> None:
    @widely
    @given(batches(), st.floats(0.0, 3.0))
    def check(rows: PairRows, gamma: float) -> None:
        assert_parity(trl, rows, Dpo(loss="simpo", gamma=gamma))

    check()


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "sigmoid_norm", "simpo"])
def test_parity_of_the_added_log_likelihood_of_the_chosen(trl: TrlPreference, loss: str) -> None:
    @widely
    @given(batches(), st.floats(0.01, 2.0))
    def check(rows: PairRows, weight: float) -> None:
        assert_parity(trl, rows, Dpo(loss=loss, sft_weight=weight))

    check()


def test_parity_of_orpo_ends_where_a_mean_log_probability_rounds_to_zero(trl: TrlPreference) -> None:
    rows = PairRows(torch.tensor([[-0.0], [-1.0]], requires_grad=True), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool))
    (theirs,) = torch.autograd.grad(trl(rows, Dpo(loss="orpo").loss), rows.logprobs)
    (own,) = torch.autograd.grad(ours(rows, Dpo(loss="orpo")), rows.logprobs)
    assert not bool(theirs.isfinite().all())
    assert bool(own.isfinite().all())


def test_parity_of_label_smoothing_ends_at_trls_dpo_which_ignores_it(trl: TrlPreference) -> None:
    rows = PairRows(torch.tensor([[-1.0], [-2.0]]), torch.tensor([[-2.0], [-2.0]]), torch.ones(2, 1, dtype=torch.bool))
    assert float(ours(rows, Dpo(label_smoothing=0.1))) == pytest.approx(0.654397, abs=1e-6)
    assert float(trl(rows, Dpo().loss)) == pytest.approx(0.644397, abs=1e-6)
