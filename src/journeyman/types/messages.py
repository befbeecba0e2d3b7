"""Chat messages and tools in OpenAI's shape, tolerant of what agent frameworks send (`null` = absent, unknown fields ignored).

Messages are text. What a message holds besides is never dropped in silence: it is refused, or a mark stands in its place where refusing
would be worse (a tool's result is no choice of who sends it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from journeyman.types.record import ForeignRecord

_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_TOOL_ROLES: Final = ("tool", "function")
#: Fields beside `content` that hold something a model would have to see.
_OTHER_CONTENT: Final = ("audio", "image", "images", "video", "videos", "file", "files", "attachments", "function_call")


def text_of_part(part: object) -> str | None:
    """The text of one part of a content list; None when it is no text.

    Example:
        >>> text_of_part({"type": "text", "text": "Hi"}), text_of_part({"type": "image_url", "image_url": {"url": "…"}})
        ('Hi', None)
    """
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) and kind in (*_TEXT_PARTS, "refusal") else None


def kind_of_part(part: object) -> str:
    """What a part is, in a word: its type."""
    return str(part.get("type", "untyped"))[:40] if isinstance(part, Mapping) else type(part).__name__


def omitted(kind: str) -> str:
    """The mark that stands where something was that is no text.

    Example:
        >>> omitted("image_url")
        '[image omitted: this model reads text only]'
    """
    name = kind.removeprefix("input_").removesuffix("_url").replace("_", " ")
    return f"[{name} omitted: this model reads text only]"


def is_omitted(text: str) -> bool:
    """Whether a text has such a mark."""
    return " omitted: this model reads text only]" in text


def other_content(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of a message that hold something besides its text and tool calls: images, sound, a call in the old way."""
    return tuple(name for name in _OTHER_CONTENT if message.get(name))


def marked(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of another model's conversation as text, for reading: a mark in the place of whatever is none."""
    content, others = message.get("content"), other_content(message)
    if isinstance(content, list):
        content = _joined(content)
    if others:
        content = (content or "") + "".join(map(omitted, others))
    return {name: value for name, value in message.items() if name not in others} | {"content": content}


def _joined(parts: Sequence[object]) -> str:
    texts = ((text_of_part(part), part) for part in parts)
    return "".join(omitted(kind_of_part(part)) if text is None else text for text, part in texts)


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

    Other parts (images, sound, files) are refused, and marked in the result of a tool. What an assistant refused with is its text.
    """

    role: str
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_content(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        if others := other_content(value):
            raise _unreadable(others[0], others[0])
        if not value.get("content") and value.get("refusal"):
            return {**value, "content": value["refusal"]}
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            return value
        if info.data.get("role") not in _TOOL_ROLES:
            for place, part in enumerate(value):
                if text_of_part(part) is None:
                    raise _unreadable(kind_of_part(part), place)
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


def _unreadable(kind: str, place: str | int) -> PydanticCustomError:
    return PydanticCustomError(
        "unsupported_part", "{kind}: this model reads text only; leave it out or describe it in words", {"kind": kind, "path": (place,)}
    )


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
