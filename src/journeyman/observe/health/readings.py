"""Readings of a run's steps: series, the noise of the reward, whether it has risen. Not for judging them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final

from journeyman.observe.health.finding import Metrics

#: Steps that a reading which is noisy by nature is averaged over.
WINDOW: Final = 3
_Z: Final = 1.96  # half width of a 95 % interval in standard errors
_JUMP: Final = 2 / math.sqrt(math.pi)  # the mean distance of two draws from one normal distribution, in its standard deviations
#: Success (or a reward out of 1) from which tasks count as solved, and up to which as failed.
AT_TOP: Final = 0.8
AT_BOTTOM: Final = 0.2
#: What the success of a kind of tasks is named: this and the kind.
KIND: Final = "reward/kind/"
_AS_TRAINED: Final = {"reward/mean": "train/reward_mean", "reward/std": "train/reward_spread", "reward/num_groups": "train/num_groups"}


def series(history: Iterable[Metrics], name: str) -> list[float]:
    """The readings of that name in the steps that have one."""
    return [one[name] for one in history if name in one and math.isfinite(one[name])]


def with_rewards(step: Metrics) -> Metrics:
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


def reward_noise(history: Sequence[Metrics]) -> float:
    """The standard error of one step's mean reward: by the steps' own intervals or by how far the reward jumps from step to step,
    whichever is more. The intervals do not see that steps have other tasks; the jumps are few at first, and are counted for more then.
    """
    halves = series(map(_half_width, history), "half")
    by_interval = math.sqrt(fmean(half * half for half in halves)) / _Z if halves else 0.0
    rewards = series(history, "reward/mean")
    jumps = [abs(after - before) for before, after in pairwise(rewards)]
    by_jumps = fmean(jumps) / _JUMP * (1 + 1 / len(jumps)) if jumps else 0.0
    return max(by_interval, by_jumps)


def has_risen(history: Sequence[Metrics]) -> bool:
    """Whether the mean reward of the last three steps (of the later half, in less than six) is above that of the first ones by more than a
    standard error."""
    rewards = series(history, "reward/mean")
    size = min(WINDOW, len(rewards) // 2)
    if size == 0:
        return False
    return fmean(rewards[-size:]) - fmean(rewards[:size]) > reward_noise(history) * math.sqrt(2 / size)


def is_solved(history: Sequence[Metrics]) -> bool:
    """Whether most attempts succeed, and some of every kind of tasks; rewards stand in for success where the judge does not tell it, if
    they are out of 1."""
    recent = history[-WINDOW:]
    told = series(recent, "reward/success") or [reward for reward in series(recent, "reward/mean") if reward <= 1.0]
    return fmean(told or [0.0]) >= AT_TOP and not failing_kinds(history)


def failing_kinds(history: Sequence[Metrics], fewest: int = 1) -> list[str]:
    """Kinds of tasks that never succeeded in the last three steps that had some of them (at least `fewest` steps)."""
    highest = 0.0 if any("reward/success" in step for step in history) else AT_BOTTOM
    names = sorted({name for step in history for name in step if name.startswith(KIND)})
    recent = {name: series(history, name)[-WINDOW:] for name in names}
    return [name.removeprefix(KIND) for name, rates in recent.items() if len(rates) >= fewest and max(rates) <= highest]


def num_kinds(history: Sequence[Metrics]) -> int:
    """How many kinds of tasks there are."""
    return len({name for step in history for name in step if name.startswith(KIND)})


def _half_width(step: Metrics) -> Metrics:
    """Half the step's interval; the wider half, because intervals end at 0 and 1."""
    if "reward/low" not in step or "reward/high" not in step or "reward/mean" not in step:
        return {}
    return {"half": max(step["reward/high"] - step["reward/mean"], step["reward/mean"] - step["reward/low"])}
