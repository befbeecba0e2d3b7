"""Many attempts at many scenarios, a bounded number at a time. What goes wrong in an attempt is data; what goes wrong with the server
is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from journeyman.client.attempt_clock import AttemptClock
from journeyman.client.left_behind import is_of_one_attempt, outcome_of
from journeyman.client.models import Model
from journeyman.client.rollout import Rollout
from journeyman.client.scored import scored_group, without_rewards
from journeyman.errors import REWARD_FAILED, JourneymanError, JudgeError, NotFoundError, SettingError, first_error, stops_everything
from journeyman.observe.progress import Progress
from journeyman.types.json_text import check_json
from journeyman.types.scenarios import Scenario
from journeyman.types.training import FinishRollout, KeptAttempt
from journeyman.types.trajectory import Failure, Group, Trajectory

RolloutFunction = Callable[[Scenario, Rollout], Awaitable[None]]
Score = Callable[[Sequence[Group]], Awaitable[list[Group]]]

_SEAL_AFTER_CANCEL_SECONDS = 5.0
_MOST = 10**9
_MAX_KEY = 160  # the place of an attempt is added, and a server takes 200
_T = TypeVar("_T")


async def gather(
    rollout: RolloutFunction,
    scenarios: Sequence[Scenario],
    *,
    model: Model,
    group_size: int = 8,
    max_concurrent: int = 32,
    timeout_seconds: float = 600.0,
    max_turns: int = 64,
    progress: Progress | None = None,
    score: Score | None = None,
    key: str | None = None,
    seed: int | None = None,
) -> list[Group]:
    """Attempt every scenario `group_size` times.

    Returns one group per scenario in the order given, each with `group_size` trajectories in a fixed order. An attempt that raises,
    runs out of time, leaves what cannot be kept or is refused by the server is a trajectory with `error` (and no reward unless its code
    had set one). Attempts at one scenario start together, so that their common prompt is computed once.

    Args:
        rollout: your agent: `async def rollout(scenario, run)`.
        max_concurrent: attempts in progress at any time.
        timeout_seconds: for one attempt; waiting for an MCP server of a `ServerPool` does not count.
        max_turns: model calls that one attempt may make; one that asks for n replies counts n times.
        progress: `advance(1)` is called for every finished attempt.
        score: `judge.score`, or any function like it: called with each group as soon as its attempts are done, while later ones still
            run; what it returns is the group. Where it raises (or returns something else) at one group, that group has no rewards and
            its verdicts say why.
        key: names these attempts, for one that is stopped and called again with the same key: what this version of the model finished
            under it is taken as it was (with the reward and verdict that were kept for it) and only what is missing is attempted.
        seed: gives every attempt a seed of its own (`run.seed`), the same one whenever the same attempt of the same key is made. An agent
            that sends it draws the same tokens again, as far as rounding goes, which depends on what runs beside it.

    Raises:
        ServiceError: the server is gone; attempts in progress are cancelled. So they are by a JourneymanError out of `score` (unless its
            reason is `reward_failed`, a function of the user's that failed at one group).
        JourneymanError: the server refused every attempt, or scoring failed at every group; told when all are done.
        SettingError: a number below 1; a key that is too long, or for a model that Journeyman does not serve.
    """
    _check({"group_size": group_size, "max_concurrent": max_concurrent, "max_turns": max_turns}, timeout_seconds, key)
    kept = {} if key is None else {one.key: one for one in await model.kept_attempts(key)}
    plan = _Plan(rollout, model, timeout_seconds, max_turns, asyncio.Semaphore(max_concurrent), progress, key, kept, seed, score)
    try:
        async with asyncio.TaskGroup() as tasks:
            attempts = [
                [tasks.create_task(plan.attempt(scenario, f"{at}/{number}")) for number in range(group_size)]
                for at, scenario in enumerate(scenarios)
            ]
            groups = [tasks.create_task(plan.group(scenario, made)) for scenario, made in zip(scenarios, attempts, strict=True)]
    except BaseExceptionGroup as group:
        # The tasks' only own errors are the server's: one of them says it all.
        raise first_error(group) from group
    plan.raise_common(len(scenarios), group_size)
    return [task.result() for task in groups]


@dataclass(frozen=True, slots=True)
class _Plan:
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
            return scored_group(await _apart(self.score([group])), group)
        except BaseException as error:
            if stops_everything(error) or (isinstance(error, JourneymanError) and error.reason != REWARD_FAILED):
                raise
            failure = error if isinstance(error, JourneymanError) else _not_scored(scenario, error)
        self.unscored.append(failure)
        return without_rewards(group, str(failure))

    async def attempt(self, scenario: Scenario, place: str) -> Trajectory:
        """The attempt at a place (`scenario/number`): made, unless it was before."""
        key = None if self.key is None else f"{self.key}/{place}"
        async with self.slots:
            kept = None if key is None else self.kept.get(key)
            if kept is not None and kept.scenario_id == scenario.id:
                trajectory = await self.model.trajectory(kept.trajectory_id)
            else:
                trajectory = await self._attempt(scenario, key, place)
        if self.progress is not None:
            self.progress.advance(1)
        return trajectory

    async def _attempt(self, scenario: Scenario, key: str | None, place: str) -> Trajectory:
        try:
            run = await self.model.open_rollout(scenario, max_turns=self.max_turns, key=key)
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            self.refused.append(error)
            return Trajectory(id="", scenario_id=scenario.id, model=self.model.name, error=Failure.of(error))
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
            return await self._sealed_without(error, run, seconds)

    async def _sealed(self, run: Rollout, outcome: FinishRollout) -> Trajectory:
        """Seal an attempt that has ended, also when the others are cancelled meanwhile: whoever goes on with the key finds it."""
        sealing = asyncio.ensure_future(self.model.finish_rollout(run, outcome))
        try:
            return await asyncio.shield(sealing)
        except asyncio.CancelledError:
            await asyncio.wait({sealing}, timeout=_SEAL_AFTER_CANCEL_SECONDS)
            sealing.cancel()
            raise

    async def _sealed_without(self, refusal: Exception, run: Rollout, seconds: float) -> Trajectory:
        """The record of an attempt was refused: it is sealed with that as its error, and nothing else of what it left."""
        outcome = FinishRollout(error=Failure.of(refusal), seconds=seconds)
        try:
            return await self._sealed(run, outcome)
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            self.refused.append(error)
            known_as = "" if isinstance(error, NotFoundError) else run.id
            return Trajectory(id=known_as, scenario_id=run.scenario.id, model=self.model.name, error=outcome.error, seconds=seconds)

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


def _check(counts: Mapping[str, int], timeout_seconds: float, key: str | None) -> None:
    """Raises InputError for what no attempt could be made with."""
    for name, value in counts.items():
        if not isinstance(value, int) or not 1 <= value <= _MOST:
            raise SettingError(f"{name} is {value!r:.40}; it must be a whole number, at least 1", reason="invalid_number")
    if not timeout_seconds > 0:
        raise SettingError(f"timeout_seconds is {timeout_seconds}; it must be more than 0", reason="invalid_number")
    check_json(key)
    if key is not None and len(key) > _MAX_KEY:
        raise SettingError(f"the key {key[:40]!r}… has {len(key)} characters; give one of at most {_MAX_KEY}", reason="key_too_long")


async def _apart(code: Awaitable[_T]) -> _T:
    """Await the user's code in a task of its own: if it cancels the task that it runs in, that is not ours. An exit is raised here rather
    than there, where it would end the event loop."""

    async def guarded() -> tuple[_T | None, BaseException | None]:
        try:
            return await code, None
        except (SystemExit, KeyboardInterrupt) as error:
            return None, error

    found, ending = await asyncio.create_task(guarded())
    if ending is not None:
        raise ending
    return found  # type: ignore[return-value]  # there, when nothing was raised


def _not_scored(scenario: Scenario, error: BaseException) -> JudgeError:
    told = Failure.of(error)
    failure = JudgeError(
        f"scoring the attempts at {scenario.id!r} failed: {told.type}: {told.message}",
        hint="mend the function that scores",
        reason=REWARD_FAILED,
    )
    failure.__cause__ = error
    return failure
