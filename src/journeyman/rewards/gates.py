"""Programmatic gates: what can be seen without a model caps what a model may say.

An attempt whose calls never parsed, or that says nothing at all, cannot outrank one whose calls ran. Not a judge of quality.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from journeyman.types.trajectory import Trajectory

_WRITTEN_CALL = re.compile(r"<tool_call|<function[=_]|\"(?:name|function|arguments)\"\s*:", re.IGNORECASE)
# Openers that say nothing and are known to fool judging models ("master keys", 2507.08794), alone or with punctuation.
_OPENER = re.compile(
    r"(?:thought process|let'?s (?:think|solve)(?: (?:this )?(?:problem )?step by step)?"
    r"|(?:the )?(?:final )?(?:answer|solution|explanation)(?: is)?"
    r"|sure|certainly|of course|here is (?:the|my) (?:answer|solution)|solución|réponse|lösung|antwort|解|答案|解答|解説|思考过程)",
    re.IGNORECASE,
)


def gate_level(attempt: Trajectory) -> int:
    """2: a call ran. 1: neither. 0: it tried to call and nothing ever parsed, or it says nothing (empty, punctuation, a bare opener)."""
    events = attempt.tool_events
    if any(not event.is_error for event in events):
        return 2
    if events and all(event.arguments is None for event in events):
        return 0
    texts = [turn.reply.content or "" for turn in attempt.turns]
    has_calls = bool(events) or any(turn.reply.tool_calls for turn in attempt.turns)
    if not has_calls and any(_WRITTEN_CALL.search(text) for text in texts):
        return 0
    return 0 if not has_calls and all(says_nothing(text) for text in texts) else 1


def says_nothing(text: str) -> bool:
    """Whether a reply is empty, only punctuation, or a lone opener.

    Example:
        >>> says_nothing(" : "), says_nothing("Thought process:"), says_nothing("It is 5.")
        (True, True, False)
    """
    bare = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    return not bare or _OPENER.fullmatch(bare) is not None


def gated(scores: Sequence[float], attempts: Sequence[Trajectory]) -> list[float]:
    """Scores with level 0 held at or below the lowest score of level 2."""
    levels = [gate_level(attempt) for attempt in attempts]
    ran = [score for score, level in zip(scores, levels, strict=True) if level == 2]
    cap = min(ran, default=1.0)
    return [min(score, cap) if level == 0 else score for score, level in zip(scores, levels, strict=True)]
