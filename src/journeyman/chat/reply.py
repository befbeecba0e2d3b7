"""A sampled text taken apart: content, tool calls, thinking; whole, or as far as it is certain while it is still being drawn.

Tool calls are in the Hermes/Qwen format, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. Not for validating them: a call that
is no JSON comes back verbatim, so that the agent can show the model its mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json
from journeyman.types.messages import FunctionCall

if TYPE_CHECKING:
    from journeyman.chat.renderer import Renderer

UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for a character whose last bytes are not there yet
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
BARE_MARK = "<|python_tag|>"  # Llama 3 may write it before a bare call
_THINK_TEXT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_CALL_TEXT = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """What a reply says. `content` is None when there is nothing but calls; text without calls is kept verbatim."""

    content: str | None
    tool_calls: tuple[FunctionCall, ...] = ()
    reasoning: str | None = None


class ReplyFormat(Protocol):
    """How a text is read. For every text and every beginning of it, what `settled` says of the beginning is a beginning of what
    `parse` says of the whole."""

    def parse(self, text: str) -> ParsedReply: ...

    def settled(self, text: str) -> tuple[str, str]:
        """(reasoning, content) that no continuation of `text` can change; "" for none."""
        ...


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Plain text, cut at the first stop string."""

    stop: tuple[str, ...] = ()

    def parse(self, text: str) -> ParsedReply:
        return ParsedReply(content=cut_at_stop(text, self.stop))

    def settled(self, text: str) -> tuple[str, str]:
        return "", _without_beginning(cut_at_stop(text.rstrip(UNKNOWN_CHARACTER), self.stop), self.stop)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat reply.

    Args:
        stop: strings that the text is cut at.
        has_tools: tools were offered; otherwise what looks like a call is text.
        is_thinking: the prompt opened a thinking block.
        allow_bare_call: the model's template writes calls as bare JSON, without tags; such a text is settled when it is whole.
    """

    stop: tuple[str, ...] = ()
    has_tools: bool = True
    is_thinking: bool = False
    allow_bare_call: bool = False

    def parse(self, text: str) -> ParsedReply:
        text = cut_at_stop(text, self.stop)
        if self.has_tools:
            return parse_reply(text, allow_bare_call=self.allow_bare_call, is_thinking=self.is_thinking)
        thought, content = split_reasoning(text, is_open=self.is_thinking)
        return ParsedReply(content=content, reasoning=thought)

    def settled(self, text: str) -> tuple[str, str]:
        text = cut_at_stop(text.rstrip(UNKNOWN_CHARACTER), self.stop)
        text = _without_beginning(text, (THINK_OPEN, THINK_CLOSE, CALL_OPEN, *self.stop))
        thought, content = split_reasoning(text, is_open=self.is_thinking)
        if self.has_tools:
            # A tag may also be in two parts, around a thinking block.
            content = self._settled_beside_calls(_without_beginning(content, (CALL_OPEN,)))
        return thought or "", content

    def _settled_beside_calls(self, content: str) -> str:
        start = content.lstrip()
        if self.allow_bare_call and (start.startswith(("{", BARE_MARK)) or BARE_MARK.startswith(start)):
            return ""
        return without_calls(content)


def parse_reply(text: str, *, allow_bare_call: bool = False, is_thinking: bool = False) -> ParsedReply:
    """Take a reply's text apart; arguments as in `ChatFormat`."""
    thought, rest = split_reasoning(text, is_open=is_thinking)
    content, calls = parse_tool_calls(rest)
    if not calls and allow_bare_call:
        bare = parse_bare_call(rest)
        if bare is not None:
            return ParsedReply(content=None, tool_calls=(bare,), reasoning=thought)
    return ParsedReply(content=content, tool_calls=calls, reasoning=thought)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((text.find(mark) for mark in stop if mark in text), default=len(text))]


def _without_beginning(text: str, marks: Sequence[str]) -> str:
    """The text without an end that could be the beginning of one of `marks`.

    Repeated, because what is left may end so as well: a stop string can begin inside a tag.
    """
    while True:
        longest = max((size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size])), default=0)
        if not longest:
            return text
        text = text[:-longest]


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


def split_reasoning(text: str, *, is_open: bool = False) -> tuple[str | None, str]:
    """(reasoning or None, the rest). An unfinished block (cut off by max_tokens) is all reasoning.

    `is_open`: the prompt ends with the opening tag, so the text begins inside the block. Without it a closing tag alone means
    nothing: a stream could not take back what it had sent as content.

    Example:
        >>> split_reasoning("<think>2 and 2</think>\\n\\n4")
        ('2 and 2', '4')
    """
    if is_open:
        before, inside = "", text.lstrip().removeprefix(THINK_OPEN)  # some models write the tag again
    else:
        before, opened, inside = text.partition(THINK_OPEN)
        if not opened:
            return None, text
    thought, _, rest = inside.partition(THINK_CLOSE)
    return thought.strip(), before + rest.lstrip("\n")


def without_reasoning(text: str) -> str:
    """The text without any complete thinking block: what two echoes of one reply have in common."""
    return _THINK_TEXT.sub("", text)


def parse_tool_calls(text: str) -> tuple[str | None, tuple[FunctionCall, ...]]:
    """(content outside the calls or None, the calls in order). Never raises.

    A malformed call has the name as far as it can be read ('' otherwise) and the whole inner text as `arguments`.

    Example:
        >>> parse_tool_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
        (None, (FunctionCall(name='add', arguments='{"a": 1}'),))
    """
    calls = tuple(_parse_call(match.group(1)) for match in _CALL_TEXT.finditer(text))
    if not calls:
        return text, ()
    return without_calls(text) or None, calls


def without_calls(text: str) -> str:
    """The text outside the calls (an unfinished one reaches to the end), without whitespace at its end.

    That at its beginning stays: a stream has sent it before it can know that a call follows.
    """
    return _CALL_TEXT.sub("", text).rstrip()


def parse_bare_call(text: str) -> FunctionCall | None:
    """A reply that is nothing but one call's JSON (Llama style, `parameters` for `arguments`), or None."""
    stripped = text.strip().removeprefix(BARE_MARK).strip()
    if not stripped.startswith("{") or not _ARGUMENTS.search(stripped):
        return None
    call = _parse_call(stripped)
    return call if call.name and call.arguments != stripped else None


def parse_arguments(arguments: str) -> dict[str, object] | None:
    """The arguments as an object, or None when the text is not a JSON object."""
    try:
        value = parse_json(arguments)
    except InputError:
        return None
    return value if isinstance(value, dict) else None


def _parse_call(inner: str) -> FunctionCall:
    raw = inner.strip()
    call = parse_arguments(raw)
    if call is None or not isinstance(call.get("name"), str) or not call["name"]:
        name = _NAME.search(raw)
        return FunctionCall(name=name.group(1) if name else "", arguments=raw)
    value = call.get("arguments", call.get("parameters"))
    return FunctionCall(name=str(call["name"]), arguments=_arguments_text(raw, value))


def _arguments_text(raw: str, value: object) -> str:
    """The arguments' JSON exactly as written; re-serialised only where their place in the text is ambiguous."""
    if value is None:
        return "{}"
    if isinstance(value, str):  # encoded twice, as OpenAI's own wire has it
        return value
    for match in _ARGUMENTS.finditer(raw):
        try:
            arguments, end = _DECODER.raw_decode(raw, match.end())
        except ValueError:
            continue
        if arguments == value:
            return raw[match.end() : end]
    return json.dumps(value, ensure_ascii=False)
