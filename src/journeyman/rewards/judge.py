"""The judge protocol (whoever compares the attempts at one scenario), and Rubric: judges and functions mixed into one reward.

Not the words that a judging model reads (ruler.py).
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from journeyman.errors import REWARD_FAILED, JudgeError, SettingError, stops_everything
from journeyman.types.runs import as_number
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Failure, Group, JudgeCall, Trajectory, Verdict


class Judge(Protocol):
    """Scores groups. Returns the same groups in the same order, each trajectory with `verdict` and `reward` set.

    A trajectory that cannot be scored keeps `reward=None` and gets a verdict with `score=None` that says why: a failure never
    becomes reward 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """One sentence: what the score means. Printed when a run starts."""
        ...

    async def score(self, groups: Sequence[Group]) -> list[Group]: ...


# Independent rewards: of one attempt, whatever the others did. None: does not apply to this attempt.
RewardFunction = Callable[[Scenario, Trajectory], Awaitable[float | None] | float | None]
Part = Judge | RewardFunction


@dataclass(frozen=True, slots=True)
class _Weighted:
    name: str
    part: Part
    weight: float


@dataclass(frozen=True, slots=True)
class _Opinion:
    """What one part says of one attempt. `is_missing`: a judge abstained or a function failed, so the whole cannot be known."""

    value: float | None
    explanation: str = ""
    is_missing: bool = False
    failure: JudgeError | None = None
    is_success: bool | None = None
    calls: tuple[JudgeCall, ...] = ()


class Rubric:
    """A judge made of judges and functions; the score is the weighted mean of those that apply.

    A function gets (scenario, trajectory) and returns a number from 0 to 1, or None where it does not apply: its weight then goes to the
    others. It may be async, and is then asked of all attempts at once. A judge that abstains, and a function that raises or returns
    something else, leave the attempt without reward, and the verdict says why: a missing opinion is not a number.

    Args:
        parts: judges or functions, or (judge or function, weight) pairs.

    Raises SettingError for no parts or a weight that is not above 0.

    Example:
        >>> def is_short(scenario, trajectory):
        ...     return 1.0 if len(trajectory.answer or "") < 200 else 0.0
        >>> from journeyman.rewards.evidence import EvidenceJudge
        >>> Rubric([(EvidenceJudge(), 4), is_short]).name
        'rubric(evidence, is_short)'
    """

    def __init__(self, parts: Sequence[Part | tuple[Part, float]]) -> None:
        if not parts:
            raise SettingError("a Rubric needs at least one judge or function")
        self._parts = []
        for item in parts:
            part, weight = item if isinstance(item, tuple) else (item, 1.0)
            if not weight > 0 or not math.isfinite(weight):
                raise SettingError(f"the weight of {_name(part)} is {weight}; it must be above 0", hint="leave the part out instead")
            self._parts.append(_Weighted(_name(part), part, float(weight)))

    @property
    def name(self) -> str:
        return f"rubric({', '.join(one.name for one in self._parts)})"

    @property
    def description(self) -> str:
        total = sum(one.weight for one in self._parts)
        return "0 to 1, mixed of " + ", ".join(f"{one.name} ({100 * one.weight / total:.0f} %)" for one in self._parts)

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        """All parts at once. Raises JudgeError (`reward_failed`) for a function that failed at every attempt it was asked of."""
        opinions = await asyncio.gather(*[_ask(one, groups) for one in self._parts])
        out = []
        for at, group in enumerate(groups):
            attempts = []
            for place, attempt in enumerate(group.trajectories):
                verdict = self._mix([opinion[at][place] for opinion in opinions])
                attempts.append(attempt.model_copy(update={"verdict": verdict, "reward": verdict.score}))
            out.append(group.model_copy(update={"trajectories": tuple(attempts)}))
        return out

    def _mix(self, opinions: Sequence[_Opinion]) -> Verdict:
        named = list(zip(self._parts, opinions, strict=True))
        calls = tuple(call for opinion in opinions for call in opinion.calls)
        said = "; ".join(f"{part.name}: {opinion.explanation}" for part, opinion in named if opinion.explanation)
        missing = [part.name for part, opinion in named if opinion.is_missing]
        applying = [(part.weight, opinion.value) for part, opinion in named if opinion.value is not None]
        if missing or not applying:
            reason = f"{', '.join(missing)} abstained" if missing else "no part of the rubric applies"
            return Verdict(judge=self.name, score=None, explanation=f"{reason}; {said}" if said else reason, calls=calls)
        total = sum(weight for weight, _ in applying)
        successes = [opinion.is_success for opinion in opinions if opinion.is_success is not None]
        return Verdict(
            judge=self.name,
            score=min(1.0, math.fsum(weight * value for weight, value in applying) / total),
            explanation=said,
            checks={part.name: opinion.value for part, opinion in named if opinion.value is not None},
            is_success=all(successes) if successes else None,
            calls=calls,
        )


async def best_of(judge: Judge, group: Group) -> Trajectory | None:
    """The attempt that a judge likes best (the first of equals), with its verdict; None when it scored none. For Best-of-N selection."""
    [scored] = await judge.score([group])
    rewarded = [one for one in scored if one.reward is not None and math.isfinite(one.reward)]
    return max(rewarded, key=lambda one: one.reward or 0.0) if rewarded else None


async def _ask(one: _Weighted, groups: Sequence[Group]) -> list[list[_Opinion]]:
    """One part's opinions by group and place."""
    if not callable(one.part):
        scored = await one.part.score(groups)
        if [len(group) for group in scored] != [len(group) for group in groups]:
            raise JudgeError(f"the judge {one.name} returned other groups than it was given", reason=REWARD_FAILED)
        return [[_of_judge(attempt) for attempt in group] for group in scored]
    function = one.part
    asked = [[_opinion(one.name, function, group.scenario, attempt) for attempt in group] for group in groups]
    opinions = [list(found) for found in await asyncio.gather(*[asyncio.gather(*row) for row in asked])]
    # That a function does not apply to an attempt that failed tells nothing of the function.
    rows = zip(opinions, groups, strict=True)
    said = [one for row, group in rows for one, attempt in zip(row, group, strict=True) if one.failure or attempt.error is None]
    failures = [opinion.failure for opinion in said if opinion.failure is not None]
    if failures and len(failures) == len(said):
        raise failures[0]
    return opinions


async def _opinion(name: str, function: RewardFunction, scenario: Scenario, attempt: Trajectory) -> _Opinion:
    """What a function says of one attempt; whatever goes wrong in it is missing there, and nowhere else."""
    try:
        returned = function(scenario, attempt)
        value = await returned if inspect.isawaitable(returned) else returned
        if value is None:
            return _Opinion(None)
        number = _share(value)
    except BaseException as error:
        if stops_everything(error):
            raise
        cause = Failure.of(error)
        failure = JudgeError(
            f"the reward function {name} failed: {cause.type}: {cause.message} (attempt {attempt.id} at {scenario.id!r})",
            hint="return a number from 0 to 1, or None where it does not apply; --debug shows the traceback",
            reason=REWARD_FAILED,
        )
        failure.__cause__ = error
        return _Opinion(None, failure.message, is_missing=True, failure=failure)
    return _Opinion(number)


def _of_judge(attempt: Trajectory) -> _Opinion:
    verdict = attempt.verdict
    if verdict is None or attempt.reward is None:
        return _Opinion(None, verdict.explanation if verdict else "", is_missing=True, calls=verdict.calls if verdict else ())
    try:
        reward = _share(attempt.reward)
    except (TypeError, ValueError) as error:
        return _Opinion(None, str(error), is_missing=True, calls=verdict.calls)
    return _Opinion(reward, verdict.explanation, is_success=verdict.is_success, calls=verdict.calls)


def _share(value: object) -> float:
    """A number from 0 to 1. Raises TypeError, ValueError."""
    number = as_number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"it returned {number:g}")
    return number


def _name(part: Part) -> str:
    return getattr(part, "name", None) or getattr(part, "__name__", None) or type(part).__name__
