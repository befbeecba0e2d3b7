"""What scored groups teach without a policy update: examples to imitate, the best attempts; and pairs, the best of a group against its
worst. Not for scoring: see `journeyman.rewards`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from journeyman.errors import SettingError
from journeyman.types.training import StoredExample, StoredPair
from journeyman.types.trajectory import Group, Trajectory


def pairs_from_groups(groups: Iterable[Group], margin: float = 0.0) -> list[StoredPair]:
    """The best against the worst attempt of each group whose rewards differ by more than `margin`.

    Only ids travel: training uses the tokens that were sampled. Attempts without reward, with an error or without a turn do not count;
    among equals the first is taken. A group gives no pair when its spread is no larger than the margin, or when best and worst are the
    same tokens (a judge may score the same words differently).

    Args:
        margin: a small judge tells attempts apart by hundredths and is often wrong there; 0.1 or more leaves such pairs out.

    Example:
        >>> pairs = pairs_from_groups(await judge.score(groups), margin=0.1)              # doctest: +SKIP
        >>> await model.train_dpo(pairs, jm.Dpo())                                        # doctest: +SKIP
    """
    if not 0.0 <= margin < math.inf:
        raise SettingError(f"margin is {margin}: it must be 0 or more", reason="invalid_number")
    pairs = []
    for group in groups:
        scored = [(attempt.reward, attempt) for attempt in group if attempt.reward is not None and _counts(attempt)]
        if not scored:
            continue
        best = max(scored, key=lambda pair: pair[0])
        worst = min(scored, key=lambda pair: pair[0])
        if best[0] - worst[0] > margin and _tokens(best[1]) != _tokens(worst[1]):
            pairs.append(StoredPair(chosen=best[1].id, rejected=worst[1].id))
    return pairs


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
        raise SettingError(f"min_reward is {min_reward}: it must be a number", reason="invalid_number")
    if at_most < 1:
        raise SettingError(f"at_most is {at_most}: it must be 1 or more", reason="invalid_number")
    eligible: dict[str, list[tuple[float, str]]] = {}
    for group in groups:
        for attempt in group:
            if attempt.reward is not None and attempt.reward >= min_reward and _counts(attempt) and not attempt.is_truncated:
                eligible.setdefault(group.scenario.id, []).append((attempt.reward, attempt.id))
    ranked = (sorted(attempts, key=lambda attempt: -attempt[0]) for attempts in eligible.values())
    return [StoredExample(trajectory_id=name) for attempts in ranked for _, name in attempts[:at_most]]


def _counts(trajectory: Trajectory) -> bool:
    return (
        trajectory.reward is not None
        and math.isfinite(trajectory.reward)
        and trajectory.error is None
        and trajectory.num_sampled_tokens > 0
    )


def _tokens(trajectory: Trajectory) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(turn.prompt_ids, turn.sampled_ids) for turn in trajectory.turns]
