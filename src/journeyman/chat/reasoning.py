"""Thinking text: separate what stands between <think> tags from the reply. Not for deciding whether thinking is kept
in history."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "<think>", "</think>"
_BLOCK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def split_reasoning(text: str) -> tuple[str | None, str]:
    """(reasoning or None, the rest). The opening tag may be missing: some templates put it into the prompt.

    An unfinished block (cut off by max_tokens) is all reasoning.

    Example:
        >>> split_reasoning("<think>2 and 2</think>\\n\\n4")
        ('2 and 2', '4')
    """
    head, closed, rest = text.partition(_CLOSE)
    if closed:
        before, opened, thought = head.partition(_OPEN)
        if not opened:
            before, thought = "", head
        return thought.strip(), before + rest.lstrip("\n")
    before, opened, thought = text.partition(_OPEN)
    if opened:
        return thought.strip(), before
    return None, text


def without_reasoning(text: str) -> str:
    """The text without any complete thinking block: what two echoes of one reply have in common."""
    return _BLOCK.sub("", text)
