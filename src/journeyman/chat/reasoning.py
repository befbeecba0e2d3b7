"""Thinking text: separate what stands between <think> tags from the reply. Not for deciding whether thinking is kept
in history."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
_BLOCK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def split_reasoning(text: str, *, is_open: bool = False) -> tuple[str | None, str]:
    """(reasoning or None, the rest). An unfinished block (cut off by max_tokens) is all reasoning.

    `is_open`: the prompt ends with the opening tag, so the text begins inside the block. Without it a closing tag alone means
    nothing: a stream could not take back what it had sent as content.

    Example:
        >>> split_reasoning("<think>2 and 2</think>\\n\\n4")
        ('2 and 2', '4')
    """
    if is_open:
        before, inside = "", text.lstrip().removeprefix(OPEN)  # some models write the tag again
    else:
        before, opened, inside = text.partition(OPEN)
        if not opened:
            return None, text
    thought, _, rest = inside.partition(CLOSE)
    return thought.strip(), before + rest.lstrip("\n")


def without_reasoning(text: str) -> str:
    """The text without any complete thinking block: what two echoes of one reply have in common."""
    return _BLOCK.sub("", text)
