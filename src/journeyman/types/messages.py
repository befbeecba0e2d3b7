"""Chat messages and tools in OpenAI's shape, tolerant of what agent frameworks send (`null` = absent).

Messages are text. What a message holds besides is never dropped in silence: it is refused, or a mark stands in its place where refusing
would be worse (a tool's result is no choice of who sends it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from journeyman.types.record import ForeignRecord

_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_TOOL_ROLES: Final = ("tool", "function")
#: Fields of a message, and of a part of it, that say nothing to a model.
_SAYS_NOTHING: Final = frozenset(
    {
        *("id", "object", "type", "status", "index", "created", "created_at", "timestamp", "weight", "metadata", "annotations"),
        *("cache_control", "logprobs", "token_ids", "finish_reason", "model", "usage", "provider_specific_fields", "parsed", "_meta"),
    }
)
#: Fields beside `content` that hold what a model would have to see, as files of conversations have them.
_OTHER_CONTENT: Final = (
    *("audio", "image", "images", "image_url", "video", "videos", "file", "files", "attachments", "experimental_attachments"),
    *("input_audio", "refusal", "function_call"),
)
_MARK: Final = re.compile(r"\[[^\[\]]{1,80} left out(: [^\[\]]*)?\]")
_MAX_NAME: Final = 200


def kind_of_part(part: object) -> str:
    """What a part that is no text is, in a word: its type, or what it has besides a text.

    Example:
        >>> kind_of_part({"type": "image_url"}), kind_of_part({"type": "text", "text": "a", "video": "b"}), kind_of_part(3)
        ('image_url', 'video', 'int')
    """
    if isinstance(part, str):
        return "text"
    if not isinstance(part, Mapping):
        return type(part).__name__
    kind = str(part.get("type") or "text")
    return (next(iter(_besides(part)), "text without a text") if kind in _TEXT_PARTS else kind)[:40]


def is_text(part: object) -> bool:
    """Whether a part of a content list is text and nothing else.

    Example:
        >>> is_text({"type": "text", "text": "Hi"}), is_text({"type": "image_url", "image_url": {"url": "…"}})
        (True, False)
    """
    if not isinstance(part, Mapping):
        return isinstance(part, str)
    kind = part.get("type") or "text"
    return kind in _TEXT_PARTS and isinstance(part.get("text"), str) and not _besides(part)


def left_out(kind: str, *details: str) -> str:
    """The mark that stands where something was that is no text.

    Example:
        >>> left_out("image", "image/png", "1,234 bytes"), left_out("audio")
        ('[image left out: image/png, 1,234 bytes]', '[audio left out]')
    """
    shown = ", ".join(re.sub(r"[\[\]\s]+", " ", detail)[:_MAX_NAME] for detail in details if detail)
    return f"[{kind} left out: {shown}]" if shown else f"[{kind} left out]"


def size_of_base64(data: object) -> str:
    """How many bytes a base64 text holds, in words; "" when it is none."""
    return f"{len(data.rstrip('=')) * 3 // 4:,} bytes" if isinstance(data, str) and data else ""


def has_mark(text: str) -> bool:
    """Whether something was left out of a text."""
    return _MARK.search(text) is not None


def other_content(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of a message that hold something besides its text and tool calls: images, sound, a call in the old way."""
    return tuple(name for name in _OTHER_CONTENT if message.get(name))


def marked(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of another model's conversation as text, for reading: a mark in the place of whatever is none."""
    content = message.get("content")
    parts = content if isinstance(content, list | tuple) else [] if content is None else [content]
    marks = [str(message[name]) if name == "refusal" else left_out(name) for name in other_content(message)]
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, Mapping)]
    functions = [call for call in calls if isinstance(call.get("function"), Mapping)]
    marks += [left_out(f"{call.get('type') or 'unknown'} call") for call in calls if call not in functions]
    known = {name: value for name, value in message.items() if name in (*Message.model_fields, "reasoning")}
    said = None if content is None and not marks else _joined(parts) + "".join(marks)
    return {**known, "content": said, "tool_calls": functions}


def _joined(parts: Sequence[object]) -> str:
    return "".join(part if isinstance(part, str) else _text_and_mark(part) for part in parts)


def _text_and_mark(part: object) -> str:
    """A part's text, and a mark for what else it holds."""
    if not isinstance(part, Mapping):
        return left_out(kind_of_part(part))
    said = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
    text = said if isinstance(said, str) else ""
    if is_text(part) or part.get("type") == "refusal":
        return text
    kind = kind_of_part(part)
    return text + left_out(kind.removeprefix("input_").removesuffix("_url").replace("_", " "), *_details(part))


def _details(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Media type, size and name or address of a part, as far as it tells them."""
    kind = str(part.get("type"))
    inner = next((held for held in (part.get(kind), part.get("source"), part.get("file")) if isinstance(held, Mapping)), part)
    place = inner.get("url") or inner.get("uri") or inner.get("image_url") or inner.get("file_data") or ""
    media = str(inner.get("mimeType") or inner.get("mime_type") or inner.get("media_type") or "")
    data = inner.get("data")
    if isinstance(place, str) and place.startswith("data:"):
        head, _, data = place.partition(",")
        media, place = head.removeprefix("data:").partition(";")[0], ""
    elif kind == "input_audio":
        media = f"audio/{inner.get('format', 'unknown')}"
    names = (inner.get("filename"), inner.get("file_id"), place)
    return (media, size_of_base64(data), *(name for name in names if isinstance(name, str)))


def _besides(values: Mapping[str, Any], known: Sequence[str] = ("text",)) -> tuple[str, ...]:
    """Fields that say something and are none of the known."""
    return tuple(str(name) for name, value in values.items() if value and name not in known and name not in _SAYS_NOTHING)


class FunctionCall(ForeignRecord):
    """The call a model asked for. `arguments` is the JSON text exactly as the model wrote it: it may not parse."""

    name: str = ""
    arguments: str = ""

    @field_validator("arguments", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return "" if value is None else value


class ToolCall(ForeignRecord):
    """One tool call of an assistant message; `id` is minted by the server and unique."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(ForeignRecord):
    """One chat message. `content` is plain text; a list of text parts is joined when it comes in.

    Other parts (images, sound, files, refusals) and fields that are unknown are refused by name; in the result of a tool a mark stands
    in the place of a part. `reasoning` is another name of `reasoning_content`.
    """

    role: str
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_nothing_else(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        if others := _besides(value, (*cls.model_fields, "reasoning")):
            raise _unreadable("unsupported_field", others[0], others[0])
        if value.get("reasoning") and not value.get("reasoning_content"):
            return {**value, "reasoning_content": value["reasoning"]}
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            return value
        if info.data.get("role") not in _TOOL_ROLES:
            for place, part in enumerate(value):
                if not is_text(part):
                    raise _unreadable("unsupported_part", kind_of_part(part), place)
        return _joined(value)

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _null_is_none(cls, value: object) -> object:
        return () if value is None else value

    def wire(self) -> dict[str, Any]:
        """The message as OpenAI's JSON: absent fields are left out, `content` is always there."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning_content is not None:
            out["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            out["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            out["name"] = self.name
        return out


def _unreadable(reason: Literal["unsupported_part", "unsupported_field"], kind: str, place: str | int) -> PydanticCustomError:
    advice = "write the call as tool_calls" if kind == "function_call" else "leave it out, or say it in words"
    what = "a part of the type" if reason == "unsupported_part" else "the field"
    context = {"what": what, "kind": kind, "path": (place,), "advice": advice}
    return PydanticCustomError(reason, "{what} {kind}: only text can be read here; {advice}", context)


class ToolFunction(ForeignRecord):
    """A function the model may call; `parameters` is a JSON schema of type object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("description", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return "" if value is None else value

    @field_validator("parameters", mode="before")
    @classmethod
    def _null_is_no_parameters(cls, value: object) -> object:
        return {} if value is None else value


class Tool(ForeignRecord):
    """A tool in OpenAI's shape."""

    type: Literal["function"] = "function"
    function: ToolFunction
