"""The preference losses: what a pair costs, given the log-probabilities of its two sides. Not for batches, nor for the reference model.

Sources: DPO (2305.18290), cDPO (Mitchell 2023), SLiC and RSO for the hinge (2305.10425, 2309.06657), IPO (2310.12036), length-normalised
DPO (Tulu 3 2411.15124), SimPO (2405.14734), ORPO (2403.07691). Differences: IPO compares means per token (as its authors advised TRL),
else the same margin would be asked of short and long replies; ORPO's log-likelihood is that of the chosen reply alone, as in the paper
and unlike TRL, which counts the prompt too; a mean log-probability that rounds to 0 is held below it, where the odds are finite.

All losses are functions of four sums, so a side may lie in several packed trees.

Shapes: P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from journeyman.types.losses import HingeLoss, IpoLoss, OrpoLoss, PreferenceLoss, SimpoLoss
from journeyman.types.settings import Dpo

_LARGEST_MEAN = -1e-6
_LOG_HALF = -0.6931471805599453


@dataclass(frozen=True, slots=True)
class Side:
    """The chosen or the rejected side of each pair.

    Attributes:
        logprob_P: sum of the log-probabilities (nats) of its trained tokens, with gradient.
        num_terms_P: how many those are; at least 1.
        reference_P: the sum under the reference; None where the loss has none.
    """

    logprob_P: Tensor
    num_terms_P: Tensor
    reference_P: Tensor | None = None

    def change(self) -> Tensor:
        """How much likelier it became than under the reference (nats), [P]."""
        if self.reference_P is None:
            raise ValueError("this loss needs the log-probabilities of a reference")
        return self.logprob_P - self.reference_P


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Of each pair: the loss (differentiable), and the implicit rewards, beta x what the loss compares (without gradient)."""

    loss_P: Tensor
    chosen_reward_P: Tensor
    rejected_reward_P: Tensor


def preference_loss(chosen: Side, rejected: Side, settings: Dpo, mean_chosen_terms: float) -> PairLoss:
    """The loss of each pair, the log-likelihood of the chosen included where the settings want it; its mean over pairs is minimised.

    Args:
        mean_chosen_terms: trained tokens of the chosen sides of the whole optimiser batch / its pairs: so the mean over pairs has the
            log-likelihood as a mean over tokens, whatever the split into micro-batches.

    Example (beta 0.1, the chosen gained one nat on the rejected):
        >>> def side(change):
        ...     return Side(torch.tensor([change]), torch.tensor([5]), torch.zeros(1))
        >>> round(float(preference_loss(side(0.5), side(-0.5), Dpo(), 5.0).loss_P), 6)
        0.644397
    """
    loss = settings.loss
    chosen_P, rejected_P = compared(chosen, loss), compared(rejected, loss)
    loss_P = _pair_losses(chosen_P, rejected_P, loss)
    weight = 1.0 if isinstance(loss, OrpoLoss) else settings.sft_weight
    if weight > 0.0:
        loss_P = loss_P - weight * chosen.logprob_P / mean_chosen_terms
    return PairLoss(loss_P, loss.beta * chosen_P.detach(), loss.beta * rejected_P.detach())


def compared(side: Side, loss: PreferenceLoss) -> Tensor:
    """What the loss compares of a side, [P]: its change since the reference, that change per token, or its mean log-probability."""
    if isinstance(loss, SimpoLoss | OrpoLoss):
        return side.logprob_P / side.num_terms_P
    if loss.kind in ("ipo", "sigmoid_norm"):
        return side.change() / side.num_terms_P
    return side.change()


def _pair_losses(chosen_P: Tensor, rejected_P: Tensor, loss: PreferenceLoss) -> Tensor:
    if isinstance(loss, OrpoLoss):
        return -loss.beta * logsigmoid(_log_odds(chosen_P) - _log_odds(rejected_P))
    difference_P = chosen_P - rejected_P
    if isinstance(loss, IpoLoss):
        return (difference_P - 1.0 / (2.0 * loss.beta)) ** 2
    if isinstance(loss, HingeLoss):
        return torch.relu(1.0 - loss.beta * difference_P)
    margin_P = loss.beta * difference_P - (loss.gamma if isinstance(loss, SimpoLoss) else 0.0)
    smoothing = loss.label_smoothing
    loss_P = -(1.0 - smoothing) * logsigmoid(margin_P)
    return loss_P - smoothing * logsigmoid(-margin_P) if smoothing else loss_P


def _log_odds(mean_P: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), with log(1 - p) computed without cancellation on either side of p = 1/2."""
    mean_P = mean_P.clamp(max=_LARGEST_MEAN)
    # Each branch sees only arguments it is meant for: `where` alone would let the other one's infinite gradient through.
    small_P, large_P = mean_P.clamp(max=_LOG_HALF), mean_P.clamp(min=_LOG_HALF)
    log_complement_P = torch.where(mean_P < _LOG_HALF, torch.log1p(-small_P.exp()), torch.log(-torch.expm1(large_P)))
    return mean_P - log_complement_P
