"""Scored groups as the metrics of a step (`reward/...`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev, stdev

from journeyman.observe.reward_health import AT_BOTTOM, AT_TOP, KIND
from journeyman.shaping import has_spread
from journeyman.types.scenarios import kind_name
from journeyman.types.settings import Grpo
from journeyman.types.trajectory import Group, Trajectory

# Half width of a 95 % interval in standard errors.
_Z = 1.96


def reward_metrics(groups: Sequence[Group], settings: Grpo | None = None) -> dict[str, float]:
    """Metrics of one step's scored groups, to be trained on with `settings` (the defaults when None).

    `reward/mean`, `reward/low`, `reward/high`: mean of the groups' mean rewards and its 95 % interval (normal, over groups: attempts at
    one scenario are not independent); `reward/std` within groups; `reward/success`, `reward/success_low`, `reward/success_high` where the
    judge tells success; `reward/num_excluded` attempts without reward; `reward/with_spread` the share of groups that can teach, the
    overlong penalty and ties of the settings applied as the trainer does (all others are of the rewards as given); of those that cannot,
    `reward/num_alike_at_bottom` in which all attempts fail and `reward/num_alike_at_top` in which all succeed;
    `reward/kind/<name>` the success of each kind of tasks (the reward, where the judge tells no success);
    `reward/check/<name>`, the mean of each check of the verdicts; and the metrics of a judging model (`judge_metrics`).
    """
    scored = [group for group in groups if _rewards(group)]
    rewarded = [_rewards(group) for group in scored]
    num_excluded = sum(len(group) - len(_rewards(group)) for group in groups)
    metrics = {"reward/num_excluded": float(num_excluded), "reward/num_groups": float(len(groups))} | judge_metrics(groups)
    if not rewarded:
        return metrics
    metrics |= _interval("reward", [fmean(rewards) for rewards in rewarded], "mean", "low", "high")
    metrics["reward/std"] = fmean([pstdev(rewards) for rewards in rewarded])
    spread = [has_spread(group, settings or Grpo()) for group in scored]
    metrics["reward/with_spread"] = fmean([float(one) for one in spread])
    metrics |= _alike([group for group, has_some in zip(scored, spread, strict=True) if not has_some]) | _kinds(scored)
    successes = [flags for group in groups if (flags := _successes(group.trajectories))]
    if successes:
        rates = [fmean(flags) for flags in successes]
        metrics |= _interval("reward", rates, "success", "success_low", "success_high")
    return metrics | _checks(groups)


def _rewards(group: Group) -> list[float]:
    """Those there are; what is no finite number is none, as it is for the trainer."""
    return [one.reward for one in group if one.reward is not None and math.isfinite(one.reward)]


def judge_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What judging these groups with a model took (`judge/...`); empty for judges that ask none.

    `judge/calls` listwise calls, `judge/cached` the share of them answered from disk, `judge/prompt_tokens`,
    `judge/completion_tokens`, `judge/cost_usd` where a price is set, `judge/seconds` the mean time of a call that was made,
    `judge/num_abstained` groups left out, and `judge/order_agreement`: the share of pairs of attempts that the judge puts in the same
    order when it is shown them in two (1 is firm, 0.5 is chance).
    """
    calls = {call.call: call for group in groups for one in group if one.verdict for call in one.verdict.calls}
    if not calls:
        return {}
    made = [call for call in calls.values() if not call.is_cached]
    metrics = {
        "judge/calls": float(len(calls)),
        "judge/cached": 1.0 - len(made) / len(calls),
        "judge/prompt_tokens": float(sum(call.prompt_tokens for call in made)),
        "judge/completion_tokens": float(sum(call.completion_tokens for call in made)),
        "judge/num_abstained": float(sum(_is_abstained(group) for group in groups)),
    }
    if made:
        metrics["judge/seconds"] = fmean([call.seconds for call in made])
    if costs := [call.cost_usd for call in made if call.cost_usd is not None]:
        metrics["judge/cost_usd"] = math.fsum(costs)
    agreements = [found for group in groups if (found := _order_agreement(group)) is not None]
    if agreements:
        metrics["judge/order_agreement"] = fmean(agreements)
    return metrics


def _is_abstained(group: Group) -> bool:
    """The judge was asked and nobody has a score."""
    verdicts = [one.verdict for one in group if one.verdict is not None]
    return any(verdict.calls for verdict in verdicts) and all(verdict.score is None for verdict in verdicts)


def _order_agreement(group: Group) -> float | None:
    values = (one.verdict.checks.get("order_agreement") for one in group if one.verdict is not None)
    return next((value for value in values if value is not None), None)


def excluded_text(groups: Sequence[Group]) -> str:
    """How many attempts have no reward, and the most frequent reason (of one that failed, what it failed of); empty when all have one."""
    attempts = [one for group in groups for one in group]
    excluded = [one for one in attempts if one.reward is None]
    if not excluded:
        return ""
    reason = Counter(map(_why_excluded, excluded)).most_common(1)[0][0]
    return f"{len(excluded)} of {len(attempts)} attempts could not be scored: {reason}"


def _why_excluded(attempt: Trajectory) -> str:
    if attempt.error is not None:
        return f"{attempt.error.type}: {attempt.error.message}"
    return attempt.verdict.explanation if attempt.verdict else "no verdict"


def _successes(trajectories: Sequence[Trajectory]) -> list[float]:
    verdicts = [one.verdict for one in trajectories if one.verdict is not None]
    return [float(verdict.is_success) for verdict in verdicts if verdict.is_success is not None]


def _success(group: Group) -> float:
    """The share of a scored group's attempts that succeed; their mean reward where the judge tells no success."""
    return fmean(_successes(group.trajectories) or _rewards(group))


def _alike(groups: Sequence[Group]) -> dict[str, float]:
    """Of scored groups without spread, how many lie at the bottom and how many at the top."""
    num_at_bottom = num_at_top = 0
    for group in groups:
        bottom, top = (0.0, 1.0) if _successes(group.trajectories) else (AT_BOTTOM, AT_TOP)
        num_at_bottom += _success(group) <= bottom
        num_at_top += _success(group) >= top
    return {"reward/num_alike_at_bottom": float(num_at_bottom), "reward/num_alike_at_top": float(num_at_top)}


def _kinds(groups: Sequence[Group]) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for group in groups:
        if name := kind_name(group.scenario):
            rates.setdefault(name, []).append(_success(group))
    return {f"{KIND}{name}": fmean(found) for name, found in sorted(rates.items())}


def _checks(groups: Sequence[Group]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for group in groups:
        for one in group:
            for name, value in (one.verdict.checks if one.verdict else {}).items():
                values.setdefault(name, []).append(value)
    return {f"reward/check/{name}": fmean(found) for name, found in sorted(values.items())}


def _interval(prefix: str, values: Sequence[float], mean_name: str, low_name: str, high_name: str) -> dict[str, float]:
    mean = fmean(values)
    # One group tells nothing of the spread between groups: no interval.
    if len(values) < 2:
        return {f"{prefix}/{mean_name}": mean}
    error = _Z * stdev(values) / math.sqrt(len(values))
    low, high = mean - error, mean + error
    if min(values) >= 0.0 and max(values) <= 1.0:  # shares, and the scores of judges: their mean lies there too
        low, high = max(0.0, low), min(1.0, high)
    return {f"{prefix}/{mean_name}": mean, f"{prefix}/{low_name}": low, f"{prefix}/{high_name}": high}
