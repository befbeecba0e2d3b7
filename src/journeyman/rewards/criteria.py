"""What a judging model is told to look for: rubric text, or criteria with weights. Not for mixing judges (rubric.py)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from journeyman.errors import SettingError
from journeyman.types.record import Record

DEFAULT_RUBRIC = """\
- Reaching the goal scores well above failing; partial progress earns partial credit.
- Faithful to tool results: a claim they do not support is worse than admitting failure.
- Efficient: fewer steps, no wasted or failed calls, a little higher.
- Format last: the answer is in words for the person who asked, not pasted tool output."""


class Criterion(Record):
    """One thing to look for. `weight` is relative to the others'.

    Example:
        >>> rubric_text([Criterion(text="the answer is right", weight=3), Criterion(text="it is short")])
        'Weigh these criteria:\\n- (75 %) the answer is right\\n- (25 %) it is short'
    """

    text: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)


def rubric_text(rubric: str | Sequence[Criterion] | None) -> str:
    """The rubric as the model reads it; None is the default one. Raises SettingError for an empty one."""
    if rubric is None:
        return DEFAULT_RUBRIC
    if isinstance(rubric, str):
        if not rubric.strip():
            raise SettingError("the rubric is empty", hint="say what makes an attempt good, or leave it out for the default")
        return rubric.strip()
    if not rubric:
        raise SettingError("the rubric has no criteria", hint="give at least one, or leave it out for the default")
    total = sum(one.weight for one in rubric)
    return "Weigh these criteria:\n" + "\n".join(f"- ({100 * one.weight / total:.0f} %) {one.text}" for one in rubric)
