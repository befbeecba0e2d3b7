"""A finding, and what a check of the steps so far gives. Not for finding anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Metrics = dict[str, float]
Level = Literal["problem", "watch", "normal"]
Seen = tuple[Level, str, str, float]
"""A finding without its name: level, text, advice, value."""
Check = Callable[[Sequence[Metrics]], Seen | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing about a run.

    Attributes:
        name: stable, and the heading in docs/health.md.
        level: `problem` (training is not doing its job), `watch` (may become one), `normal` (looks odd, and is as it should be).
        text: what was seen, with the number.
        advice: what to try first, in words: option names differ between commands; empty when nothing needs doing.
        value: the number.
    """

    name: str
    level: Level
    text: str
    advice: str
    value: float

    def __str__(self) -> str:
        return f"{self.name}: {self.text}; try: {self.advice}" if self.advice else f"{self.name}: {self.text}"


def at_least(limit: float, metric: str, text: str, advice: str) -> Check:
    """The check that finds a problem when a metric of the last step has reached a limit. `text` shows it as `{value}`."""

    def check(history: Sequence[Metrics]) -> Seen | None:
        value = history[-1].get(metric)
        if value is None or value < limit:
            return None
        return "problem", text.format(value=value), advice, value

    return check
