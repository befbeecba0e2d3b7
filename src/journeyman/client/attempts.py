"""The attempts of one call of `gather`: opened, run, sealed and judged. What goes wrong in one of them is data, and its own failure; what
goes wrong with the server is an error of all. Not for choosing what is attempted: see `gather.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from journeyman.client.models import Model
from journeyman.client.rollout import AttemptClock, Rollout
from journeyman.errors import REWARD_FAILED, InputError, JourneymanError, JudgeError, NotFoundError, ServiceError, stops_everything
from journeyman.observe.progress import Progress
from journeyman.types.json_text import check_json
from journeyman.types.runs import MAX_REWARD, as_number
from journeyman.types.scenarios import Scenario
from journeyman.types.training import FinishRollout, KeptAttempt
from journeyman.types.trajectory import MAX_MESSAGE, Failure, Group, ToolEvent, Trajectory, Verdict

RolloutFunction = Callable[[Scenario, Rollout], Awaitable[None]]
Score = Callable[[Sequence[Group]], Awaitable[list[Group]]]

_SEAL_AFTER_CANCEL_SECONDS = 5.0
#: 4xx that say nothing of the one request: a wrong key, a server that is busy.
_OF_THE_SERVER = frozenset({401, 403, 408, 429})
_JUDGE = "score"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes the attempts that `gather` describes; its arguments are there.

    Attributes:
        kept: finished attempts by their key; they are taken as they are.
        refused: errors of attempts that the server refused.
        unscored: errors of groups that could not be scored.
    """

    rollout: RolloutFunction
    model: Model
    timeout_seconds: float
    max_turns: int
    slots: asyncio.Semaphore
    progress: Progress | None
    key: str | None
    kept: Mapping[str, KeptAttempt]
    seed: int | None
    score: Score | None
    refused: list[Exception] = field(default_factory=list)
    unscored: list[Exception] = field(default_factory=list)

    def raise_common(self, num_groups: int, group_size: int) -> None:
        """What goes wrong in every one is nobody's own."""
        for errors, num_all in ((self.refused, num_groups * group_size), (self.unscored, num_groups)):
            if errors and len(errors) == num_all:
                raise errors[0]

    async def group(self, scenario: Scenario, attempts: Sequence[asyncio.Task[Trajectory]]) -> Group:
        """The group of a scenario, scored; without rewards where scoring failed at this one."""
        group = Group(scenario=scenario, trajectories=tuple([await attempt for attempt in attempts]))
        if self.score is None:
            return group
        try:
            return _scored_group(await _apart(self.score([group])), group)
        except BaseException as error:
            if stops_everything(error) or (isinstance(error, JourneymanError) and error.reason != REWARD_FAILED):
                raise
            failure = error if isinstance(error, JourneymanError) else _not_scored(scenario, error)
        self.unscored.append(failure)
        return group.model_copy(update={"trajectories": tuple(_unscored(attempt, str(failure)) for attempt in group)})

    async def attempt(self, scenario: Scenario, place: str) -> Trajectory:
        """The attempt at a place (`scenario/number`): made, unless it was before."""
        key = None if self.key is None else f"{self.key}/{place}"
        async with self.slots:
            kept = None if key is None else self.kept.get(key)
            if kept is not None and kept.scenario_id == scenario.id:
                trajectory = await self.model.trajectory(kept.trajectory_id)
            else:
                trajectory = await self._made(scenario, key, place)
        if self.progress is not None:
            self.progress.advance(1)
        return trajectory

    async def _made(self, scenario: Scenario, key: str | None, place: str) -> Trajectory:
        try:
            run = await self.model.open_rollout(scenario, max_turns=self.max_turns, key=key)
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            return self._refused(error, scenario)
        run.seed = None if self.seed is None else derived_seed(self.seed, *(self.key or "").split("/"), *place.split("/"))
        clock = AttemptClock()
        started = time.perf_counter()
        try:
            failure = await self._run(scenario, run, clock)
        except asyncio.CancelledError:
            await self._abandon(run, time.perf_counter() - started)
            raise
        seconds = time.perf_counter() - started - clock.stopped_seconds
        try:
            return await self._sealed(run, outcome_of(run, failure, seconds))
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            outcome = FinishRollout(error=Failure.of(error), seconds=seconds)  # of what it left, nothing is kept
        try:
            return await self._sealed(run, outcome)
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            known_as = "" if isinstance(error, NotFoundError) else run.id
            return self._refused(error, scenario, id=known_as, error=outcome.error, seconds=seconds)

    def _refused(self, refusal: Exception, scenario: Scenario, **known: Any) -> Trajectory:
        """An attempt that the server has no record of."""
        self.refused.append(refusal)
        return Trajectory(**{"id": "", "error": Failure.of(refusal), **known}, scenario_id=scenario.id, model=self.model.name)

    async def _run(self, scenario: Scenario, run: Rollout, clock: AttemptClock) -> Failure | None:
        """Run the agent; its failure as data. Only a real cancel of this attempt leaves as CancelledError."""
        try:
            async with asyncio.timeout(self.timeout_seconds) as limit:
                with clock.running(limit):
                    await _apart(self.rollout(scenario, run))
        except TimeoutError as error:
            return self._timed_out() if limit.expired() else Failure.of(error)
        except BaseException as error:
            if stops_everything(error):
                raise
            return Failure.of(error)
        if limit.expired():  # the agent swallowed the cancel
            return self._timed_out()
        return None

    def _timed_out(self) -> Failure:
        return Failure(type="WaitTimeoutError", message=f"the attempt did not end within {self.timeout_seconds:g} s")

    async def _sealed(self, run: Rollout, outcome: FinishRollout) -> Trajectory:
        """Seal an attempt that has ended, also when the others are cancelled meanwhile: whoever goes on with the key finds it."""
        sealing = asyncio.ensure_future(self.model.finish_rollout(run, outcome))
        try:
            return await asyncio.shield(sealing)
        except asyncio.CancelledError:
            await asyncio.wait({sealing}, timeout=_SEAL_AFTER_CANCEL_SECONDS)
            sealing.cancel()
            raise

    async def _abandon(self, run: Rollout, seconds: float) -> None:
        """Tell the server that a cancelled attempt is over, so that it keeps nothing for it; best effort, and never for long."""
        outcome = outcome_of(run, Failure(type="CancelledError", message="the attempt was cancelled"), seconds)
        try:
            async with asyncio.timeout(_SEAL_AFTER_CANCEL_SECONDS):
                await self.model.finish_rollout(run, outcome)
        except (JourneymanError, TimeoutError):
            return


def derived_seed(*parts: int | str) -> int:
    """A seed that differs wherever the text of any part does, of the size that every OpenAI-compatible server takes.

    Example:
        >>> derived_seed(0, "train-0", 1) == derived_seed(0, "train-0", 1), derived_seed("a/b", "c") == derived_seed("a", "b/c")
        (True, False)
    """
    # What joins the parts is told apart from what stands in them; no part at all from one that is empty.
    escaped = (str(part).replace("\\", "\\\\").replace("/", "\\/") for part in parts)
    text = "/".join(escaped) if parts else "\\0"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def is_of_one_attempt(error: Exception) -> bool:
    """Whether an error met while an attempt is opened or sealed is a refusal of that attempt; otherwise the server is gone or broken."""
    if isinstance(error, ServiceError):
        return error.status is not None and 400 <= error.status < 500 and error.status not in _OF_THE_SERVER
    return isinstance(error, InputError) or not isinstance(error, JourneymanError)


async def _apart(code: Awaitable[_T]) -> _T:
    """Await the user's code in a task of its own: if it cancels the task that it runs in, that is not ours. An exit is raised here rather
    than there, where it would end the event loop."""

    async def guarded() -> tuple[_T | None, BaseException | None]:
        try:
            return await code, None
        except (SystemExit, KeyboardInterrupt) as error:
            return None, error

    result, ending = await asyncio.create_task(guarded())
    if ending is not None:
        raise ending
    return result  # type: ignore[return-value]  # there, when nothing was raised


# What an attempt left as a record ---------------------------------------------------------------------------------------


def outcome_of(run: Rollout, failure: Failure | None, seconds: float) -> FinishRollout:
    """What an attempt left, sound part by sound part. What is not sound is left out and told in `error`, unless the attempt failed before.

    A number is what is one (of numpy and torch too); metrics that are not finite are left out and counted, a reward that is not is a
    failure.
    """
    faults: list[str] = []
    reward = None if run.reward is None else _kept(faults, "run.reward", partial(_reward_number, run.reward))
    metrics: dict[str, float] = {}
    for name, value in (_kept(faults, "run.metrics", partial(_items, run.metrics)) or {}).items():
        place = f"run.metrics[{name!r:.80}]" if isinstance(name, str) else "a name in run.metrics"
        metrics |= _kept(faults, place, partial(_metric, name, value)) or {}
    events = [_kept(faults, f"tool event {number}", partial(_event, event)) for number, event in enumerate(run.tool_events)]
    if faults and failure is None:
        failure = Failure(type="InputError", message="; ".join(faults)[:MAX_MESSAGE])
    sound = tuple(event for event in events if event is not None)
    return FinishRollout(reward=reward, metrics=metrics, error=failure, tool_events=sound, seconds=seconds)


def _kept(faults: list[str], name: str, read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - reading values of the user's own kinds runs the user's code
        faults.append(f"{name} cannot be kept: {Failure.of(error).message}")
        return None


def _reward_number(value: object) -> float:
    """A reward as a float. Raises TypeError, ValueError for what is none: a text, NaN, a number beyond `MAX_REWARD`."""
    number = as_number(value)
    if not abs(number) <= MAX_REWARD:
        raise ValueError(f"{number:g} is no reward; give a finite number of at most {MAX_REWARD:g}")
    return number


def _items(metrics: object) -> dict[object, object]:
    if not isinstance(metrics, Mapping):
        raise TypeError(f"it is a {type(metrics).__name__}, not a dict of numbers by name")
    return dict(metrics)


def _metric(name: object, value: object) -> dict[str, float]:
    if not isinstance(name, str):
        raise TypeError(f"its name is a {type(name).__name__}, not a text")
    check_json(name)
    return {name: float("nan") if value is None else as_number(value)}


def _event(event: object) -> ToolEvent:
    """The event as it will be read again: a NaN in it is null."""
    if not isinstance(event, ToolEvent):
        raise TypeError(f"it is a {type(event).__name__}, not a ToolEvent")
    check_json(event.arguments)  # before it is written: half characters in names would be replaced there
    data = event.model_dump(mode="json", warnings="none")
    check_json(data)
    return ToolEvent.model_validate(data)


# What a judge, or a function in its place, made of a group --------------------------------------------------------------


def _scored_group(returned: object, group: Group) -> Group:
    """The group that was returned for `group`; an attempt whose reward or verdict is none has no reward, and a verdict that says why.

    Raises TypeError, ValueError for something else than one group of the same attempts.
    """
    if not isinstance(returned, Sequence) or len(returned) != 1 or not isinstance(returned[0], Group):
        raise TypeError(f"it returned {returned!r:.200}, not a list of one Group")
    scored = returned[0]
    if not all(isinstance(attempt, Trajectory) for attempt in scored.trajectories):
        raise TypeError("its group holds something else than trajectories")
    if sorted(attempt.id for attempt in scored) != sorted(attempt.id for attempt in group):
        raise ValueError(f"its group has {len(scored)} attempts that are not the {len(group)} it was given")
    return scored.model_copy(update={"trajectories": tuple(_sound(attempt) for attempt in scored)})


def _sound(attempt: Trajectory) -> Trajectory:
    try:
        reward = None if attempt.reward is None or not attempt.id else _reward_number(attempt.reward)
        if attempt.verdict is not None:
            Verdict.model_validate(attempt.verdict.model_dump(warnings="none"))
    except Exception as error:  # noqa: BLE001 - the values may be of the user's own kinds
        return _unscored(attempt, f"the score of this attempt cannot be kept: {Failure.of(error).message}")
    return attempt.model_copy(update={"reward": reward})


def _unscored(attempt: Trajectory, why: str) -> Trajectory:
    """Excluded, counted and shown, never of reward 0."""
    return attempt.model_copy(update={"reward": None, "verdict": Verdict(judge=_JUDGE, score=None, explanation=why)})


def _not_scored(scenario: Scenario, error: BaseException) -> JudgeError:
    cause = Failure.of(error)
    failure = JudgeError(
        f"scoring the attempts at {scenario.id!r} failed: {cause.type}: {cause.message}",
        hint="mend the function that scores",
        reason=REWARD_FAILED,
    )
    failure.__cause__ = error
    return failure
