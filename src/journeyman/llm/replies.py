"""What came back from a model: text, usage, and the JSON inside a text that may hold other things as well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.types.json_text import well_formed

JsonMode = Literal["json_schema", "json_object", "plain"]
FindFault = Callable[[Any], str | None]

_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens billed, and calls made (retries that reached a reply included)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens, self.calls + other.calls)


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """One token of a reply and what might have stood there instead, as (text, probability)."""

    text: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class TextReply:
    """A reply: its text, why it ended, what it cost, and its tokens where they were asked for and given."""

    text: str
    finish_reason: str
    usage: Usage
    tokens: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True, slots=True)
class JsonReply:
    """A reply read as JSON. `mode` is how the endpoint was asked; `usage` counts every call that was needed."""

    value: Any
    text: str
    mode: JsonMode
    usage: Usage
    tokens: tuple[TokenChoice, ...] = ()


def json_values(text: str) -> list[Any]:
    """Every JSON object and array in a text, in order; thinking, code fences and prose around them are passed over.

    Example:
        >>> json_values('Sure: {"a": 1,} and [2]')
        [{'a': 1}, [2]]
    """
    text = _THINKING.sub("", text)
    return _decode_all(text) or _decode_all(_TRAILING_COMMA.sub(r"\1", text))


def read_json(reply: TextReply, find_fault: FindFault | None) -> tuple[Any, str | None]:
    """The one usable JSON value of a reply, or (None or the faulty value, what is wrong).

    A text may quote JSON that is not its answer: with `find_fault` the value that has no fault counts, and two different ones are
    a fault. Without it the first value counts.
    """
    values = json_values(reply.text)
    if not values:
        if reply.finish_reason == "length":
            return None, "it was cut off at the token limit before the JSON was complete"
        return None, f"it holds no JSON object: {shorten(reply.text)!r}"
    if find_fault is None:
        return values[0], None
    usable = [value for value in values if find_fault(value) is None]
    if not usable:
        fault = find_fault(values[0])
        return values[0], f"it was cut off at the token limit; {fault}" if reply.finish_reason == "length" else fault
    if any(value != usable[0] for value in usable):
        return usable[0], f"it holds {len(usable)} answers that differ: give one"
    return usable[0], None


def shorten(text: str, limit: int = 300) -> str:
    text = well_formed(text)
    return text if len(text) <= limit else text[:limit] + "…"


def _decode_all(text: str) -> list[Any]:
    decoder, values, start = json.JSONDecoder(), [], 0
    while (match := re.compile(r"[{\[]").search(text, start)) is not None:
        try:
            value, start = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            start = match.start() + 1
        else:
            values.append(value)
    return values
