"""What a model's server answered, read strictly: a completion in OpenAI's shape, or an error that says what came instead.

Servers differ: errors inside a 200, content in parts, arguments as objects. What has one meaning is put into OpenAI's shape; nothing is
guessed. Not for HTTP, nor for what a reply's text means (`replies.py`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from journeyman.errors import InputError, LlmError, LlmOutageError, LlmSettingError
from journeyman.llm.replies import shorten
from journeyman.types.json_text import check_json, parse_json

if TYPE_CHECKING:
    from openai import APIError

_SHOWN_CHARACTERS, _SHORTEST_KEY = 120, 6
_ASK_AGAIN = "ask again; check the server's log"
_TEXT_PARTS, _THINKING_PARTS = ("text", "output_text"), ("thinking", "reasoning", "redacted_thinking")
_WORDS, _SHOWN_FAULTS = ("message", "msg", "detail", "details", "error", "errors", "error_message", "error_msg", "description", "title"), 3
_THOUGHTS = ("reasoning_content", "reasoning")
# What the words of an error inside a 200 mean where no status is given.
_STATUS_WORDS = (
    (429, re.compile(r"rate.?limit|too.?many|resource.?exhausted|throttl|quota", re.IGNORECASE)),
    (503, re.compile(r"overload|unavailable|capacity|busy|loading", re.IGNORECASE)),
    (504, re.compile(r"time.?out|deadline", re.IGNORECASE)),
    (500, re.compile(r"server.?error|internal|api.?error|upstream|bad.?gateway", re.IGNORECASE)),
    (401, re.compile(r"auth|api.?key|unauthori[sz]ed", re.IGNORECASE)),
    (403, re.compile(r"permission|forbidden", re.IGNORECASE)),
    (404, re.compile(r"not.?found", re.IGNORECASE)),
)
_NUM_PASSING = 3  # of them: what words outside a code may say, too


def read_answer(raw: bytes, where: str, base_url: str, *, is_chat: bool) -> dict[str, Any]:
    """The body of a 200 as a completion: choices with a message (or a text, in the older API without chat), usage that can be counted.

    Args:
        where: names the model and its server in errors.

    Raises:
        LlmSettingError: what answers is no such server: web_page, no_json, no_completion.
        LlmError: it is one, and its answer cannot be used: empty_answer, no_choices, no_message, unknown_part, no_text, no_tool_call, and
            the reasons of `parse_json`.
    """
    value = _parsed(raw, where, base_url)
    is_one = isinstance(value, dict) and ("choices" in value or str(value.get("object")).endswith("completion"))
    if not is_one:
        raise LlmSettingError(
            f"{where} answered with something that is no completion: {_shown(value)}", hint=address_hint(base_url), reason="no_completion"
        )
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise LlmError(f"{where} answered without a choice: {_shown(value)}", hint=_ASK_AGAIN, reason="no_choices")
    read = _chat_choice if is_chat else _text_choice
    return {
        **value,
        "id": _text_or(value.get("id"), ""),
        "model": _text_or(value.get("model"), ""),
        "usage": _usage(value.get("usage")),
        "choices": [read(choice, number, where) for number, choice in enumerate(choices)],
    }


def check_stream(content_type: str, raw: bytes, where: str, base_url: str) -> None:
    """Raise the error of an answer to a streamed call that is no stream of events."""
    value = _parsed(raw, where, base_url)
    what = "a whole completion" if isinstance(value, dict) and value.get("choices") else f"something else ({content_type or 'no type'})"
    raise LlmSettingError(f"{where} answered with {what} where a stream was asked for", hint=address_hint(base_url), reason="no_stream")


def read_chunk(chunk: Any, where: str) -> Any:
    """The first choice of a streamed chunk, None when it has none (usage, or a sign of life).

    Raises LlmError: no_message, no_text, unknown_part, half_surrogate; refused, or outage, for an error in it.
    """
    choices = getattr(chunk, "choices", None)
    _refuse_error_inside(chunk, where)
    if choices is None or choices == []:
        return None
    choice = choices[0] if isinstance(choices, list) else None
    delta: Any = getattr(choice, "delta", None)
    if choice is None or not hasattr(delta, "content"):
        raise LlmError(f"{where} streamed a chunk without a message: {_shown(chunk)}", reason="no_message")
    if isinstance(delta.content, list):
        delta.content = _content(delta.content, where)
    if not isinstance(delta.content, str | None) or not isinstance(delta.tool_calls, list | None):
        raise LlmError(f"{where} streamed a chunk whose content is no text: {_shown(delta)}", reason="no_text")
    try:
        check_json([delta.content])
    except InputError as error:
        raise LlmError(f"{where} streamed a chunk that is no text: {error.message}", reason=error.reason) from error
    return choice


def _refuse_error_inside(chunk: Any, where: str) -> None:
    """Servers that fail while they stream say so in a chunk of any shape."""
    if not isinstance(chunk, BaseModel):
        return
    value = {name: part for name, part in chunk.model_dump(warnings=False).items() if part is not None}
    status = status_inside(value)
    if status is not None:
        said = shorten(words_of(_error_in(value) or value) or f"status {status}")
        if status in (408, 409, 429) or status >= 500:
            raise LlmOutageError(f"{where} broke off its reply: {said}", hint="try again later", reason="outage")
        raise LlmError(f"{where} broke off its reply: {said}", reason="refused")


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a streamed tool call; pieces with the same index belong together."""

    index: int
    id: str
    name: str
    arguments: str


def chunk_calls(delta: Any, where: str) -> list[CallPiece]:
    """The pieces of tool calls in a chunk. Raises LlmError: no_tool_call."""
    pieces = []
    for place, call in enumerate(getattr(delta, "tool_calls", None) or ()):
        function, index = getattr(call, "function", None), getattr(call, "index", None)
        name, arguments = getattr(function, "name", None), getattr(function, "arguments", None)
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if not isinstance(name, str | None) or not isinstance(arguments, str | None):
            raise _no_tool_call(call, where)
        number = index if isinstance(index, int) else place
        pieces.append(CallPiece(number, _text_or(getattr(call, "id", None), ""), name or "", arguments or ""))
    return pieces


def count_of(number: object) -> int | None:
    """A number of tokens, None when it cannot be one."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
        return None
    return int(number)


# Errors ---------------------------------------------------------------------------------------------------------------


def words_of(error: object, levels: int = 4) -> str | None:
    """What an error's body says, wherever its server put the words; None when it says nothing (a web page does not).

    Example:
        >>> words_of({"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}), words_of("busy")
        ('body/seed: not permitted', 'busy')
    """
    if isinstance(error, str):
        return None if error.lstrip().startswith("<") else " ".join(error.split()) or None
    if isinstance(error, list) and levels:
        return "; ".join(filter(None, (words_of(part, levels - 1) for part in error[:_SHOWN_FAULTS]))) or None
    if isinstance(error, Mapping) and levels:
        words = next(filter(None, (words_of(error.get(name), levels - 1) for name in _WORDS)), None)
        place = error.get("loc")
        return f"{'/'.join(map(str, place))}: {words}" if words and isinstance(place, list) else words
    return None


def say_words(error: APIError, key: str = "") -> None:
    """Put the words of an error into its message: the library takes them from one place only, and says "Error code: 400" without. Servers
    that repeat the key do so in vain."""
    words = words_of(error.body) or (_shown(error.body) if isinstance(error.body, Mapping | list) else "")
    message = error.message if words in error.message else f"{error.message} - {words}"
    error.message = shorten(message.replace(key, "***") if len(key) >= _SHORTEST_KEY else message)
    error.args = (error.message,)


# Errors inside a 200 --------------------------------------------------------------------------------------------------


async def give_error_its_status(response: Any) -> None:
    """A hook of the HTTP client: a completion's 200 that holds an error gets the status the error means, so that whoever retries, does."""
    path, kind = response.request.url.path, response.headers.get("content-type", "")
    if response.status_code != 200 or not path.endswith("/completions") or "event-stream" in kind:
        return
    try:
        value = parse_json(await response.aread(), nan_is_null=True)
    except InputError:
        return
    status = status_inside(value)
    if status is not None:
        response.status_code = status


def status_inside(value: object) -> int | None:
    """The status that the error inside an answer means; None when it holds none.

    Example:
        >>> status_inside({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
        429
    """
    error = _error_in(value)
    if error is None:  # words of a server that is busy, and nothing else
        words = words_of(value) if isinstance(value, Mapping) and "choices" not in value else None
        return None if words is None else _status_said(words, _STATUS_WORDS[:_NUM_PASSING])
    said = words_of(error) or ""
    if isinstance(error, Mapping):
        for name in ("status", "status_code", "http_status", "code"):
            if (status := _status(error.get(name))) is not None:
                return status
        kind = " ".join(str(error.get(name) or "") for name in ("code", "type", "status"))
        meant = _status_said(kind, _STATUS_WORDS)
        if meant is not None or "invalid" in kind:
            return meant or 400
        return _status_said(said, _STATUS_WORDS[:_NUM_PASSING] if kind.strip() else _STATUS_WORDS) or 400
    return _status_said(said, _STATUS_WORDS) or 400


def _status_said(words: str, meanings: Sequence[tuple[int, re.Pattern[str]]]) -> int | None:
    return next((status for status, pattern in meanings if pattern.search(words)), None)


def _error_in(value: object) -> object:
    """An error object or text: at the top, in the first choice, or the whole answer; None when there is none."""
    if isinstance(value, list) and len(value) == 1:  # Google's
        value = value[0]
    if not isinstance(value, Mapping):
        return None
    choices = value.get("choices")
    if value.get("error") not in (None, True, False, "", 0) and value["error"] != {}:
        return value["error"]
    if value.get("error") is True or value.get("object") == "error" or (choices is None and _status(value.get("code")) is not None):
        return value
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping):
        return None
    return first.get("error") or ({"message": "the reply broke off", "status": 502} if first.get("finish_reason") == "error" else None)


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


# Choices --------------------------------------------------------------------------------------------------------------


def _chat_choice(choice: dict[str, Any], number: int, where: str) -> dict[str, Any]:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise LlmError(f"{where} answered without a message: {_shown(choice)}", hint=_ASK_AGAIN, reason="no_message")
    calls = message.get("tool_calls")
    if not isinstance(calls, list | None):
        raise _no_tool_call(calls, where)
    checked_calls = [_tool_call(call, place, where) for place, call in enumerate(calls or ())]
    ended = choice.get("finish_reason")
    content = message.get("content")
    refusal = message.get("refusal") or next((part.get("refusal") for part in _parts(content) if part.get("type") == "refusal"), None)
    return {
        **choice,
        "index": number,
        "finish_reason": ended if isinstance(ended, str) and ended else ("tool_calls" if checked_calls else "stop"),
        "logprobs": _logprobs(choice.get("logprobs")),
        "message": {
            **{name: part for name, part in message.items() if name not in _THOUGHTS or isinstance(part, str)},
            "role": "assistant",
            "content": _content(content, where),
            "refusal": refusal if isinstance(refusal, str) and refusal else None,
            "tool_calls": checked_calls or None,
        },
    }


def _text_choice(choice: dict[str, Any], number: int, where: str) -> dict[str, Any]:
    text = choice.get("text")
    if not isinstance(text, str | None):
        raise LlmError(f"{where} answered with a text that is none: {_shown(text)}", hint=_ASK_AGAIN, reason="no_text")
    return {**choice, "index": number, "text": text or "", "finish_reason": _text_or(choice.get("finish_reason"), "stop"), "logprobs": None}


def _parts(content: object) -> list[dict[str, Any]]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _content(content: object, where: str) -> str | None:
    """Text, or the text of a list of parts; thinking among them is not part of the answer."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise LlmError(f"{where} answered with content that is no text: {_shown(content)}", hint=_ASK_AGAIN, reason="no_text")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) and kind in (*_TEXT_PARTS, None) else None
        if isinstance(text, str):
            texts.append(text)
        elif kind not in (*_THINKING_PARTS, "refusal"):
            raise LlmError(
                f"{where} answered with a part of type {kind!r}, and only text can be used: {_shown(part)}",
                hint="use a model that answers in text",
                reason="unknown_part",
            )
    return "".join(texts)


def _tool_call(call: object, number: int, where: str) -> dict[str, Any]:
    if isinstance(call, dict) and call.get("type") == "custom" and isinstance(call.get("custom"), dict):
        return call  # free text to a tool that the caller offered so
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _no_tool_call(call, where)
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str | None):
        raise _no_tool_call(call, where)
    ident = _text_or(call.get("id"), "") or f"call_{number}"
    return {**call, "id": ident, "type": "function", "function": {**function, "arguments": "{}" if arguments is None else arguments}}


def _no_tool_call(call: object, where: str) -> LlmError:
    return LlmError(
        f"{where} answered with a tool call that is none: {_shown(call)}",
        hint="a call is an object with a function, which has a name and arguments as text",
        reason="no_tool_call",
    )


def _logprobs(logprobs: object) -> dict[str, Any] | None:
    """Tokens with the alternatives that have a probability (servers write NaN and -Infinity, and null for them)."""
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) and isinstance(entry.get("token"), str) for entry in listed):
        return None
    content = []
    for token in listed:
        others = token.get("top_logprobs")
        usable = [entry for entry in others if _is_alternative(entry)] if isinstance(others, list) else []
        content.append({"token": token["token"], "logprob": _logprob(token.get("logprob")), "bytes": None, "top_logprobs": usable})
    return {"content": content, "refusal": None}


def _is_alternative(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("token"), str) and _logprob(entry.get("logprob")) is not None


def _logprob(value: object) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value < 0.01
    return float(value) if is_one else None  # type: ignore[arg-type]  # is_one says so


def _usage(usage: object) -> dict[str, Any] | None:
    """Numbers of tokens; None where one of them cannot be one, so that nobody counts with it."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens") or 0)
    if prompt is None or completion is None:
        return None
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


# Bodies that are none -------------------------------------------------------------------------------------------------


def _parsed(raw: bytes, where: str, base_url: str) -> Any:
    start = raw[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        raise LlmError(f"{where} answered with nothing", hint=address_hint(base_url), reason="empty_answer")
    if start.startswith(b"<"):
        raise LlmSettingError(f"{where} answered with a web page, not with JSON", hint=address_hint(base_url), reason="web_page")
    try:
        return parse_json(raw, nan_is_null=True)
    except InputError as error:
        is_elsewhere = error.reason in ("no_json", "not_utf8", "other_encoding") and not start.startswith((b"{", b"["))
        kind: Callable[..., LlmError] = LlmSettingError if is_elsewhere else LlmError
        hint = address_hint(base_url) if is_elsewhere else "ask again; if it stays so, the server is broken or cuts its answers off"
        shown = _shown(raw[:400].decode("utf-8", "replace"))
        raise kind(f"{where} answered with JSON that cannot be read ({error.message}): {shown}", hint=hint, reason=error.reason) from error


def address_hint(base_url: str) -> str:
    """What may be wrong with a base URL."""
    root = base_url.rstrip("/")
    for path in ("/chat/completions", "/completions", "/responses", "/models"):
        if root.endswith(path):
            return f"give the base URL without {path}: {root.removesuffix(path)}"
    if root.endswith("/v1"):
        return "check that the base URL is that of an OpenAI-compatible server"
    return f"check the base URL: OpenAI-compatible servers usually listen at {root}/v1"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _text_or(value: object, default: str) -> str:
    return value if isinstance(value, str) else default
