"""How long work tells what it is doing: the `Progress` protocol. Not for logging (see `observe.logs`) and draws
nothing itself.

The terminal view is in the command line; a library user who wants none passes `SilentProgress()`.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by a recipe what happens. Calls are cheap, never block, and may come from any thread."""

    def phase(self, name: str, total: int | None = None, note: str = "") -> None:
        """A new phase begins (it ends the one before). `total`: how many `advance` units it has, None when unknown."""
        ...

    def advance(self, amount: int = 1, **values: float) -> None:
        """`amount` units of the phase are done; `values` are the newest readings (`reward`, `tokens_per_second`,
        ...)."""
        ...

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """A training step is done. `metrics` are named as in `TrainResult.metrics`, with `reward/...` and
        `rollout/...`."""
        ...

    def note(self, text: str) -> None:
        """One line worth keeping on the screen."""
        ...

    def warn(self, text: str) -> None:
        """One line about something that went wrong or was left out, and what it means."""
        ...


class SilentProgress:
    """Says nothing."""

    def phase(self, name: str, total: int | None = None, note: str = "") -> None: ...

    def advance(self, amount: int = 1, **values: float) -> None: ...

    def step(self, step: int, metrics: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...
