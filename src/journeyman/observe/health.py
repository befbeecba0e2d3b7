"""What the metrics of a run say about its health, in plain language with the number behind each finding.

    for finding in findings([step.metrics for step in steps]): print(finding.text)

Pure functions over the metrics of training steps, the oldest first. Each finding is explained in docs/health.md under its name.
Not for stopping a run (a recipe decides that), nor for drawing (the command line does).

The limits were set on real runs: four of the MCP recipe, one of which collapsed; tests hold them to both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, Literal

Metrics = dict[str, float]
Level = Literal["problem", "watch", "normal"]
Seen = tuple[Level, str, str, float]
"""A finding without its name: level, text, advice, value."""
Check = Callable[[Sequence[Metrics]], Seen | None]

#: Steps that a reading which is noisy by nature is averaged over.
_WINDOW: Final = 3
_MIN_WITH_SPREAD: Final = 0.25
_SOLVED: Final = 0.8
_FLAT_STEPS: Final = 8
_FLAT_CHANGE: Final = 0.15  # of the usual spread of rewards within a group
_FALL: Final = 0.25  # of the best reward
_ENTROPY_LEFT: Final = 1 / 3  # of the entropy at the start
_TRUNCATED: Final = 0.5
_GAP: Final = 0.02  # nats a token; today's engine and trainer are below 0.005 in bfloat16 and below 0.0001 in float32
_KL_TIMES: Final = 4.0
_KL_FLOOR: Final = 1.0  # nats a token: below it a rise is no reason to worry
_EXECUTED: Final = 0.3
_EXCLUDED: Final = 0.25
_Z: Final = 1.96  # half width of a 95 % interval in standard errors
_AS_TRAINED: Final = {"reward/mean": "train/reward_mean", "reward/std": "train/reward_spread"}
_SMALL_LOSS: Final = 0.02
_WITHOUT_ADVANTAGES: Final = frozenset({"train/num_pairs", "train/reward_margin", "train/num_examples"})
_CHOSEN_FALL: Final = 0.1  # nats a token: a reply of 100 tokens has become 20,000 times less likely


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing about a run.

    Attributes:
        name: stable, and the heading in docs/health.md.
        level: `problem` (training is not doing its job), `watch` (may become one), `normal` (looks odd, and is as it should be).
        text: what was seen, with the number.
        advice: what to try first; empty when nothing needs doing.
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
        >>> [finding.name for finding in findings([{"reward/mean": 0.5, "reward/with_spread": 0.0}])]
        ['no_spread']
    """
    if not history:
        return []
    history = [_with_rewards(step) for step in history]
    found = [Finding(name, *seen) for name, check in _CHECKS.items() if (seen := check(history)) is not None]
    if any(finding.name == "reward_falling" for finding in found):
        found = [finding for finding in found if finding.name != "reward_flat"]
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def news(history: Sequence[Metrics]) -> list[Finding]:
    """The findings of the last step that the step before did not have, so that each is said once while it lasts.

    What is normal is said once in a run.
    """
    before = {(finding.name, finding.level) for finding in findings(history[:-1])}
    if any(_loss_near_zero([one]) for one in history[:-1]):
        before.add(("loss_near_zero", "normal"))
    return [finding for finding in findings(history) if (finding.name, finding.level) not in before]


def is_finding(note: str) -> bool:
    """Whether a note of a training step is a finding: who makes findings of fuller metrics says those, and passes over these."""
    return note.partition(":")[0] in NAMES


def _with_rewards(step: Metrics) -> Metrics:
    """The step with `reward/...` as the training call saw the rewards, where no recipe has measured them."""
    if "train/reward_mean" not in step or any(name.startswith("reward/") for name in step):
        return step
    seen = {ours: step[trained] for ours, trained in _AS_TRAINED.items() if trained in step}
    if (alike := step.get("train/groups_without_spread_fraction")) is not None:
        seen["reward/with_spread"] = 1.0 - alike
    if "train/reward_spread" in step and (num_groups := step.get("train/num_groups")):
        # Attempts at one task are not independent: as many readings as there are groups.
        half = _Z * step["train/reward_spread"] / math.sqrt(num_groups)
        seen |= {"reward/low": step["train/reward_mean"] - half, "reward/high": step["train/reward_mean"] + half}
    return step | seen


def _no_spread(history: Sequence[Metrics]) -> Seen | None:
    shares = _series(history, "reward/with_spread")
    if not shares:
        return None
    last, recent = shares[-1], fmean(shares[-_WINDOW:])
    is_low = last == 0.0 or (len(shares) >= _WINDOW and recent < _MIN_WITH_SPREAD)
    if not is_low:
        return None
    share = min(last, recent)
    seen = f"only {share:.0%} of the groups have attempts of different reward, so the others teach nothing"
    if _solved(history):
        return "watch", f"{seen}: these tasks are solved", "stop here, or give harder tasks", share
    return ("problem", seen, "larger groups (--set rollouts.group_size=16), easier tasks, or a judge that tells finer", share)


def _reward_flat(history: Sequence[Metrics]) -> Seen | None:
    rewards = _series(history, "reward/mean")
    if len(rewards) < _FLAT_STEPS or _solved(history):
        return None
    half = _FLAT_STEPS // 2
    change = fmean(rewards[-half:]) - fmean(rewards[:half])
    spread = fmean(_series(history, "reward/std") or [0.0])
    if change >= _FLAT_CHANGE * spread:
        return None
    return (
        "watch",
        f"the reward has not risen in {len(rewards)} steps: {fmean(rewards[:half]):.2f} at first, {fmean(rewards[-half:]):.2f} now",
        "more groups a step (--set rollouts.groups_per_step=12), then a higher learning rate; read some attempts first",
        change,
    )


def _reward_falling(history: Sequence[Metrics]) -> Seen | None:
    rewards = _series(history, "reward/mean")
    if len(rewards) < 2 * _WINDOW:
        return None
    means = [fmean(rewards[end - _WINDOW : end]) for end in range(_WINDOW, len(rewards) + 1)]
    best, now = max(means), means[-1]
    halves = [(one["reward/high"] - one["reward/low"]) / 2 for one in history[-_WINDOW:] if {"reward/high", "reward/low"} <= one.keys()]
    # A mean of three steps has an interval narrower by the root of three.
    noise = fmean(halves) / math.sqrt(_WINDOW) if halves else 0.0
    fall = best - now
    if fall <= max(_FALL * abs(best), noise):
        return None
    return (
        "problem",
        f"the reward fell from {best:.2f} to {now:.2f} (means of {_WINDOW} steps)",
        "go back to the best version, and train with a lower learning rate (--set grpo.learning_rate=1e-4)",
        -fall,
    )


def _entropy_collapse(history: Sequence[Metrics]) -> Seen | None:
    entropies = _series(history, "train/entropy")
    if len(entropies) < 2 * _WINDOW:
        return None
    start, now = median(entropies[:_WINDOW]), min(entropies[-2:])
    if start <= 0.0 or now >= _ENTROPY_LEFT * start:
        return None
    return (
        "problem",
        f"the entropy fell from {start:.3f} to {now:.3f} nats a token: the model draws nearly the same each time and explores no more",
        "lower the learning rate (--set grpo.learning_rate=1e-4), or hold it near the base (--set grpo.kl_coefficient=0.02)",
        now / start,
    )


def _kl_running_off(history: Sequence[Metrics]) -> Seen | None:
    values = _series(history, "train/kl_to_base")
    if len(values) < 2 * _WINDOW:
        return None
    # Medians: the estimate is from two attempts a step, and single ones are ten times the rest.
    start, now = median(values[:_WINDOW]), median(values[-_WINDOW:])
    if now < max(_KL_TIMES * start, _KL_FLOOR):
        return None
    return (
        "watch",
        f"the distance to the base model rose from {start:.2f} to {now:.2f} nats a token",
        "a penalty holds it (--set grpo.kl_coefficient=0.02), a lower learning rate slows it",
        now,
    )


def _tools_failing(history: Sequence[Metrics]) -> Seen | None:
    shares = _series(history, "rollout/executed")
    if len(shares) < 2 or max(shares[-2:]) >= _EXECUTED:
        return None
    return (
        "problem",
        f"only {shares[-1]:.0%} of the attempts made a tool call that ran",
        "is the server up and fast enough? If it is, the model needs more drills (--set warm_start.max_updates=48)",
        shares[-1],
    )


def _judge_abstaining(history: Sequence[Metrics]) -> Seen | None:
    last = history[-1]
    total = last.get("train/num_trajectories")
    excluded = last.get("reward/num_excluded", last.get("train/num_trajectories_excluded"))
    if not excluded or not total or excluded / total < _EXCLUDED:
        return None
    return (
        "problem",
        f"{excluded:.0f} of {total:.0f} attempts have no reward ({excluded / total:.0%}) and were left out",
        "the warning of the step says why: a judge that cannot be reached or answers unreadably, tools or attempts that failed",
        excluded / total,
    )


def _updates_skipped(history: Sequence[Metrics]) -> Seen | None:
    skipped = history[-1].get("train/num_updates_skipped")
    if not skipped:
        return None
    total = sum(_series(history, "train/num_updates_skipped"))
    return (
        "problem",
        f"the gradient was not finite, so {skipped:.0f} updates of the last step were not made ({total:.0f} in the run)",
        "the log names what it was computed from; a lower learning rate, or shorter attempts",
        skipped,
    )


def _chosen_falling(history: Sequence[Metrics]) -> Seen | None:
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


def _loss_near_zero(history: Sequence[Metrics]) -> Seen | None:
    loss = history[-1].get("train/loss")
    # Learning from pairs or examples has no advantages: there a loss near zero says that they are told apart, or known by heart.
    if loss is None or abs(loss) >= _SMALL_LOSS or not _WITHOUT_ADVANTAGES.isdisjoint(history[-1]):
        return None
    return (
        "normal",
        f"the loss is {loss:.4f}: a loss near zero is normal here because the advantages of a group add up to about zero and the ratio is "
        "1 at the first update; its gradient is what trains. Watch the reward, not the loss",
        "",
        loss,
    )


def _at_least(limit: float, metric: str, text: str, advice: str) -> Check:
    """The check that finds a problem when a metric of the last step has reached a limit. `text` shows it as `{value}`."""

    def check(history: Sequence[Metrics]) -> Seen | None:
        value = history[-1].get(metric)
        if value is None or value < limit:
            return None
        return "problem", text.format(value=value), advice, value

    return check


def _solved(history: Sequence[Metrics]) -> bool:
    """Whether most attempts succeed; rewards stand in for success where the judge does not tell it, if they are out of 1."""
    recent = history[-_WINDOW:]
    return (
        fmean(_series(recent, "reward/success") or [reward for reward in _series(recent, "reward/mean") if reward <= 1.0] or [0.0])
        >= _SOLVED
    )


def _series(history: Iterable[Metrics], name: str) -> list[float]:
    return [one[name] for one in history if name in one and math.isfinite(one[name])]


_LEVELS: Final = ("problem", "watch", "normal")
_CHECKS: Final[dict[str, Check]] = {
    "no_spread": _no_spread,
    "reward_falling": _reward_falling,
    "reward_flat": _reward_flat,
    "entropy_collapse": _entropy_collapse,
    "all_truncated": _at_least(
        _TRUNCATED,
        "train/truncated_fraction",
        "{value:.0%} of the attempts were cut off at the token limit before they ended",
        "raise --set rollouts.max_tokens; a model that never stops needs the warm start",
    ),
    "mismatch": _at_least(
        _GAP,
        "train/logprob_gap_mean",
        "sampler and trainer differ by {value:.4f} nats a token on average (usual: below 0.005)",
        "train only on attempts of the newest version, at temperature 1; if they are, try float32",
    ),
    "kl_running_off": _kl_running_off,
    "tools_failing": _tools_failing,
    "judge_abstaining": _judge_abstaining,
    "updates_skipped": _updates_skipped,
    "chosen_falling": _chosen_falling,
    "loss_near_zero": _loss_near_zero,
}

#: The name of every finding there is.
NAMES: Final = tuple(_CHECKS)
