"""What a judge, or a function in its place, made of one group, checked: rewards are numbers, and nobody's attempt is lost."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.client.left_behind import reward_number
from journeyman.types.trajectory import Failure, Group, Trajectory, Verdict

_JUDGE = "score"


def scored_group(returned: object, group: Group) -> Group:
    """The group that was returned for `group`; an attempt whose reward or verdict is none has no reward, and a verdict that says why.

    Raises TypeError, ValueError for something else than one group of the same attempts.
    """
    if not isinstance(returned, Sequence) or len(returned) != 1 or not isinstance(returned[0], Group):
        raise TypeError(f"it returned {returned!r:.200}, not a list of one Group")
    found = returned[0]
    if not all(isinstance(one, Trajectory) for one in found.trajectories):
        raise TypeError("its group holds something else than trajectories")
    if sorted(one.id for one in found) != sorted(one.id for one in group):
        raise ValueError(f"its group has {len(found)} attempts that are not the {len(group)} it was given")
    return found.model_copy(update={"trajectories": tuple(_sound(one) for one in found)})


def without_rewards(group: Group, why: str) -> Group:
    """A group that could not be scored: excluded, counted and shown, never of reward 0."""
    return group.model_copy(update={"trajectories": tuple(_unscored(one, why) for one in group)})


def _sound(attempt: Trajectory) -> Trajectory:
    try:
        reward = None if attempt.reward is None or not attempt.id else reward_number(attempt.reward)
        if attempt.verdict is not None:
            Verdict.model_validate(attempt.verdict.model_dump(warnings="none"))
    except Exception as error:  # noqa: BLE001 - the values may be of the user's own kinds
        return _unscored(attempt, f"the score of this attempt cannot be kept: {Failure.of(error).message}")
    return attempt.model_copy(update={"reward": reward})


def _unscored(attempt: Trajectory, why: str) -> Trajectory:
    return attempt.model_copy(update={"reward": None, "verdict": Verdict(judge=_JUDGE, score=None, explanation=why)})
