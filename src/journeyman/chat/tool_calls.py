"""Read the tool calls out of a reply in the Hermes/Qwen format: `<tool_call>{"name": ..., "arguments":
{...}}</tool_call>`.

Not for validating them: a call that is no JSON comes back verbatim, so that the agent can show the model its mistake.
"""

from __future__ import annotations

import json
import re

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json
from journeyman.types.messages import FunctionCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
BARE_MARK = "<|python_tag|>"  # Llama 3 may write it before a bare call
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')
_DECODER = json.JSONDecoder()


def parse_tool_calls(text: str) -> tuple[str | None, tuple[FunctionCall, ...]]:
    """(content outside the calls or None, the calls in order). Never raises.

    A malformed call has the name as far as it can be read ('' otherwise) and the whole inner text as `arguments`.

    Example:
        >>> parse_tool_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
        (None, (FunctionCall(name='add', arguments='{"a": 1}'),))
    """
    calls = tuple(_parse_call(match.group(1)) for match in _CALL.finditer(text))
    if not calls:
        return text, ()
    return without_calls(text) or None, calls


def without_calls(text: str) -> str:
    """The text outside the calls (an unfinished one reaches to the end), without whitespace at its end.

    That at its beginning stays: a stream has sent it before it can know that a call follows.
    """
    return _CALL.sub("", text).rstrip()


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
        found = _NAME.search(raw)
        return FunctionCall(name=found.group(1) if found else "", arguments=raw)
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
            found, end = _DECODER.raw_decode(raw, match.end())
        except ValueError:
            continue
        if found == value:
            return raw[match.end() : end]
    return json.dumps(value, ensure_ascii=False)
