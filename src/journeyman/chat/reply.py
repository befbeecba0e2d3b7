"""A sampled text taken apart: content, tool calls, reasoning."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.chat.reasoning import split_reasoning
from journeyman.chat.tool_calls import parse_bare_call, parse_tool_calls
from journeyman.types.messages import FunctionCall


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """What a reply says. `content` is None when there is nothing but calls; text without calls is kept verbatim."""

    content: str | None
    tool_calls: tuple[FunctionCall, ...] = ()
    reasoning: str | None = None


def parse_reply(text: str, *, allow_bare_call: bool = False) -> ParsedReply:
    """Take a reply's text apart. `allow_bare_call`: the model's template writes calls as bare JSON, without tags."""
    reasoning, rest = split_reasoning(text)
    content, calls = parse_tool_calls(rest)
    if not calls and allow_bare_call:
        bare = parse_bare_call(rest)
        if bare is not None:
            return ParsedReply(content=None, tool_calls=(bare,), reasoning=reasoning)
    return ParsedReply(content=content, tool_calls=calls, reasoning=reasoning)
