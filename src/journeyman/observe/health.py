"""What the metrics of a run say about its health, in plain language with the number behind each finding; see docs/health.md.

    for finding in findings([step.metrics for step in steps]): print(finding.text)

Pure functions over the metrics of training steps, the oldest first. Each finding is explained in docs/health.md under its name; those in
the rewards are in `reward_health.py`. Not for stopping a run (a recipe decides that), nor for drawing (the command line does).

The limits are held to real runs (one that collapsed, those of docs/studies that did not) and to runs of pure noise, by tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from journeyman.observe.reward_health import (
    WINDOW,
    Check,
    Level,
    Metrics,
    Seen,
    has_risen,
    kinds_failing,
    no_spread,
    reward_falling,
    reward_flat,
    series,
    with_rewards,
)
from journeyman.types.runs import StepMetrics

_LEVELS: Final = ("problem", "watch", "normal")
_ENTROPY_LEFT: Final = 1 / 3  # of the entropy at the start
_ENTROPY_GONE: Final = 1 / 10
# Nats per token. Rounding alone: up to 0.029 in bfloat16 where the entropy is 3 nats, else below 0.011; 0.0001 in float32.
_GAP: Final = 0.03
_MASKED: Final = 0.5
_KL_TIMES: Final = 4.0
_KL_FLOOR: Final = 1.0  # nats per token: below it a rise is no reason to worry
_KL_FAR: Final = 5.0  # nats per token: at it a smaller rise is one
_KL_FAR_TIMES: Final = 2.0
_SMALL_LOSS: Final = 0.02
_WITHOUT_ADVANTAGES: Final = frozenset({"train/num_pairs", "train/reward_margin", "train/num_examples"})
_CHOSEN_FALL: Final = 0.1  # nats per token: a reply of 100 tokens has become 20,000 times less likely
_TRUNCATED: Final = 0.5
_EXECUTED: Final = 0.3
_EXCLUDED: Final = 0.25


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing about a run.

    Attributes:
        name: stable, and the heading in docs/health.md.
        level: `problem` (training is not doing its job), `watch` (may become one), `normal` (looks odd, and is as it should be).
        text: what was seen, with the number.
        advice: what to try first, in words: option names differ between commands; empty when nothing needs doing.
        value: the number.
    """

    name: str
    level: Level
    text: str
    advice: str
    value: float

    def __str__(self) -> str:
        return f"{self.name}: {self.text}; try: {self.advice}" if self.advice else f"{self.name}: {self.text}"


def findings(history: Sequence[Metrics]) -> list[Finding]:
    """What the steps so far show, problems first. Readings that a step does not have are passed over.

    Args:
        history: the metrics of each training step (`reward/...`, `rollout/...`, `train/...`), the oldest first. Where a program has only
            what a training call returns, its `train/...` stand in for the rewards.

    Example:
        >>> [finding.name for finding in findings([{"reward/mean": 0.5, "reward/with_spread": 0.0, "reward/num_groups": 8.0}])]
        ['no_spread']
    """
    if not history:
        return []
    history = [with_rewards(step) for step in history]
    current = [Finding(name, *seen) for name, check in _CHECKS.items() if (seen := check(history)) is not None]
    if any(finding.name == "reward_falling" for finding in current):
        current = [finding for finding in current if finding.name != "reward_flat"]
    if any(finding.name == "no_spread" for finding in current):  # it names them
        current = [finding for finding in current if finding.name != "kinds_failing"]
    return sorted(current, key=lambda finding: _LEVELS.index(finding.level))


def news(history: Sequence[Metrics]) -> list[Finding]:
    """The findings of the last step that the step before did not have, so that each is said once while it lasts.

    What is normal is said once in a run.
    """
    before = {(finding.name, finding.level) for finding in findings(history[:-1])}
    if any(loss_near_zero([with_rewards(step)]) for step in history[:-1]):
        before.add(("loss_near_zero", "normal"))
    return [finding for finding in findings(history) if (finding.name, finding.level) not in before]


def is_finding(note: str) -> bool:
    """Whether a note of a training step is a finding: who makes findings of fuller metrics says those, and passes over these."""
    return note.partition(":")[0] in NAMES


def run_history(steps: Iterable[StepMetrics]) -> list[Metrics]:
    """The metrics of a kept run that findings are made of: its training steps'; where it has none, what its learning from examples gave.

    Probes of a warm start (`rollout/...`, `reward/...` of its rows) are left out: there the model is meant to fail still.
    """
    steps = list(steps)
    if trained := [step.metrics for step in steps if step.phase == "train"]:
        return trained
    warm = [step.metrics for step in steps if step.phase == "warmup"]
    return [{name: value for name, value in metrics.items() if name.startswith("train/")} for metrics in warm]


def packing_saving(history: Sequence[Metrics]) -> float | None:
    """How many times more tokens one row a trajectory would have computed; None when no step of `history` trained.

    Example:
        >>> packing_saving([{"train/num_unpacked_tokens": 300.0, "train/num_computed_tokens": 100.0}, {"train/loss": 0.1}])
        3.0
    """
    computed = sum(metrics.get("train/num_computed_tokens", 0.0) for metrics in history)
    unpacked = sum(metrics.get("train/num_unpacked_tokens", 0.0) for metrics in history)
    return unpacked / computed if computed else None


# The checks -----------------------------------------------------------------------------------------------------------


def at_least(limit: float, metric: str, text: str, advice: str) -> Check:
    """The check that finds a problem when a metric of the last step has reached a limit. `text` shows it as `{value}`."""

    def check(history: Sequence[Metrics]) -> Seen | None:
        value = history[-1].get(metric)
        if value is None or value < limit:
            return None
        return "problem", text.format(value=value), advice, value

    return check


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
        f"the entropy fell from {start:.3f} to {now:.3f} nats per token: the model draws nearly the same each time and explores no more",
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
        f"the distance to the base model rose from {min(first, start):.2f} to {now:.2f} nats per token",
        "a penalty holds it (kl_coefficient), a lower learning rate slows it",
        now,
    )


mismatch = at_least(
    _GAP,
    "train/logprob_gap_mean",
    "sampler and trainer differ by {value:.4f} nats per token on average (usual: below 0.01)",
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
        f"the chosen replies are {-chosen:.2f} nats per token less likely than under the base model (the rejected ones {-rejected:.2f}): "
        "the model moves away from both, to text that no pair has shown",
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


all_truncated = at_least(
    _TRUNCATED,
    "train/truncated_fraction",
    "{value:.0%} of the attempts were cut off at the token limit before they ended",
    "a higher token limit (max_tokens); a model that never stops needs examples of ending first",
)


def tools_failing(history: Sequence[Metrics]) -> Seen | None:
    shares = series(history, "rollout/executed")
    if len(shares) < 2 or max(shares[-2:]) >= _EXECUTED:
        return None
    return (
        "problem",
        f"only {shares[-1]:.0%} of the attempts made a tool call that ran",
        "is the server up and fast enough? If it is, the model needs more drills, or fewer tools",
        shares[-1],
    )


def judge_abstaining(history: Sequence[Metrics]) -> Seen | None:
    last = history[-1]
    total = last.get("train/num_trajectories")
    # The training call counts both; a judge's own count may be of other attempts, but never of more than all.
    excluded = last.get("train/num_trajectories_excluded", min(last.get("reward/num_excluded", 0.0), total or 0.0))
    if not excluded or not total or excluded / total < _EXCLUDED:
        return None
    return (
        "problem",
        f"{excluded:.0f} of {total:.0f} attempts have no reward ({excluded / total:.0%}) and were left out",
        "the warning of the step says why: a judge that cannot be reached or answers unreadably, tools or attempts that failed",
        excluded / total,
    )


_CHECKS: Final[dict[str, Check]] = {
    "no_spread": no_spread,
    "kinds_failing": kinds_failing,
    "reward_falling": reward_falling,
    "reward_flat": reward_flat,
    "entropy_collapse": entropy_collapse,
    "all_truncated": all_truncated,
    "mismatch": mismatch,
    "mismatch_masked": mismatch_masked,
    "kl_running_off": kl_running_off,
    "tools_failing": tools_failing,
    "judge_abstaining": judge_abstaining,
    "updates_skipped": updates_skipped,
    "chosen_falling": chosen_falling,
    "loss_near_zero": loss_near_zero,
}

#: The name of every finding there is.
NAMES: Final = tuple(_CHECKS)
