"""What is known about a running job at a moment: fed by `Progress` calls, read by the views. Draws nothing, asks no
clock but its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_BLOCKS = "▁▂▃▄▅▆▇█"
_NAMES = {"reward/mean": "reward", "reward/success": "success", "rollout/tokens_per_second": "tokens_per_second"}


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """One line of the step table. Missing readings are None."""

    step: int
    reward: float | None
    success: float | None
    tokens_per_second: float | None
    groups_without_spread: float | None
    seconds: float


@dataclass(slots=True)
class ProgressState:
    """The current phase and everything shown about it. `clock` counts seconds from anywhere."""

    clock: Callable[[], float]
    name: str = ""
    note: str = ""
    total: int | None = None
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    steps: list[FinishedStep] = field(default_factory=list)
    phase_started: float = 0.0
    step_ended: float = 0.0
    job_started: float | None = None

    def begin(self, name: str, total: int | None, note: str) -> None:
        now = self.clock()
        if self.job_started is None:
            self.job_started = now
        self.name, self.total, self.note, self.done = name, total, note, 0
        self.phase_started = self.step_ended = now
        self.values = {}

    def advance(self, amount: int, values: dict[str, float]) -> None:
        self.done += amount
        self.values.update(values)

    def finish_step(self, step: int, metrics: dict[str, float]) -> FinishedStep:
        now = self.clock()
        finished = FinishedStep(
            step=step,
            reward=metrics.get("reward/mean"),
            success=metrics.get("reward/success"),
            tokens_per_second=metrics.get("rollout/tokens_per_second"),
            groups_without_spread=metrics.get("train/num_groups_without_spread"),
            seconds=now - self.step_ended,
        )
        self.step_ended = now
        self.steps.append(finished)
        self.values.update({short: metrics[name] for name, short in _NAMES.items() if name in metrics})
        return finished

    @property
    def elapsed_seconds(self) -> float:
        """Since the first phase began."""
        return 0.0 if self.job_started is None else self.clock() - self.job_started

    @property
    def phase_seconds(self) -> float:
        return self.clock() - self.phase_started

    @property
    def seconds_left(self) -> float | None:
        """Of this phase, at its average pace so far; None until a tenth is done: the first of many attempts that run together comes
        when most of the others are nearly there."""
        if self.total is None or self.done <= 0 or self.done * 10 < self.total:
            return None
        pace = self.phase_seconds / self.done
        return max(0.0, pace * (self.total - self.done))


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last `width` values as block characters, scaled to [0, 1] when they fit there, else to their own range.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
    """
    finite = [value for value in values if math.isfinite(value)][-width:]
    if not finite:
        return ""
    low, high = min(0.0, *finite), max(1.0, *finite)
    if low < 0.0 or high > 1.0:
        low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[min(7, int((value - low) / span * 8))] for value in finite)


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(8.4), duration(75), duration(7260)
        ('8 s', '1 min 15 s', '2 h 01 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def reading(name: str, value: float) -> str:
    """One reading for people: `success` as per cent, `tokens_per_second` as tok/s, others to three digits.

    Example:
        >>> reading("success", 0.25), reading("tokens_per_second", 161.8), reading("loss", 0.0213)
        ('success 25 %', '162 tok/s', 'loss 0.0213')
    """
    if name == "success":
        return f"success {100 * value:.0f} %"
    if name == "tokens_per_second":
        return f"{value:.0f} tok/s"
    if name == "reward":
        return f"reward {value:.2f}"
    return f"{name.replace('_', ' ')} {value:.3g}"
