"""The text of tokens that are still being drawn. Not for reading it: see `reply.py`."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.chat.renderer import Renderer
from journeyman.chat.reply import UNKNOWN_CHARACTER


class LiveText:
    """Decodes ids as they come, a few at a time: decoding all of them for each new one would cost the square of their number.

    `text` ends with a whole character; the token that ends the reply is no part of it.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._ids: list[int] = []
        # Some decoders write a token differently at the start of a text: each piece is decoded behind the one before it.
        self._start = 0
        self._end = 0
        self.text = ""

    def add(self, ids: Sequence[int]) -> str:
        """The whole text so far."""
        self._ids.extend(token for token in ids if token not in self._renderer.stop_token_ids)
        known = self._renderer.decode(self._ids[self._start : self._end])
        grown = self._renderer.decode(self._ids[self._start :])
        if len(grown) > len(known) and not grown.endswith(UNKNOWN_CHARACTER):
            self.text += grown[len(known) :]
            self._start, self._end = self._end, len(self._ids)
        return self.text
