"""How a trainer computes: the same weights, attempts and settings give the same bits only with the same of these.

Kept in each checkpoint. A run that goes on computes as before where this machine can, else it is told. Not for the computing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from journeyman.trainer.base import Trainer
from journeyman.types.training import CreateModel

#: Names and values: the number of workers, the precision, the version of torch.
Computing = Mapping[str, Any]

TrainerFactory = Callable[[CreateModel], Trainer]


class Trainers(Protocol):
    """Makes the trainers of new models, at step 0, and says how they compute. Blocks."""

    def make(self, request: CreateModel, before: Computing) -> tuple[Trainer, Computing]:
        """A trainer that computes as `before` says, where it can; `before` is empty for a new run, or one of an earlier version."""
        ...


class UntoldTrainers:
    """Those of a factory that does not say how they compute."""

    def __init__(self, factory: TrainerFactory) -> None:
        self._factory = factory

    def make(self, request: CreateModel, before: Computing) -> tuple[Trainer, Computing]:
        return self._factory(request), {}


def computing_note(before: Computing, now: Computing) -> tuple[str, ...]:
    """A line where a run goes on otherwise than it was computed before."""
    changed = [f"{name} {before[name]} -> {now[name]}" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    if not changed:
        return ()
    return (f"this run is computed otherwise than before ({', '.join(changed)}): it goes on, but not with the same bits",)
