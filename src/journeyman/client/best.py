"""Examples for SFT from scored groups: rejection sampling. Not for scoring: see `journeyman.rewards`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from journeyman.errors import SettingError
from journeyman.types.training import StoredExample
from journeyman.types.trajectory import Group


def best_trajectories(groups: Iterable[Group], *, min_reward: float, at_most: int = 1) -> list[StoredExample]:
    """The best attempts at each scenario, of those whose reward is `min_reward` or more: what to imitate (rejection sampling).

    Only ids travel: training uses the tokens that were sampled. Attempts without a reward that counts, with an error, without a turn
    or cut off at the token limit (`Trajectory.is_truncated`: they would teach not to stop) are left out; groups of one scenario are
    taken together; among equals the first is taken.

    Args:
        at_most: attempts of one scenario; few, so that easy scenarios do not outweigh the others.

    Source: RAFT (Dong et al. 2304.06767), with a threshold.

    Example:
        >>> examples = best_trajectories(await judge.score(groups), min_reward=0.8)       # doctest: +SKIP
        >>> await model.train_sft(examples, jm.Sft(epochs=2))                             # doctest: +SKIP
    """
    if not math.isfinite(min_reward):
        raise SettingError(f"min_reward is {min_reward}: it must be a number")
    if at_most < 1:
        raise SettingError(f"at_most is {at_most}: it must be 1 or more")
    found: dict[str, list[tuple[float, str]]] = {}
    for group in groups:
        for one in group:
            is_whole = one.error is None and one.num_sampled_tokens and not one.is_truncated
            if is_whole and one.reward is not None and one.reward >= min_reward:
                found.setdefault(group.scenario.id, []).append((one.reward, one.id))
    ranked = (sorted(attempts, key=lambda attempt: -attempt[0]) for attempts in found.values())
    return [StoredExample(trajectory_id=name) for attempts in ranked for _, name in attempts[:at_most]]
