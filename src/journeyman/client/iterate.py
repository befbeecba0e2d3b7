"""Scenarios in batches: shuffled the same way for the same seed, so that a run resumes where it stopped. No I/O."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from journeyman.errors import SettingError
from journeyman.types.scenarios import Scenario

Kind = Callable[[Scenario], Hashable]


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
        raise SettingError("there are no scenarios to iterate over")
    for name, value, least in (("groups_per_step", groups_per_step, 1), ("epochs", epochs, 1), ("start", start, 0)):
        if value < least:
            raise SettingError(f"{name} is {value}; it must be at least {least}")
    return Batches(scenarios, groups_per_step, epochs, start, seed, kind)
