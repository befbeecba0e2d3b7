"""Value and gradient of every loss equal those of TRL 1.16's GRPOTrainer on the same tensors; where we differ on purpose, it is shown.

Errors are relative, in float32: of the gradient to its norm, of the value to its size or that of the advantages, whichever is larger
(terms of both signs cancel).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trainer.losses.trl import Rows, TrlLoss, trl_loss
from tests.trainer.losses.trl_scoring import TrlScoring, trl_scoring
from torch import Tensor

from journeyman.shaping import overlong_penalty
from journeyman.trainer.losses.policy import Precomputed, policy_loss
from journeyman.trainer.losses.terms import BatchTotals, Terms, divisor
from journeyman.types.losses import OverlongPenalty
from journeyman.types.settings import Grpo

TOLERANCE = 1e-5
LOSSES = ("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo")
# Derandomised: ratios that fall on a clip's edge round to either side.
widely = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def trl() -> TrlLoss:
    return trl_loss()


@pytest.fixture(scope="module")
def scoring() -> TrlScoring:
    return trl_scoring()


@st.composite
def batches(draw: st.DrawFn) -> Rows:
    """Rows of any shape with any mask (at least one trained token a row), on-policy to far off it."""
    num_rows, length = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    scale = draw(st.sampled_from([0.0, 1e-4, 1e-3, 0.1, 0.5, 2.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    logprobs = -torch.rand(num_rows, length, generator=generator) * 4 - 0.01
    mask = torch.rand(num_rows, length, generator=generator) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    mask[torch.arange(num_rows), torch.randint(length, (num_rows,), generator=generator)] = True
    advantages = noise(num_rows) * draw(st.sampled_from([1.0, 10.0]))
    advantages[noise(num_rows) > 1.5] = 0.0
    return Rows(
        logprobs,
        logprobs + scale * noise(num_rows, length),
        advantages,
        mask,
        noise(num_rows, length).abs(),
        logprobs + noise(num_rows, length) - draw(st.sampled_from([0.0, 0.0, 30.0])),
    )


def ours(
    rows: Rows, chosen: Grpo, *, sequences: Tensor | None = None, totals: BatchTotals | None = None, first: Tensor | None = None
) -> Tensor:
    """Our loss of the rows, each a trajectory unless `sequences` says otherwise."""
    at = rows.mask.nonzero()[:, 0]
    sequence = at if sequences is None else sequences[at]
    totals = totals or BatchTotals.of_one(sequence)
    terms = Terms(rows.sampler[rows.mask], rows.advantages[at], sequence)
    known = Precomputed(None if first is None else first[rows.mask], rows.base[rows.mask])
    result = policy_loss(rows.logprobs[rows.mask], rows.entropies[rows.mask], terms, chosen, totals, known)
    return result.loss / divisor(chosen.loss, totals)


def with_leaves(rows: Rows) -> Rows:
    return replace(rows, logprobs=rows.logprobs.clone().requires_grad_(), entropies=rows.entropies.clone().requires_grad_())


def gradients(loss: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    first, second = torch.autograd.grad(loss, [rows.logprobs, rows.entropies], allow_unused=True)
    return (
        torch.zeros_like(rows.logprobs) if first is None else first,
        torch.zeros_like(rows.logprobs) if second is None else second,
    )


def assert_equal(actual: Tensor, expected: Tensor, rows: Rows) -> None:
    value, wanted_value = float(actual.detach()), float(expected.detach())
    size = max(abs(wanted_value), float(rows.advantages.abs().mean()), 1e-6)
    assert abs(value - wanted_value) <= TOLERANCE * size
    for got, wanted in zip(gradients(actual, rows), gradients(expected, rows), strict=True):
        assert float((got - wanted).norm()) <= TOLERANCE * float(wanted.norm())


def assert_parity(trl: TrlLoss, rows: Rows, chosen: Grpo) -> None:
    rows = with_leaves(rows)
    assert_equal(ours(rows, chosen), trl(rows, chosen, old=rows.sampler), rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_parity_of_each_loss_with_its_defaults(trl: TrlLoss, loss: str) -> None:
    @widely
    @given(batches())
    def check(rows: Rows) -> None:
        assert_parity(trl, rows, Grpo(loss=loss))

    check()


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo"])
def test_parity_of_clip_widths_two_sided_clip_and_both_importance_levels(trl: TrlLoss, loss: str) -> None:
    @widely
    @given(batches(), st.floats(1e-3, 1), st.floats(1e-3, 1), st.sampled_from([None, 2.5, 4.0]), st.sampled_from(["token", "sequence"]))
    def check(rows: Rows, low: float, high: float, delta: float | None, importance: str) -> None:
        assert_parity(trl, rows, Grpo(loss=loss, clip_low=low, clip_high=high, delta=delta, importance=importance))

    check()


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": "cispo", "max_weight": 1.2},
        {"loss": "cispo", "max_weight": 1.2, "importance": "sequence"},
        {"loss": "gspo", "clip_low": 0.1, "clip_high": 0.3},
        {"loss": "gspo", "delta": 1.5},
    ],
)
def test_parity_of_the_other_losses_own_parameters(trl: TrlLoss, parameters: dict[str, Any]) -> None:
    @widely
    @given(batches())
    def check(rows: Rows) -> None:
        assert_parity(trl, rows, Grpo(**parameters))

    check()


@pytest.mark.parametrize("loss", LOSSES)
def test_parity_of_the_penalty_to_the_base_and_the_entropy_bonus(trl: TrlLoss, loss: str) -> None:
    @widely
    @given(batches(), st.sampled_from([0.04, 1.0]), st.booleans(), st.sampled_from([0.0, 0.01]))
    def check(rows: Rows, coefficient: float, is_weighted: bool, bonus: float) -> None:
        is_weighted = is_weighted and loss != "gspo"  # there we weigh by token, TRL by trajectory: see below
        assert_parity(trl, rows, Grpo(loss=loss, kl_coefficient=coefficient, kl_importance_weight=is_weighted, entropy_bonus=bonus))

    check()


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo"])
@pytest.mark.parametrize("mismatch", ["token_truncate", "token_mask"])
def test_parity_of_token_weights_against_mismatch(trl: TrlLoss, scoring: TrlScoring, loss: str, mismatch: str) -> None:
    @widely
    @given(batches(), st.sampled_from([None, 0.3]))
    def check(rows: Rows, moved: float | None) -> None:
        chosen = Grpo(loss=loss, mismatch=mismatch)
        # The first update, and a later one in which the policy has moved away from what it was before the step.
        first = None if moved is None else rows.logprobs + moved * torch.sin(torch.arange(rows.logprobs.numel())).view_as(rows.logprobs)
        bounds = getattr(chosen.mismatch, "min_weight", None), chosen.mismatch.max_weight
        before = rows.logprobs if first is None else first
        scored = scoring(torch.zeros(len(before)), 1, trained=before, sampled=rows.sampler, mode=mismatch, bounds=bounds)
        weights = scored["importance_sampling_ratio"]
        rows = with_leaves(rows)
        assert_equal(ours(rows, chosen, first=first), trl(rows, chosen, old=first, weights=weights), rows)

    check()


@pytest.mark.parametrize("loss", LOSSES)
def test_parity_of_accumulated_micro_batches_of_equal_size(trl: TrlLoss, loss: str) -> None:
    @widely
    @given(st.lists(batches(), min_size=1, max_size=3))
    def check(parts: list[Rows]) -> None:
        chosen = Grpo(loss=loss)
        size = min(len(part.mask) for part in parts)
        parts = [Rows(*(getattr(part, name)[:size] for name in Rows.__dataclass_fields__)) for part in parts]
        counts = torch.cat([part.mask.sum(1) for part in parts])
        # Each a group of its own: what TRL averages within a pass, `bnpo` averages within a group.
        totals = BatchTotals(counts, torch.arange(len(parts)).repeat_interleave(size))
        for number, part in enumerate(parts):
            rows = with_leaves(part)
            sequences = torch.arange(size) + number * size
            theirs = trl(rows, chosen, old=rows.sampler, num_items=totals.num_terms, num_micro_batches=len(parts))
            assert_equal(ours(rows, chosen, sequences=sequences, totals=totals), theirs, rows)

    check()


def test_parity_of_the_overlong_penalty(trl: TrlLoss) -> None:
    from trl.rewards import get_soft_overlong_punishment

    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)(completion_ids=[[1] * n for n in range(130)])
    penalty = OverlongPenalty(max_tokens=100, cache_tokens=20)
    assert [overlong_penalty(length, penalty) for length in range(130)] == pytest.approx(theirs)


def example(num_rows: int = 2, length: int = 4) -> Rows:
    generator = torch.Generator().manual_seed(5)
    logprobs = -torch.rand(num_rows, length, generator=generator) - 0.1
    noise = torch.randn(num_rows, length, generator=generator)
    mask = torch.ones(num_rows, length, dtype=torch.bool)
    return Rows(logprobs, logprobs - 0.1 * noise, torch.tensor([1.0, -2.0, 0.5, 1.5])[:num_rows], mask, noise.abs(), logprobs + 0.3 * noise)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo"])
def test_parity_ends_where_trl_counts_rows_without_a_trained_token(trl: TrlLoss, loss: str) -> None:
    rows, chosen = example(), Grpo(loss=loss)
    padded = Rows(*(torch.cat([getattr(rows, name)] * 2) for name in Rows.__dataclass_fields__))
    padded.mask[2:] = False
    assert float(trl(padded, chosen, old=padded.sampler)) == pytest.approx(float(trl(rows, chosen, old=rows.sampler)) / 2, rel=1e-5)
    assert float(ours(padded, chosen)) == pytest.approx(float(ours(rows, chosen)), rel=1e-5)


def test_parity_ends_where_a_trajectory_of_several_segments_is_several_rows_in_trl(trl: TrlLoss) -> None:
    rows, chosen = example(3), Grpo(loss="grpo")
    rows.mask[1, 1:] = False
    rows.advantages[1] = rows.advantages[0]
    sequences = torch.tensor([0, 0, 1])
    once = ours(rows, chosen, sequences=sequences)
    assert float(once) != pytest.approx(float(trl(rows, chosen, old=rows.sampler)), rel=1e-3)
    # One row with both segments is what TRL would have to be given.
    joined = Rows(
        *(
            torch.stack([torch.cat([value[0], value[1]]), torch.cat([value[2], torch.zeros_like(value[2])])])
            if value.dim() == 2
            else value[1:]
            for value in (getattr(rows, name) for name in Rows.__dataclass_fields__)
        )
    )
    assert float(once) == pytest.approx(float(trl(joined, chosen, old=joined.sampler)), rel=1e-5)


def test_parity_ends_where_a_ratio_leaves_float32_in_trl(trl: TrlLoss) -> None:
    rows = replace(example(), sampler=torch.full((2, 4), -120.0))
    assert not math.isfinite(float(trl(rows, Grpo(), old=rows.sampler)))
    assert math.isfinite(float(ours(rows, Grpo())))


@pytest.mark.parametrize(
    "loss", [{"loss": "gspo"}, {"loss": "dapo", "importance": "sequence"}, {"loss": "cispo", "importance": "sequence"}]
)
def test_parity_ends_where_the_penalty_is_weighted_and_the_ratio_is_a_trajectorys(trl: TrlLoss, loss: dict[str, Any]) -> None:
    rows = example()
    chosen = Grpo(**loss, kl_coefficient=1.0, kl_importance_weight=True)
    still = replace(rows, sampler=rows.logprobs)
    assert float(ours(still, chosen)) == pytest.approx(float(trl(still, chosen, old=still.sampler)), rel=1e-5)
    assert float(ours(rows, chosen)) != pytest.approx(float(trl(rows, chosen, old=rows.sampler)), rel=1e-3)


def test_parity_ends_where_the_base_is_so_much_surer_that_the_penalty_leaves_float32_in_trl(trl: TrlLoss) -> None:
    chosen = Grpo(kl_coefficient=1.0)
    for ahead, is_finite in ((19.0, True), (100.0, False)):
        rows = with_leaves(replace(example(), base=example().logprobs + ahead))
        assert math.isfinite(float(trl(rows, chosen, old=rows.sampler).detach())) is is_finite
        (gradient, _) = gradients(ours(rows, chosen), rows)
        # It still pulls towards the base, on every token.
        assert bool((gradient < 0).all())
        assert bool(gradient.isfinite().all())


def test_parity_ends_where_trl_means_the_entropy_of_each_micro_batch_by_itself(trl: TrlLoss) -> None:
    rows = replace(example(), advantages=torch.zeros(2))
    rows.mask[1, 1:] = False
    chosen = Grpo(entropy_bonus=1.0)
    parts = [Rows(*(getattr(rows, name)[number : number + 1] for name in Rows.__dataclass_fields__)) for number in range(2)]
    theirs = sum(float(trl(part, chosen, old=part.sampler, num_items=5, num_micro_batches=2)) for part in parts)
    assert theirs == pytest.approx(-sum(float(part.entropies[part.mask].mean()) for part in parts) / 2, rel=1e-5)
    assert float(ours(rows, chosen)) == pytest.approx(-float(rows.entropies[rows.mask].mean()), rel=1e-5)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_parity_ends_where_groups_without_spread_are_in_trls_denominator(trl: TrlLoss, loss: str) -> None:
    rows, chosen = example(), Grpo(loss=loss)
    alike = replace(rows, advantages=torch.zeros(2))
    both = Rows(*(torch.cat([getattr(rows, name), getattr(alike, name)]) for name in Rows.__dataclass_fields__))
    # We are given the first group only: the other was left out before anything was computed.
    assert float(trl(both, chosen, old=both.sampler)) == pytest.approx(float(ours(rows, chosen)) / 2, rel=1e-5)


def test_parity_of_bnpo_ends_where_several_groups_are_computed_together(trl: TrlLoss) -> None:
    rows, chosen = example(), Grpo(loss="bnpo")
    rows.mask[1, 1:] = False
    totals = BatchTotals(rows.mask.sum(1), torch.tensor([0, 1]))
    parts = [Rows(*(getattr(rows, name)[number : number + 1] for name in Rows.__dataclass_fields__)) for number in range(2)]
    apart = [float(trl(part, chosen, old=part.sampler)) for part in parts]
    assert float(ours(rows, chosen, totals=totals)) == pytest.approx(sum(apart) / 2, rel=1e-5)
    assert float(trl(rows, chosen, old=rows.sampler)) != pytest.approx(sum(apart) / 2, rel=1e-2)
