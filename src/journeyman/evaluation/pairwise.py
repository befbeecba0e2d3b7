"""Which of two variants does a judging model prefer? Held-out attempts in pairs, both orders, ties counted, intervals over scenarios.

Beside the success that evidence shows, not instead of it. Not for training: a model that trained a policy is no neutral judge of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.errors import SettingError
from journeyman.evaluation.heldout import is_lost
from journeyman.evaluation.statistics import Interval, bootstrap_interval, mcnemar_p_value
from journeyman.rewards.attempt_text import conversation, render_messages
from journeyman.rewards.judge import Judge
from journeyman.types.record import Record
from journeyman.types.trajectory import Group

_PARTIAL = "{judge} trained this model, or is it: it prefers what it rewarded; compare with another judge"


class PairwiseResult(Record):
    """How often `after` was preferred to `before`.

    Attributes:
        wins, ties, losses: pairs of attempts at one scenario; a tie is a pair whose two orders disagree, or whose scores are equal.
        num_abstained: pairs that the judge could not compare; they count nowhere.
        win_rate: wins + half of the ties over pairs, as the mean over scenarios, with a bootstrap over scenarios (clusters).
        p_value: exact sign test over scenarios that lean to one side.
        agreement: the share of pairs, ties within one order aside, on which both orders agree; None without any.
    """

    judge: str
    before: str
    after: str
    num_scenarios: int
    wins: int
    ties: int
    losses: int
    num_abstained: int
    win_rate: Interval
    p_value: float
    agreement: float | None = None
    warning: str = ""

    def text(self) -> str:
        """One line for a report."""
        line = (
            f"{self.judge} prefers {self.after} to {self.before} in {self.win_rate.text()} of {self.num_scenarios} scenarios: "
            f"{self.wins} won, {self.ties} tied, {self.losses} lost; sign test p = {self.p_value:.2g}"
        )
        if self.agreement is not None:
            line += f"; both orders agree on {self.agreement:.0%}"
        return line + (f"; {self.num_abstained} pairs not judged" if self.num_abstained else "")


async def prefer(
    judge: Judge, before: tuple[str, Sequence[Group]], after: tuple[str, Sequence[Group]], *, is_training_judge: bool = False
) -> PairwiseResult:
    """Compare two variants' attempts at the same scenarios, attempt i of one with attempt i of the other.

    Args:
        judge: compares a group of two in both orders (a Ruler in any mode).
        before, after: name and groups, scenarios in the same order.
        is_training_judge: the policy learned from this judge, or is it: the result carries a warning.

    Raises SettingError when the scenarios differ, or nothing could be compared.
    """
    if [one.scenario.id for one in before[1]] != [one.scenario.id for one in after[1]]:
        raise SettingError(f"{before[0]} and {after[0]} attempted different scenarios: they cannot be paired")
    pairs = [
        (place, Group(scenario=left.scenario, trajectories=(one, other)))
        for place, (left, right) in enumerate(zip(before[1], after[1], strict=True))
        for one, other in zip(left, right, strict=False)
    ]
    scored = await judge.score([group for _, group in pairs])
    points: dict[int, list[float]] = {}
    agreements = []
    num_abstained = 0
    for (place, asked), group in zip(pairs, scored, strict=True):
        point = _point(asked, group)
        if point is None:
            num_abstained += 1
            continue
        points.setdefault(place, []).append(point)
        if (agreement := _agreement(group)) is not None:
            agreements.append(agreement)
    if not points:
        raise SettingError(f"judge {judge.name} could compare no pair of attempts of {before[0]} and {after[0]}")
    every = [point for found in points.values() for point in found]
    means = [sum(found) / len(found) for found in points.values()]
    return PairwiseResult(
        judge=judge.name,
        before=before[0],
        after=after[0],
        num_scenarios=len(points),
        wins=every.count(1.0),
        ties=every.count(0.5),
        losses=every.count(0.0),
        num_abstained=num_abstained,
        win_rate=bootstrap_interval(means),
        p_value=mcnemar_p_value(sum(one > 0.5 for one in means), sum(one < 0.5 for one in means)),
        agreement=sum(agreements) / len(agreements) if agreements else None,
        warning=_PARTIAL.format(judge=judge.name) if is_training_judge else "",
    )


def _point(asked: Group, scored: Group) -> float | None:
    """1 when the second attempt is preferred in both orders, 0 when the first is, 0.5 for a tie; None when not judged."""
    one, other = scored.trajectories
    if is_lost(one) or is_lost(other):
        return None
    if _reads_the_same(asked):
        return 0.5
    if one.verdict is None or other.verdict is None or one.verdict.score is None or other.verdict.score is None:
        return None
    votes = _votes(scored)
    if votes and (min(votes) != max(votes) or not any(votes)):
        return 0.5
    return 0.5 + 0.5 * _sign(other.verdict.score - one.verdict.score)


def _votes(scored: Group) -> list[int]:
    """1 or -1 for each call that saw both attempts, as it prefers the second or the first; 0 for equal scores."""
    one, other = scored.trajectories
    left, right = (attempt.verdict.calls if attempt.verdict else () for attempt in (one, other))
    by_name = {call.call: call for call in right}
    both = [(call, by_name[call.call]) for call in left if call.call in by_name]
    return [_sign((second.score or 0.0) - (first.score or 0.0)) for first, second in both]


def _agreement(scored: Group) -> float | None:
    votes = _votes(scored)
    return float(votes[0] == votes[1]) if len(votes) == 2 and all(votes) else None


def _reads_the_same(group: Group) -> bool:
    one, other = (render_messages(conversation(attempt)) for attempt in group.trajectories)
    return bool(one) and one == other and all(attempt.error is None for attempt in group.trajectories)


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)
