"""Scenarios in batches, shuffled the same way for the same seed, and many attempts at each, a bounded number at a time.

Not for what happens to an attempt: see `attempts.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from journeyman.client.attempts import Attempts, RolloutFunction, Score
from journeyman.client.models import Model
from journeyman.errors import SettingError, first_error
from journeyman.observe.progress import Progress
from journeyman.types.json_text import check_json
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group

Kind = Callable[[Scenario], Hashable]
_MOST = 10**9
_MAX_KEY = 160  # the place of an attempt is added, and a server takes 200


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
    kept = {} if key is None else {attempt.key: attempt for attempt in await model.kept_attempts(key)}
    work = Attempts(rollout, model, timeout_seconds, max_turns, asyncio.Semaphore(max_concurrent), progress, key, kept, seed, score)
    try:
        async with asyncio.TaskGroup() as tasks:
            attempts = [
                [tasks.create_task(work.attempt(scenario, f"{at}/{number}")) for number in range(group_size)]
                for at, scenario in enumerate(scenarios)
            ]
            groups = [tasks.create_task(work.group(scenario, tried)) for scenario, tried in zip(scenarios, attempts, strict=True)]
    except BaseExceptionGroup as group:
        # The tasks' only own errors are the server's: one of them says it all.
        raise first_error(group) from group
    work.raise_common(len(scenarios), group_size)
    return [task.result() for task in groups]


def _check(counts: Mapping[str, int], timeout_seconds: float, key: str | None) -> None:
    """Raises InputError for what no attempt could be made with."""
    for name, value in counts.items():
        _check_number(name, value, least=1)
    if not timeout_seconds > 0:
        raise SettingError(f"timeout_seconds is {timeout_seconds}; it must be more than 0", reason="invalid_number")
    check_json(key)
    if key is not None and len(key) > _MAX_KEY:
        raise SettingError(f"the key {key[:40]!r}… has {len(key)} characters; give one of at most {_MAX_KEY}", reason="key_too_long")


def _check_number(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or not least <= value <= _MOST:
        raise SettingError(f"{name} is {value!r:.40}; it must be a whole number, at least {least}", reason="invalid_number")


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Scenario]):
    """The scenarios of one step. `step` counts from 0 over all epochs, `epoch` from 0."""

    scenarios: tuple[Scenario, ...]
    epoch: int
    step: int

    @overload
    def __getitem__(self, index: int) -> Scenario: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Scenario, ...]: ...
    def __getitem__(self, index: int | slice) -> Scenario | tuple[Scenario, ...]:
        return self.scenarios[index]

    def __len__(self) -> int:
        return len(self.scenarios)


class Batches:
    """What `iterate` returns: an `async for` or `for` over batches; `len` is the number of batches from `start` on."""

    def __init__(
        self, scenarios: Sequence[Scenario], groups_per_step: int, epochs: int, start: int, seed: int, kind: Kind | None = None
    ) -> None:
        self._scenarios = tuple(scenarios)
        self._size = groups_per_step
        self._epochs = epochs
        self._start = start
        self._seed = seed
        self._kinds = [kind(scenario) if kind else None for scenario in self._scenarios]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._scenarios) // self._size)

    def __len__(self) -> int:
        return max(self.steps_per_epoch * self._epochs - self._start, 0)

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self._start, self.steps_per_epoch * self._epochs):
            yield self.batch(step)

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for batch in self:
            yield batch

    def batch(self, step: int) -> Batch:
        """The batch of a step, whatever came before it."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = self._order(random.Random(f"{self._seed}/{epoch}"))
        chosen = order[index * self._size : (index + 1) * self._size]
        return Batch(tuple(self._scenarios[number] for number in chosen), epoch, step)

    def _order(self, rng: random.Random) -> list[int]:
        """Shuffled; then each kind's scenarios are laid out at even distances over the epoch, beginning somewhere within one distance."""
        order = list(range(len(self._scenarios)))
        rng.shuffle(order)
        members: dict[Hashable, list[int]] = {}
        for number in order:
            members.setdefault(self._kinds[number], []).append(number)
        places: dict[int, float] = {}
        for same in members.values():
            first = rng.random()
            places |= {number: (index + first) / len(same) for index, number in enumerate(same)}
        return sorted(order, key=places.__getitem__)


def iterate(
    scenarios: Sequence[Scenario],
    *,
    groups_per_step: int,
    epochs: int = 1,
    start: int = 0,
    seed: int = 0,
    kind: Kind | None = None,
) -> Batches:
    """Batches of scenarios, each epoch in an order of its own that only `seed` decides.

    Every scenario comes once an epoch. The last batch of an epoch is smaller when `groups_per_step` does not divide the number of
    scenarios; when it is larger than that number, every batch is a whole epoch: no scenario comes twice in a batch.

    Args:
        start: the step to go on from, `model.step` after a stop: batches before it are left out.
        kind: what a scenario is like (which tools, which question): every stretch of an epoch then holds the kinds in the proportions of
            the whole, so that no step is spent on one of them alone and steps can be compared.

    Raises SettingError for no scenarios, a number below 1, or a negative start.

    Example:
        >>> batches = iterate([Scenario(id=str(n), task="") for n in range(5)], groups_per_step=2, epochs=2)
        >>> [len(batch) for batch in batches]
        [2, 2, 1, 2, 2, 1]
    """
    if not scenarios:
        raise SettingError("there are no scenarios to iterate over", reason="no_scenarios")
    for name, value, least in (("groups_per_step", groups_per_step, 1), ("epochs", epochs, 1), ("start", start, 0)):
        _check_number(name, value, least=least)
    return Batches(scenarios, groups_per_step, epochs, start, seed, kind)
