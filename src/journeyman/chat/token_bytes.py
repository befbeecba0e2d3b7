"""The bytes that tokens stand for: a character may be split over several, and the text of one alone then says nothing.

Not for the text of a reply: that is decoded whole (`renderer.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_ONE_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """The bytes of the tokens of one tokenizer, by how its decoder writes them: byte-level vocabularies, and those of sentencepiece with a
    token for each byte (`<0xE4>`). Other decoders give the bytes of each token's own text, without what they would put between two.

    Example:
        >>> TokenBytes(tokenizer).of(tokenizer.encode("ä"))                              # doctest: +SKIP
        [b"\\xc3", b"\\xa4"]
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = tokenizer.backend_tokenizer.decoder
        steps = [] if decoder is None else list(_steps(json.loads(decoder.__getstate__())))
        kinds = {step["type"] for step in steps}
        self._is_byte_level = "ByteLevel" in kinds
        self._has_byte_tokens = "ByteFallback" in kinds
        self._spaces = tuple(filter(None, map(_written_as_space, steps)))
        self._drops_first_space = any(
            (step["type"] == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)
            or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        )

    def of(self, ids: Sequence[int], *, is_start: bool = True) -> list[bytes]:
        """The bytes of each token; joined they are those of the text. `is_start`: nothing was drawn before these."""
        found = [self._bytes(token) for token in ids]
        if is_start and self._drops_first_space and found and found[0].startswith(b" "):
            found[0] = found[0][1:]
        return found

    def _bytes(self, token: int) -> bytes:
        if not (self._is_byte_level or self._has_byte_tokens or self._spaces):
            text = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            return str(text).encode()
        piece = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        if self._is_byte_level:
            numbers = [_BYTE_OF.get(character) for character in piece]
            return piece.encode() if None in numbers else bytes(number for number in numbers if number is not None)
        if self._has_byte_tokens and (one := _ONE_BYTE.fullmatch(piece)):
            return bytes([int(one[1], 16)])
        for mark in self._spaces:
            piece = piece.replace(mark, " ")
        return piece.encode()


def _steps(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder


def _written_as_space(step: Mapping[str, Any]) -> str | None:
    """What of a piece stands for a space, where this step of a decoder says so."""
    if step["type"] == "Metaspace":
        return str(step["replacement"])
    if step["type"] == "Replace" and step.get("content") == " ":
        return str(step["pattern"].get("String") or "") or None
    return None


def _byte_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are their own character, the others those from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    return {chr(number): number for number in printable} | {chr(256 + place): number for place, number in enumerate(others)}


_BYTE_OF: Final = _byte_of_characters()
