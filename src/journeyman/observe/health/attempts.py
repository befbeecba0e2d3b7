"""Findings in the attempts of a run: cut off, tools that fail, rewards that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from journeyman.observe.health.finding import Metrics, Seen, at_least
from journeyman.observe.health.readings import series

_TRUNCATED: Final = 0.5
_EXECUTED: Final = 0.3
_EXCLUDED: Final = 0.25

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
