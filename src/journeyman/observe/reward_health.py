"""The rewards of a run's steps: their noise, whether they rise, and the findings in them (no spread within groups, a fall, no rise).

A limit on a noisy reading is a test: what it compares is said in standard errors, so that a run in which nothing happens is told nothing,
however many steps it has. The rates are measured in tests/observe/test_false_alarms.py. Not for other findings: see `health.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final, Literal

Metrics = dict[str, float]
Level = Literal["problem", "watch", "normal"]
Seen = tuple[Level, str, str, float]
"""A finding without its name: level, text, advice, value."""
Check = Callable[[Sequence[Metrics]], Seen | None]

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
    return [step[name] for step in history if name in step and math.isfinite(step[name])]


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
    successes = series(recent, "reward/success") or [reward for reward in series(recent, "reward/mean") if reward <= 1.0]
    return fmean(successes or [0.0]) >= AT_TOP and not failing_kinds(history)


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


# If half of the groups have spread, none of eight has in 1 of 256 cases, and fewer than a quarter of sixteen in 1 of 94.
_GROUPS_FOR_NONE: Final = 8
_STEPS_FOR_NONE: Final = 5
_GROUPS_FOR_FEW: Final = 16
_FEW: Final = 0.25
_FEWEST_GROUPS: Final = 2.0  # of a step that does not say how many it has
_FALL: Final = 0.25  # of the best reward
_FALL_ERRORS: Final = 1.5
_RISE: Final = 0.05  # a step, of the spread of rewards within a group
_RISE_OF_REWARD: Final = 0.01  # a step, of the reward, where no spread is known
_RISE_ERRORS: Final = 3.0
_HALF: Final = 4
_MAX_NAMED: Final = 4  # kinds
_HELP_KINDS: Final = "read attempts of the kinds that never succeed; drills, examples or easier tasks of these kinds"


def no_spread(history: Sequence[Metrics]) -> Seen | None:
    measured = [step for step in history if series([step], "reward/with_spread")]
    steps = [(step["reward/with_spread"], step.get("reward/num_groups", _FEWEST_GROUPS)) for step in measured]
    shortfall = _none_has_spread(steps) or _few_have_spread(steps)
    if shortfall is None:
        return None
    share, seen = shortfall
    if is_solved(history) and not _num_alike(history)[0]:
        return "watch", f"{seen}: these tasks are solved", without_spread_advice(history), share
    return "problem", seen + _where_alike(history), without_spread_advice(history), share


def kinds_failing(history: Sequence[Metrics]) -> Seen | None:
    """Kinds of tasks that never succeed, where others do."""
    failing = failing_kinds(history, WINDOW)
    if not failing or len(failing) == num_kinds(history):
        return None
    share = len(failing) / num_kinds(history)
    return "watch", f"{len(failing)} of {num_kinds(history)} kinds of tasks never succeed: {_listed(failing)}", _HELP_KINDS, share


def without_spread_advice(history: Sequence[Metrics]) -> str:
    """What to do where groups have no spread: all attempts fail, all succeed, or neither."""
    bottom, top = _num_alike(history)
    failing = failing_kinds(history)
    if failing and len(failing) < num_kinds(history):
        return f"{_HELP_KINDS} ({_listed(failing)}); what is solved need not be trained on"
    if is_solved(history) and bottom:
        return "most of these tasks are solved: train on those at which all attempts fail, or give harder ones"
    if is_solved(history):
        return "the model solves these tasks already: stop here, or give harder ones"
    if bottom > top:
        return "all attempts fail: easier tasks, more drills or examples, or a larger base"
    if top > bottom:
        return "all attempts succeed: harder tasks"
    return "larger groups, easier tasks, or a judge that tells finer"


def _where_alike(history: Sequence[Metrics]) -> str:
    """How many of the groups without spread are at the bottom and at the top, and the kinds at the bottom."""
    bottom, top = _num_alike(history)
    failing = failing_kinds(history)
    where = f"; in the last steps all attempts failed in {bottom:.0f} groups and succeeded in {top:.0f}" if bottom or top else ""
    return where + (f"; these kinds of tasks never succeed: {_listed(failing)}" if failing else "")


def _num_alike(history: Sequence[Metrics]) -> tuple[float, float]:
    recent = history[-WINDOW:]
    return sum(series(recent, "reward/num_alike_at_bottom")), sum(series(recent, "reward/num_alike_at_top"))


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown}; and {len(names) - _MAX_NAMED} more"


def _none_has_spread(steps: Sequence[tuple[float, float]]) -> tuple[float, str] | None:
    """Steps up to the last one in which no group has spread, if they are many or have many groups."""
    num_steps, num_groups = 0, 0.0
    for share, groups in reversed(steps):
        if share > 0.0:
            break
        num_steps, num_groups = num_steps + 1, num_groups + groups
    if num_groups < _GROUPS_FOR_NONE and num_steps < _STEPS_FOR_NONE:
        return None
    where = f"in {num_steps} steps" if num_steps > 1 else "in the last step"
    return 0.0, f"{where} no group (0%) had attempts of different reward, so nothing was learned"


def _few_have_spread(steps: Sequence[tuple[float, float]]) -> tuple[float, str] | None:
    """The share of the groups with spread in the last three steps, or in as many as have sixteen groups; None from a quarter on."""
    with_spread, num_groups = 0.0, 0.0
    for number, (share, groups) in enumerate(reversed(steps), start=1):
        with_spread, num_groups = with_spread + share * groups, num_groups + groups
        if number >= WINDOW and num_groups >= _GROUPS_FOR_FEW:
            break
    else:
        return None
    share = with_spread / num_groups
    if share >= _FEW:
        return None
    return share, f"only {share:.0%} of the groups in {number} steps had attempts of different reward, so the others taught nothing"


def reward_falling(history: Sequence[Metrics]) -> Seen | None:
    rewards = series(history, "reward/mean")
    if len(rewards) < 2 * WINDOW:
        return None
    means = [fmean(rewards[end - WINDOW : end]) for end in range(WINDOW, len(rewards) + 1)]
    best, now = max(means), means[-1]
    # Of a difference of two means; the best of n is above the true mean by up to sqrt(2 ln n) errors by chance alone.
    error = reward_noise(history) * math.sqrt(2 / WINDOW)
    chance = (_FALL_ERRORS + math.sqrt(2 * math.log(len(means)))) * error
    if best - now <= max(_FALL * abs(best), chance):
        return None
    return (
        "problem",
        f"the reward fell from {best:.2f} to {now:.2f} (means of {WINDOW} steps)",
        "go back to the best version, and train with a third of the learning rate",
        now - best,
    )


def reward_flat(history: Sequence[Metrics]) -> Seen | None:
    rewards = series(history, "reward/mean")
    if len(rewards) < 2 * _HALF or is_solved(history):
        return None
    rise, noise = _rise_worth_having(history, rewards), reward_noise(history)
    half = _steps_to_see(rise, noise)
    if half is None or 2 * half > len(rewards):
        return None
    before, now = fmean(rewards[-2 * half : -half]), fmean(rewards[-half:])
    if now - before > rise * half - _RISE_ERRORS * noise * math.sqrt(2 / half):
        return None
    return (
        "watch",
        f"the reward does not rise: {before:.2f} in {half} steps, {now:.2f} in the {half} after them",
        "read some attempts first; then more groups a step, then a higher learning rate",
        now - before,
    )


def _rise_worth_having(history: Sequence[Metrics], rewards: Sequence[float]) -> float:
    """The rise of the reward in a step that a run should have."""
    spread = fmean(series(history, "reward/std") or [0.0])
    return _RISE * spread if spread > 0.0 else _RISE_OF_REWARD * fmean(map(abs, rewards))


def _steps_to_see(rise: float, noise: float) -> int | None:
    """How many steps, compared with as many before them, show such a rise in spite of the noise; None: no number does."""
    if noise == 0.0:
        return _HALF
    if rise == 0.0:
        return None
    # rise * half is as large as the errors: their number is that of the difference of two means of so many steps.
    return max(_HALF, math.ceil(math.pow(_RISE_ERRORS * math.sqrt(2) * noise / rise, 2 / 3)))
