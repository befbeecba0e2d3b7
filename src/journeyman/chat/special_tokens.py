"""Text from users and tools that spells a special token (`<|im_end|>`) stays text: a tool result cannot close its own turn.

A template joins such text with its own markers into one string, in which the two look alike. So the text is guarded before: a mark is
put behind the first character of every such spelling, and where the marks are the finished string is cut before it is encoded. No
piece holds a whole spelling then. Not for raw prompts, where markers are meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A code point that Unicode reserves as "not a character". Where a text has it all the same it is escaped, so nothing gets lost.
_MARK = "\ufdd0"
_CUT, _ITSELF = _MARK + "c", _MARK + "i"


class SpecialTokens:
    """The special token strings of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        spellings = {text for text in [*added, *tokenizer.all_special_tokens] if len(text) > 1}
        # Looked for at every position: spellings may overlap.
        self._first = (
            re.compile("|".join(f"{re.escape(text[0])}(?={re.escape(text[1:])})" for text in sorted(spellings))) if spellings else None
        )

    def guard(self, value: Any) -> Any:
        """`value` (text, or JSON made of lists and mappings) with every spelling of a special token marked."""
        if isinstance(value, str):
            value = value.replace(_MARK, _ITSELF)
            return value if self._first is None else self._first.sub(lambda found: found.group() + _CUT, value)
        if isinstance(value, Mapping):
            return {self.guard(key): self.guard(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.guard(item) for item in value]
        return value

    def pieces(self, text: str) -> list[str]:
        """A rendered text, cut at its marks: to be encoded one by one. Of a mark that the template cut in two nothing is left."""
        return [_MARK.join(part.replace(_MARK, "") for part in piece.split(_ITSELF)) for piece in text.split(_CUT)]
