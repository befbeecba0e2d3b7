"""A sampled text taken apart: content, tool calls, reasoning; whole, or as far as it is certain while it is still being drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from journeyman.chat import reasoning
from journeyman.chat.reasoning import split_reasoning
from journeyman.chat.tool_calls import BARE_MARK, OPEN, parse_bare_call, parse_tool_calls, without_calls
from journeyman.types.messages import FunctionCall

UNKNOWN_CHARACTER = "�"  # what a decoder writes for a character whose last bytes are not there yet


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
        text = _without_beginning(text, (reasoning.OPEN, reasoning.CLOSE, OPEN, *self.stop))
        thought, content = split_reasoning(text, is_open=self.is_thinking)
        if self.has_tools:
            # A tag may also be in two parts, around a thinking block.
            content = self._settled_beside_calls(_without_beginning(content, (OPEN,)))
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
