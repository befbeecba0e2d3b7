"""Chat messages and tools in OpenAI's shape, tolerant of what agent frameworks send (`null` = absent, unknown fields ignored)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from journeyman.types.record import ForeignRecord


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
    """One chat message. `content` is plain text; a list of parts is joined when it comes in."""

    role: str
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        texts = [part.get("text", "") if isinstance(part, dict) else str(part) for part in value]
        return "".join(text for text in texts if isinstance(text, str))

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
