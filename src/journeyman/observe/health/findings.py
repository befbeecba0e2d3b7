"""All findings of a run, and those of its last step that are new.

    for finding in findings([step.metrics for step in steps]): print(finding.text)

Pure functions over the metrics of training steps, the oldest first. Each finding is explained in docs/health.md under its name.
Not for stopping a run (a recipe decides that), nor for drawing (the command line does).

The limits are held to real runs (one that collapsed, those of docs/studies that did not) and to runs of pure noise, by tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from journeyman.observe.health.attempts import all_truncated, judge_abstaining, tools_failing
from journeyman.observe.health.finding import Check, Finding, Metrics
from journeyman.observe.health.policy import (
    chosen_falling,
    entropy_collapse,
    kl_running_off,
    loss_near_zero,
    mismatch,
    mismatch_masked,
    updates_skipped,
)
from journeyman.observe.health.readings import with_rewards
from journeyman.observe.health.rewards import kinds_failing, no_spread, reward_falling, reward_flat
from journeyman.types.runs import StepMetrics

_LEVELS: Final = ("problem", "watch", "normal")
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
    found = [Finding(name, *seen) for name, check in _CHECKS.items() if (seen := check(history)) is not None]
    if any(finding.name == "reward_falling" for finding in found):
        found = [finding for finding in found if finding.name != "reward_flat"]
    if any(finding.name == "no_spread" for finding in found):  # it names them
        found = [finding for finding in found if finding.name != "kinds_failing"]
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def news(history: Sequence[Metrics]) -> list[Finding]:
    """The findings of the last step that the step before did not have, so that each is said once while it lasts.

    What is normal is said once in a run.
    """
    before = {(finding.name, finding.level) for finding in findings(history[:-1])}
    if any(loss_near_zero([with_rewards(one)]) for one in history[:-1]):
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
