"""Texts of the form that a schema states: dates and times, a common `format`, a `pattern`. Not for what they mean (see `proposals`).

Addresses are those reserved for documentation, so that a tool which really uses one reaches nobody.
"""

from __future__ import annotations

import datetime as dt
import random
import re
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from re import _parser  # type: ignore[attr-defined]  # the reader of patterns, which has no public name
from typing import Any

from journeyman.mcp.schemas import argument_faults

WORDS = "amber birch cedar delta ember fjord grove harbor island jasper kernel lagoon meadow nectar orchid pebble quartz river".split()
_HOSTS = ("example.com", "example.org", "example.net")
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
_TRIES_PER_VALUE = 4
_TRIES_PER_MATCH = 6
_MAX_CHARS = 100
_MAX_DRAWN_CHARS = 10_000
_MAX_RANGE = 256
_MORE = 4
_SHORTHANDS = {"DIGIT": string.digits, "WORD": string.ascii_letters + string.digits + "_", "SPACE": " "}
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
_ENDS = ("AT_BEGINNING", "AT_END")

Draw = Callable[[random.Random], Any]


def moments(schema: Mapping[str, Any]) -> Draw | None:
    """How to draw dates or times, where the schema asks for some: by its `format`, or by a form such as HH:MM in its description."""
    hint = f"{schema.get('format', '')} {schema.get('pattern', '')} {schema.get('description', '')}"
    named = schema.get("format")
    clock = re.search(r"\bHH:?MM(:?SS)?\b", hint, re.IGNORECASE)
    day = named == "date" or re.search(r"\bYYYY-MM-DD\b(?!T)", hint)
    if named == "date-time" or (day and clock) or re.search(r"YYYY-MM-DDT", hint):
        return lambda rng: f"{_day(rng)}T{_clock(rng)}:00Z" if named == "date-time" else f"{_day(rng)}T{_clock(rng)}:00"
    if day:
        return _day
    if named == "time" or clock:
        has_seconds = named == "time" or bool(clock and clock.group(1))
        return lambda rng: _clock(rng) + (":00" if has_seconds else "")
    return None


def made_texts(schema: Mapping[str, Any], rng: random.Random, count: int) -> list[str]:
    """At most `count` different texts that fit the schema's pattern, or its format where it has no pattern that can be read."""
    if schema.get("type", "string") != "string":
        return []
    texts: list[str] = []
    if isinstance(schema.get("pattern"), str):
        texts = matching_texts(schema["pattern"], rng, _TRIES_PER_VALUE * count)
    elif (draw := _FORMATS.get(str(schema.get("format")))) is not None:
        texts = list(dict.fromkeys(draw(rng) for _ in range(_TRIES_PER_VALUE * count)))
    return [text for text in texts if not argument_faults(schema, text)][:count]


def _clock(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.choice((0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)):02d}"


def _day(rng: random.Random) -> str:
    return (dt.date(2020, 1, 1) + dt.timedelta(days=rng.randrange(365 * 8))).isoformat()


def _email(rng: random.Random) -> str:
    return f"{rng.choice(WORDS)}.{rng.choice(WORDS)}@{rng.choice(_HOSTS)}"


def _host(rng: random.Random) -> str:
    return f"{rng.choice(WORDS)}.{rng.choice(_HOSTS)}"


def _uri(rng: random.Random) -> str:
    return f"https://{rng.choice(_HOSTS)}/{rng.choice(WORDS)}/{rng.choice(WORDS)}"


_FORMATS: Mapping[str, Callable[[random.Random], str]] = {
    "email": _email,
    "idn-email": _email,
    "hostname": _host,
    "idn-hostname": _host,
    "uri": _uri,
    "url": _uri,
    "iri": _uri,
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"{rng.choice(_NETWORKS)}.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 0xFFFF):x}",
    "duration": lambda rng: rng.choice((f"PT{rng.randint(1, 59)}M", f"PT{rng.randint(1, 23)}H", f"P{rng.randint(1, 30)}D")),
}


# Patterns -------------------------------------------------------------------------------------------------------------


class _OutsideError(ValueError):
    """The pattern asks for what is not drawn here: look-around, back references, flags, word boundaries, or texts that are too long."""


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
    """At most `count` different texts that the whole pattern matches. None where an alternative of it does not stand between `^` and `$`
    (it only constrains a part of a value), or asks for what is not drawn here.

    Example:
        >>> all(len(text) == 3 for text in matching_texts("^[A-Z]{3}$", random.Random(0), 4))
        True
    """
    try:
        checked, read = re.compile(pattern), _parser.parse(pattern)
        if read.state.flags & ~re.UNICODE or not all(_is_anchored(read, end) for end in _ENDS):
            return []
        part = _sequence(read)
    except (re.error, OverflowError, _OutsideError, RecursionError):
        return []
    texts: dict[str, None] = {}
    for _ in range(_TRIES_PER_MATCH * count):
        if len(texts) >= count:
            break
        text = part.draw(rng)
        # How far the two readings of a pattern agree is not left to trust.
        if 0 < len(text) <= _MAX_CHARS and text == text.strip() and checked.fullmatch(text):
            texts[text] = None
    return list(texts)


def _is_anchored(read: Sequence[Any], end: str) -> bool:
    """Whether every alternative begins with `^` (`AT_BEGINNING`), or ends with `$` (`AT_END`)."""
    if not read:
        return False
    kind, value = read[0 if end == "AT_BEGINNING" else -1]
    if str(kind) == "BRANCH":
        return all(_is_anchored(option, end) for option in value[1])
    if str(kind) == "SUBPATTERN":
        return _is_anchored(value[3], end)
    return str(kind) == "AT" and str(value) == end


def _sequence(read: Sequence[Any]) -> _Part:
    parts = [_part(str(kind), value) for kind, value in read]
    shortest, longest = sum(part.shortest for part in parts), sum(part.longest for part in parts)
    return _Part(lambda rng: "".join(part.draw(rng) for part in parts), shortest, longest)


def _part(kind: str, value: Any) -> _Part:
    if kind == "LITERAL":
        return _any_of(chr(value))
    if kind == "ANY":
        return _any_of(string.ascii_lowercase + string.digits)
    if kind == "NOT_LITERAL":
        return _any_of(_others(chr(value)))
    if kind == "IN":
        return _any_of(_members(value))
    if kind == "BRANCH":
        options = [_sequence(option) for option in value[1]]
        shortest, longest = min(option.shortest for option in options), max(option.longest for option in options)
        return _Part(lambda rng: rng.choice(options).draw(rng), shortest, longest)
    if kind == "SUBPATTERN" and not (value[1] or value[2]):
        return _sequence(value[3])
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _repeated(*value)
    if kind == "AT" and str(value) in _ENDS:
        return _Part(lambda _: "", 0, 0)
    raise _OutsideError(kind)


def _repeated(low: int, high: int, read: Sequence[Any]) -> _Part:
    """As often as the pattern asks, and a few times more at most."""
    part = _sequence(read)
    most = max(low, _MORE) if str(high) == "MAXREPEAT" else min(high, low + 2 * _MORE)
    return _Part(lambda rng: "".join(part.draw(rng) for _ in range(rng.randint(low, most))), part.shortest * low, part.longest * most)


def _members(read: Sequence[Any]) -> str:
    """The characters of a class, each once."""
    members = ""
    for kind, value in read:
        if str(kind) == "LITERAL":
            members += chr(value)
        elif str(kind) == "RANGE":
            members += "".join(map(chr, range(value[0], min(value[1] + 1, value[0] + _MAX_RANGE))))
        elif str(kind) == "CATEGORY":
            members += _category(str(value).removeprefix("CATEGORY_"))
    return _others(members) if str(read[0][0]) == "NEGATE" else "".join(dict.fromkeys(members))


def _category(name: str) -> str:
    excluded = _SHORTHANDS[name.removeprefix("NOT_")]
    return "".join(character for character in _PRINTABLE if character not in excluded) if name.startswith("NOT_") else excluded


def _others(excluded: str) -> str:
    return "".join(character for character in string.ascii_letters + string.digits if character not in excluded)


def _any_of(characters: str) -> _Part:
    if not characters:
        raise _OutsideError("a class without a member")
    return _Part(lambda rng: rng.choice(characters), 1, 1)
