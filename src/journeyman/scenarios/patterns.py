"""Texts that match a simple anchored pattern. Not a full engine: a pattern outside the subset yields nothing rather than a wrong text.

The subset: alternatives that each stand between `^` and `$`; literals, classes (`[A-Z_]`, `[^/]`, `\\d`, `\\w`, `\\s`), `.`, groups (plain,
`(?:…)`, named), alternation and quantifiers. Look-around, back references, flags and word boundaries are outside of it.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

_MAX_CHARS = 100
_MAX_DRAWN_CHARS = 10_000
_MORE = 4
_TRIES_PER_VALUE = 6
_SHORTHANDS = {"d": string.digits, "w": string.ascii_letters + string.digits + "_", "s": " "}
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
_COUNTED = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}")
_GROUP_HEAD = re.compile(r"\?:|\?P<[A-Za-z_]\w*>")


class _OutsideError(ValueError):
    """The pattern uses what this module does not know."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a piece of a pattern matches: how to draw a text, and how long the shortest and the longest one drawn are.

    Raises _OutsideError for what is too long to be a value, or too much to draw (quantifiers inside quantifiers).
    """

    draw: Callable[[random.Random], str]
    shortest: int
    longest: int

    def __post_init__(self) -> None:
        if self.shortest > _MAX_CHARS or self.longest > _MAX_DRAWN_CHARS:
            raise _OutsideError("too long")


def matching_texts(pattern: str, rng: random.Random, count: int) -> list[str]:
    """At most `count` different texts that the whole pattern matches; none for a pattern outside the subset.

    Example:
        >>> all(len(text) == 3 for text in matching_texts("^[A-Z]{3}$", random.Random(0), 4))
        True
    """
    try:
        checked = re.compile(pattern)
        part = _Reader(pattern).read()
    except (re.error, _OutsideError, RecursionError):
        return []
    found: dict[str, None] = {}
    for _ in range(_TRIES_PER_VALUE * count):
        if len(found) >= count:
            break
        text = part.draw(rng)
        # How far the two readings of a pattern agree is not left to trust.
        if 0 < len(text) <= _MAX_CHARS and text == text.strip() and checked.fullmatch(text):
            found[text] = None
    return list(found)


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def read(self) -> _Part:
        """The whole pattern. An alternative without both anchors only constrains a part of a value, and does not say what it is."""
        options = []
        while True:
            self._expect("^")
            options.append(self._sequence())
            self._expect("$")
            if self._at == len(self._pattern):
                return _one_of(options)
            self._expect("|")

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise _OutsideError("the pattern ends early")
        self._at += 1
        return character

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise _OutsideError(f"no {character} at {self._at - 1}")

    def _sequence(self) -> _Part:
        parts = []
        while self._peek() not in ("", "|", ")", "$"):
            parts.append(self._repeated(self._atom()))
        shortest, longest = sum(part.shortest for part in parts), sum(part.longest for part in parts)
        return _Part(lambda rng: "".join(part.draw(rng) for part in parts), shortest, longest)

    def _atom(self) -> _Part:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return _any_of(self._class())
        if character == "\\":
            return _any_of(self._escaped())
        if character == ".":
            return _any_of(string.ascii_lowercase + string.digits)
        if character in "^*+?{":
            raise _OutsideError(f"{character} at {self._at - 1}")
        return _any_of(character)

    def _group(self) -> _Part:
        if self._peek() == "?":
            head = _GROUP_HEAD.match(self._pattern, self._at)
            if head is None:
                raise _OutsideError("a group that is more than a group")
            self._at = head.end()
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        self._expect(")")
        return _one_of(options)

    def _escaped(self) -> str:
        character = self._next()
        if character in _SHORTHANDS:
            return _SHORTHANDS[character]
        if character in "DWS":
            excluded = _SHORTHANDS[character.lower()]
            return "".join(one for one in _PRINTABLE if one not in excluded)
        if character.isalnum():
            raise _OutsideError(f"\\{character}")
        return character

    def _class(self) -> str:
        is_negated = self._peek() == "^"
        self._at += is_negated
        members = ""
        is_first = True
        while (character := self._next()) != "]" or is_first:
            is_first = False
            if character == "[":
                raise _OutsideError("a bracket inside a class")
            low = self._escaped() if character == "\\" else character
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                end = self._next()
                high = self._escaped() if end == "\\" else end
                if len(low) != 1 or len(high) != 1 or not 0 <= ord(high) - ord(low) < 256:
                    raise _OutsideError("an odd range")
                low = "".join(map(chr, range(ord(low), ord(high) + 1)))
            members += low
        if is_negated:
            members = "".join(one for one in string.ascii_letters + string.digits if one not in members)
        if not members:
            raise _OutsideError("a class without a member")
        return "".join(dict.fromkeys(members))

    def _repeated(self, part: _Part) -> _Part:
        low, high = self._counts()
        if (low, high) == (1, 1):
            return part
        shortest, longest = part.shortest * low, part.longest * high
        return _Part(lambda rng: "".join(part.draw(rng) for _ in range(rng.randint(low, high))), shortest, longest)

    def _counts(self) -> tuple[int, int]:
        """How often the last atom may stand: at least, and at most as far as it is drawn here."""
        plain = {"?": (0, 1), "*": (0, _MORE), "+": (1, _MORE)}
        if self._peek() in plain and self._peek():
            low, high = plain[self._next()]
        elif (counted := _COUNTED.match(self._pattern, self._at)) is not None:
            self._at = counted.end()
            low = int(counted.group(1))
            top = int(counted.group(3)) if counted.group(3) else low + _MORE
            high = low if counted.group(2) is None else max(low, min(top, low + 2 * _MORE))
        else:
            return 1, 1
        if self._peek() == "?":  # reluctant: the same texts
            self._at += 1
        elif self._peek() and self._peek() in "*+{":
            raise _OutsideError("a quantifier of a quantifier")
        return low, high


def _one_of(options: list[_Part]) -> _Part:
    if len(options) == 1:
        return options[0]
    shortest, longest = min(option.shortest for option in options), max(option.longest for option in options)
    return _Part(lambda rng: rng.choice(options).draw(rng), shortest, longest)


def _any_of(characters: str) -> _Part:
    return _Part(lambda rng: rng.choice(characters), 1, 1)
