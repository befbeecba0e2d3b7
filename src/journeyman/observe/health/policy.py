"""Findings in what the updates do to the policy: entropy, distance to the base, mismatch, skipped updates, the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from journeyman.observe.health.finding import Metrics, Seen, at_least
from journeyman.observe.health.readings import WINDOW, has_risen, series

_ENTROPY_LEFT: Final = 1 / 3  # of the entropy at the start
_ENTROPY_GONE: Final = 1 / 10
_GAP: Final = 0.03  # nats a token; rounding alone: up to 0.029 in bfloat16 where the entropy is 3 nats, else below 0.011, 0.0001 in float32
_MASKED: Final = 0.5
_KL_TIMES: Final = 4.0
_KL_FLOOR: Final = 1.0  # nats a token: below it a rise is no reason to worry
_KL_FAR: Final = 5.0  # nats a token: at it a smaller rise is one
_KL_FAR_TIMES: Final = 2.0
_SMALL_LOSS: Final = 0.02
_WITHOUT_ADVANTAGES: Final = frozenset({"train/num_pairs", "train/reward_margin", "train/num_examples"})
_CHOSEN_FALL: Final = 0.1  # nats a token: a reply of 100 tokens has become 20,000 times less likely


def entropy_collapse(history: Sequence[Metrics]) -> Seen | None:
    entropies = series(history, "train/entropy")
    if len(entropies) < 2:
        return None
    # The first reading is of the policy before any update; one low reading among the first must not hide what comes.
    start, now = max(entropies[0], median(entropies[:WINDOW])), min(entropies[-2:])
    if now >= _ENTROPY_LEFT * start or has_risen(history):
        return None
    lasts = len(entropies) > WINDOW and max(entropies[-WINDOW:]) < _ENTROPY_GONE * start
    return (
        "problem" if lasts else "watch",
        f"the entropy fell from {start:.3f} to {now:.3f} nats a token: the model draws nearly the same each time and explores no more",
        "a third of the learning rate, or a penalty on the distance to the base (kl_coefficient)",
        now / start,
    )


def kl_running_off(history: Sequence[Metrics]) -> Seen | None:
    values = series(history, "train/kl_to_base")
    if len(values) < WINDOW:
        return None
    # Medians: the estimate is from two attempts a step, and single ones are ten times the rest. Far off, the first reading is enough to
    # compare with: the median of the first three is high already where a run went off at once.
    first, start, now = values[0], median(values[:WINDOW]), median(values[-WINDOW:])
    if now < max(_KL_TIMES * start, _KL_FLOOR) and now < max(_KL_FAR_TIMES * first, _KL_FAR):
        return None
    return (
        "watch",
        f"the distance to the base model rose from {min(first, start):.2f} to {now:.2f} nats a token",
        "a penalty holds it (kl_coefficient), a lower learning rate slows it",
        now,
    )


mismatch = at_least(
    _GAP,
    "train/logprob_gap_mean",
    "sampler and trainer differ by {value:.4f} nats a token on average (usual: below 0.01)",
    "train only on attempts of the newest version, at temperature 1; if they are, try float32",
)

mismatch_masked = at_least(
    _MASKED,
    "train/mismatch_masked_fraction",
    "{value:.0%} of the sampled tokens were masked by the mismatch correction, so they taught nothing",
    "train on attempts of the newest version, or give the correction wider limits",
)


def updates_skipped(history: Sequence[Metrics]) -> Seen | None:
    skipped = history[-1].get("train/num_updates_skipped")
    if not skipped:
        return None
    total = sum(series(history, "train/num_updates_skipped"))
    were = "1 update of the last step was" if skipped == 1.0 else f"{skipped:.0f} updates of the last step were"
    return (
        "problem",
        f"{were} not made, because a gradient was not finite ({total:.0f} in the run)",
        "the log names what it was computed from; a lower learning rate, or shorter attempts",
        skipped,
    )


def chosen_falling(history: Sequence[Metrics]) -> Seen | None:
    chosen, rejected = (history[-1].get(f"train/{side}_logprob_change", math.nan) for side in ("chosen", "rejected"))
    if not chosen <= -_CHOSEN_FALL:
        return None
    return (
        "watch",
        f"the chosen replies are {-chosen:.2f} nats a token less likely than under the base model (the rejected ones {-rejected:.2f}): the "
        "model moves away from both, to text that no pair has shown",
        "hold the chosen up (sft_weight=1), a lower learning rate or a larger beta, fewer epochs",
        chosen,
    )


def loss_near_zero(history: Sequence[Metrics]) -> Seen | None:
    last = history[-1]
    loss = last.get("train/loss")
    # Learning from pairs or examples has no advantages: there a loss near zero says that they are told apart, or known by heart.
    if loss is None or abs(loss) >= _SMALL_LOSS or not _WITHOUT_ADVANTAGES.isdisjoint(last):
        return None
    norm = last.get("train/gradient_norm")
    if norm == 0.0 or last.get("reward/with_spread") == 0.0:
        return None  # nothing was learned: that is another finding, and not normal
    of_norm = "" if norm is None else f" (norm {norm:.2g})"
    return (
        "normal",
        f"the loss is {loss:.4f}: a loss near zero is normal here because the advantages of a group add up to about zero; "
        f"its gradient{of_norm} is what trains. Watch the reward, not the loss",
        "",
        loss,
    )
