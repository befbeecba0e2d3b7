"""What differs between two sets of settings, by dotted name. Not for what a difference means: whoever compares decides that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, by its dotted name, before and after."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before or 'not set'} -> {self.after or 'not set'}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What differs between two settings, by dotted name.

    Example:
        >>> [str(change) for change in differences({"grpo": {"updates": 1}, "seed": 0}, {"grpo": {"updates": 2}, "seed": 0})]
        ['grpo.updates: 1 -> 2']
    """
    old, new = flat(before), flat(after)
    names = sorted(old.keys() | new.keys())
    return tuple(Change(name, old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name))


def flat(settings: object, prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted name."""
    if not isinstance(settings, Mapping):
        return {prefix: str(settings)}
    out: dict[str, str] = {}
    for name, value in settings.items():
        out |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return out
