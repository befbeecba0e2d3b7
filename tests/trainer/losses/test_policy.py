"""Each loss on the textbook example, value and gradient; what the corrections and penalties do to it; where its limits are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from journeyman.trainer.losses.policy import PolicyLoss, Precomputed, kl_terms, policy_loss
from journeyman.trainer.losses.terms import BatchTotals, Terms, divisor
from journeyman.types.losses import KlEstimator
from journeyman.types.settings import Grpo

LOGPROBS = [-1.0, -0.5, -2.0]
SAMPLER = [-1.2, -0.9, -1.5]
BASE = torch.tensor([-1.1, -0.4, -1.8])
RATIOS = [1.221403, 1.491825, 0.606531]
PLAIN = {"clip_low": 0.2, "clip_high": 0.2}


def computed(
    settings: Grpo,
    advantage: float = 1.0,
    *,
    sampler: list[float] = SAMPLER,
    sequences: tuple[int, ...] | list[int] = (0, 0, 0),
    known: Precomputed | None = None,
) -> tuple[PolicyLoss, list[float]]:
    """The loss of the example as one batch, divided, and its gradient."""
    logprob = torch.tensor(LOGPROBS, requires_grad=True)
    sequence = torch.tensor(sequences)
    terms = Terms(torch.tensor(sampler), torch.full((3,), advantage), sequence)
    totals = BatchTotals.of_one(sequence)
    result = policy_loss(logprob, torch.zeros(3), terms, settings, totals, known)
    (result.loss / divisor(settings.loss, totals)).backward()
    assert logprob.grad is not None
    return PolicyLoss(result.loss.detach(), result.sums), logprob.grad.tolist()


def by_term(
    settings: Grpo, advantage: float, known: Precomputed | None = None, sampler: list[float] = SAMPLER
) -> tuple[list[float], list[float]]:
    """Value and gradient of each token as a batch of its own sequences, undivided."""
    _, gradients = computed(settings, advantage, sequences=[0, 1, 2], known=known, sampler=sampler)
    values = []
    for index in range(3):
        own = Terms(torch.tensor(sampler[index : index + 1]), torch.tensor([advantage]), torch.tensor([0]))
        logprob = torch.tensor(LOGPROBS[index : index + 1])
        mine = None if known is None else Precomputed(**{name: _part(getattr(known, name), index) for name in Precomputed.__slots__})
        values.append(float(policy_loss(logprob, torch.zeros(1), own, settings, BatchTotals.of_one(own.sequence_N), mine).loss))
    return values, [3 * gradient for gradient in gradients]


def _part(tensor: Tensor | None, index: int) -> Tensor | None:
    return None if tensor is None else tensor[index : index + 1]


@pytest.mark.parametrize("loss", ["dapo", "grpo", "bnpo"])
@pytest.mark.parametrize(
    ("advantage", "clip_high", "values", "gradients"),
    [
        (1.0, 0.2, [-1.2, -1.2, -0.606531], [0, 0, -0.606531]),
        (-1.0, 0.2, [1.221403, 1.491825, 0.8], [1.221403, 1.491825, 0]),
        (1.0, 0.28, [-1.221403, -1.28, -0.606531], [-1.221403, 0, -0.606531]),
        (-1.0, 0.28, [1.221403, 1.491825, 0.8], [1.221403, 1.491825, 0]),
    ],
)
def test_the_clipped_losses_have_their_known_values_and_gradients(
    loss: str, advantage: float, clip_high: float, values: list[float], gradients: list[float]
) -> None:
    got_values, got_gradients = by_term(Grpo(loss=loss, clip_low=0.2, clip_high=clip_high), advantage)
    assert got_values == pytest.approx(values, abs=1e-5)
    assert got_gradients == pytest.approx(gradients, abs=1e-5)


@pytest.mark.parametrize(
    ("bounds", "values", "gradients"),
    [
        ({"max_weight": 5.0}, [1.221403, 0.745912, 1.213061], [-1.221403, -1.491825, -0.606531]),
        ({"min_weight": 0.8, "max_weight": 1.2}, [1.2, 0.6, 1.6], [-1.2, -1.2, -0.8]),
    ],
)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_cispo_clips_the_weight_and_never_the_gradient(
    bounds: dict[str, float], values: list[float], gradients: list[float], advantage: float
) -> None:
    got_values, got_gradients = by_term(Grpo(loss="cispo", **bounds), advantage)
    assert got_values == pytest.approx([advantage * value for value in values], abs=1e-5)
    assert got_gradients == pytest.approx([advantage * gradient for gradient in gradients], abs=1e-5)


@pytest.mark.parametrize(("advantage", "value", "gradient"), [(1.0, -1.0004, 0.0), (-1.0, 1.033895, 1.033895)])
def test_gspo_has_one_ratio_a_trajectory(advantage: float, value: float, gradient: float) -> None:
    result, gradients = computed(Grpo(loss="gspo"), advantage)
    assert float(result.loss) == pytest.approx(value, abs=1e-5)
    assert gradients == pytest.approx([gradient / 3] * 3, abs=1e-5)
    assert result.sums["ratio"] / 3 == pytest.approx(1.033895, abs=1e-5)


def test_a_ratio_a_trajectory_in_the_grpo_loss_is_gspo() -> None:
    gspo, gspo_gradients = computed(Grpo(loss="gspo"), -1.0)
    grpo, grpo_gradients = computed(Grpo(loss="grpo", importance="sequence", clip_low=3e-4, clip_high=4e-4), -1.0)
    assert (float(gspo.loss), gspo_gradients) == (float(grpo.loss), grpo_gradients)


def test_two_sided_clip_limits_what_a_bad_trajectory_can_push() -> None:
    values, gradients = by_term(Grpo(**PLAIN, delta=1.3), -1.0)
    assert values == pytest.approx([1.221403, 1.3, 0.8], abs=1e-5)
    assert gradients == pytest.approx([1.221403, 0, 0], abs=1e-5)
    assert by_term(Grpo(**PLAIN, delta=1.3), 1.0) == by_term(Grpo(**PLAIN), 1.0)


@pytest.mark.parametrize(
    ("loss", "shares"),
    [
        ({"loss": "dapo"}, [1 / 700, 1 / 700, 1 / 700]),
        ({"loss": "grpo"}, [1 / 300, 1 / 600, 1 / 1200]),
        ({"loss": "gspo"}, [1 / 300, 1 / 600, 1 / 1200]),
        ({"loss": "dr_grpo", "max_length": 512}, [1 / 1536] * 3),
        ({"loss": "bnpo"}, [1 / 700, 1 / 700, 1 / 700]),
        ({"loss": "cispo"}, [1 / 700, 1 / 700, 1 / 700]),
    ],
)
def test_a_token_weighs_what_the_loss_promises(loss: dict[str, Any], shares: list[float]) -> None:
    settings = Grpo(**loss)
    sequence = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 200, 400]))
    logprob = torch.full((700,), -1.0, requires_grad=True)
    terms, totals = Terms(torch.full((700,), -1.0), torch.ones(700), sequence), BatchTotals.of_one(sequence)
    (policy_loss(logprob, torch.zeros(700), terms, settings, totals).loss / divisor(settings.loss, totals)).backward()
    assert logprob.grad is not None
    assert (-logprob.grad[[0, 100, 300]]).tolist() == pytest.approx(shares, rel=1e-5)


def test_what_is_logged_are_sums_over_tokens() -> None:
    sums = computed(Grpo(), 1.0)[0].sums
    assert sums["loss"] == pytest.approx(-1.221403 - 1.28 - 0.606531, abs=1e-5)
    assert sums["ratio"] == pytest.approx(sum(RATIOS), abs=1e-5)
    assert (sums["clipped_low"], sums["clipped_high"]) == (0, 1)
    assert sums["gap"] == pytest.approx(0.2 + 0.4 + 0.5, abs=1e-6)
    assert sums["gap_max"] == pytest.approx(0.5, abs=1e-6)
    assert sums["gap_k3"] == pytest.approx(sum(ratio - 1 - math.log(ratio) for ratio in RATIOS), abs=1e-5)
    assert sums["probability_gap_max"] == pytest.approx(math.exp(-0.5) - math.exp(-0.9), abs=1e-6)
    assert (sums["masked"], sums["truncated_weights"]) == (0.0, 0.0)
    low = computed(Grpo(), -1.0)[0].sums
    assert (low["clipped_low"], low["clipped_high"]) == (1, 0)


def test_truncated_token_weights_multiply_the_loss_and_the_ratio_is_to_the_trainer() -> None:
    settings = Grpo(mismatch={"kind": "token_truncate", "max_weight": 1.3})
    values, gradients = by_term(settings, 1.0)
    # In the first update the trainer's own ratio is 1: only the weight is left, and nothing is counted twice.
    assert values == pytest.approx([-1.221403, -1.3, -0.606531], abs=1e-5)
    assert gradients == pytest.approx([-1.221403, -1.3, -0.606531], abs=1e-5)
    sums = computed(settings)[0].sums
    assert (sums["ratio"], sums["truncated_weights"], sums["masked"]) == (3.0, 1.0, 0.0)


def test_masked_tokens_have_no_loss_and_are_counted() -> None:
    settings = Grpo(mismatch={"kind": "token_mask", "min_weight": 0.7, "max_weight": 1.4})
    values, gradients = by_term(settings, 1.0)
    assert values == pytest.approx([-1.221403, 0, 0], abs=1e-5)
    assert gradients == pytest.approx([-1.221403, 0, 0], abs=1e-5)
    assert computed(settings)[0].sums["masked"] == 2.0


@pytest.mark.parametrize(("max_ratio", "is_kept"), [(1.04, True), (1.03, False)])
def test_the_geometric_mask_looks_at_the_mean_gap_of_the_trajectory(max_ratio: float, is_kept: bool) -> None:
    settings = Grpo(mismatch={"kind": "geometric_mask", "min_ratio": 0.9, "max_ratio": max_ratio})
    result, gradients = computed(settings)
    assert (float(result.loss) != 0) == any(gradients) == is_kept
    assert result.sums["masked"] == (0.0 if is_kept else 3.0)


def test_a_later_update_is_corrected_by_the_gap_before_the_step() -> None:
    first = torch.tensor([-1.1, -0.8, -1.6])
    values, _ = by_term(Grpo(mismatch="token_truncate"), 1.0, Precomputed(first_logprob_N=first))
    ratios = [math.exp(0.1), math.exp(0.3), math.exp(-0.4)]
    weights = [math.exp(0.1), math.exp(0.1), math.exp(-0.1)]
    assert values == pytest.approx([-min(ratio, 1.28) * weight for ratio, weight in zip(ratios, weights, strict=True)], abs=1e-5)
    # Without a correction the ratio is to the sampler, whatever the trainer said first.
    assert by_term(Grpo(), 1.0, Precomputed(first_logprob_N=first)) == by_term(Grpo(), 1.0)


def test_the_penalty_to_the_base_is_added_to_the_loss_after_the_correction() -> None:
    known = Precomputed(base_logprob_N=BASE)
    for settings in (PLAIN, {**PLAIN, "mismatch": "token_mask"}):
        plain, plain_gradients = by_term(Grpo(**settings), 1.0)
        values, gradients = by_term(Grpo(**settings, kl_coefficient=0.5), 1.0, known)
        assert [a - b for a, b in zip(values, plain, strict=True)] == pytest.approx([0.0024185, 0.0025855, 0.0107015], abs=1e-6)
        slopes = [a - b for a, b in zip(gradients, plain_gradients, strict=True)]
        assert slopes == pytest.approx([0.0475815, -0.0525855, -0.1107015], abs=1e-6)
    assert computed(Grpo(kl_coefficient=0.5), known=known)[0].sums["kl_penalty"] == pytest.approx(0.031411, abs=1e-5)


def test_the_penalty_can_be_weighted_by_the_ratio() -> None:
    plain, _ = by_term(Grpo(kl_coefficient=1.0), 0.0, Precomputed(base_logprob_N=BASE))
    weighted, _ = by_term(Grpo(kl_coefficient=1.0, kl_importance_weight=True), 0.0, Precomputed(base_logprob_N=BASE))
    assert weighted == pytest.approx([ratio * value for ratio, value in zip(RATIOS, plain, strict=True)], abs=1e-6)


def test_the_penalty_is_off_without_a_coefficient() -> None:
    assert by_term(Grpo(), 1.0, Precomputed(base_logprob_N=BASE)) == by_term(Grpo(), 1.0)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"])
def test_the_entropy_bonus_is_a_token_mean_in_every_loss(loss: str) -> None:
    settings = Grpo(loss=loss, entropy_bonus=0.1)
    sequence = torch.tensor([0, 1, 1])
    entropy = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    terms, totals = Terms(torch.tensor(SAMPLER), torch.zeros(3), sequence), BatchTotals.of_one(sequence)
    loss_value = policy_loss(torch.tensor(LOGPROBS), entropy, terms, settings, totals).loss / divisor(settings.loss, totals)
    loss_value.backward()
    assert float(loss_value.detach()) == pytest.approx(-0.1 * 3.0, rel=1e-5)
    assert entropy.grad is not None
    assert entropy.grad.tolist() == pytest.approx([-0.1 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize("mismatch", ["none", "token_truncate", "token_mask", "geometric_mask"])
@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_an_unknown_sampler_logprob_counts_as_no_difference(mismatch: str, advantage: float) -> None:
    values, gradients = by_term(Grpo(mismatch=mismatch), advantage, sampler=[math.nan] * 3)
    assert values == pytest.approx([-advantage] * 3)
    assert gradients == pytest.approx([-advantage] * 3)


@pytest.mark.parametrize("loss", ["dapo", "gspo"])
@pytest.mark.parametrize("sampler", [-500.0, 500.0])
def test_an_absurd_difference_to_the_sampler_stays_finite_and_a_clipped_token_does_not_push(loss: str, sampler: float) -> None:
    # Beyond +-20 the ratio of a token stands still. That of a trajectory has its gradient through the term itself.
    for advantage in (1.0, -1.0):
        values, gradients = by_term(Grpo(loss=loss), advantage, None, [sampler] * 3)
        assert all(map(math.isfinite, values))
        assert all(map(math.isfinite, gradients))
        if loss == "dapo":
            assert gradients == [0.0, 0.0, 0.0]


def test_a_penalty_to_the_base_without_the_base_is_refused() -> None:
    with pytest.raises(ValueError, match="base model"):
        computed(Grpo(kl_coefficient=0.1))


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"])
def test_no_terms_are_no_loss(loss: str) -> None:
    nothing, no_sequence = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    result = policy_loss(nothing, nothing, Terms(nothing, nothing, no_sequence), Grpo(loss=loss), BatchTotals.of_one(torch.tensor([0])))
    assert float(result.loss) == 0.0
    assert result.sums["gap_max"] == 0.0


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
