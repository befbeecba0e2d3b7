"""What the tokens of a vocabulary are: which are special, which bytes they stand for, and a fingerprint of all of them.

Not for the text of a reply: that is decoded whole (`renderer.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

# A code point that Unicode reserves as "not a character". Where a text has it all the same it is escaped, so nothing gets lost.
_MARK: Final = "\ufdd0"
_CUT: Final = _MARK + "c"
_ITSELF: Final = _MARK + "i"
_ONE_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any
    added_tokens_decoder: Mapping[int, Any]
    all_special_tokens: Sequence[str]
    backend_tokenizer: Any

    def __len__(self) -> int: ...

    def get_vocab(self) -> dict[str, int]: ...

    def convert_ids_to_tokens(self, ids: Any) -> Any: ...

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False) -> Any: ...


class SpecialTokens:
    """The special token strings of one tokenizer: text of users and tools that spells one (`<|im_end|>`) stays text.

    A template joins such text with its own markers into one string, in which the two look alike. So the text is guarded before: a mark is
    put behind the first character of every such spelling, and where the marks are the finished string is cut before it is encoded. No
    piece holds a whole spelling then. Not for raw prompts, where markers are meant.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
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


class TokenBytes:
    """The bytes that tokens stand for: a character may be split over several, and the text of one alone then says nothing.

    They are read from how the tokenizer's decoder writes them: byte-level vocabularies, and those of sentencepiece with a token for each
    byte (`<0xE4>`). Other decoders give the bytes of each token's own text, without what they would put between two.

    Example:
        >>> TokenBytes(tokenizer).of(tokenizer.encode("ä"))                              # doctest: +SKIP
        [b"\\xc3", b"\\xa4"]
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
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
        pieces = [self._bytes(token) for token in ids]
        if is_start and self._drops_first_space and pieces and pieces[0].startswith(b" "):
            pieces[0] = pieces[0][1:]
        return pieces

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


def vocabulary_fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 over every id with its token, and over which of them are special: two tokenizers with equal ones read stored ids alike.

    Stored ids are never tokenised again, so merges and normalisation do not count.
    """
    tokens = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    added = sorted((number, token.content, bool(token.special)) for number, token in tokenizer.added_tokens_decoder.items())
    return hashlib.sha256(json.dumps([tokens, added]).encode()).hexdigest()
