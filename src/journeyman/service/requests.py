"""Requests in OpenAI's shape, as foreign clients send them: `null` means absent, and every other field is honoured here, or refused or
without effect by the table of `fields.py`. Not for serving them: see `sampling.py`.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from journeyman.service.fields import refuse_unsupported
from journeyman.types.messages import Message, Tool
from journeyman.types.record import ForeignRecord

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class _Request(ForeignRecord):
    model: str = ""
    temperature: float = Field(default=1.0, ge=0.0, le=100.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=-1)
    max_tokens: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = None
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    stream: bool = False
    stream_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _absent_or_refused(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        given = {str(key): item for key, item in cast(dict[str, Any], value).items() if item is not None}
        refuse_unsupported(given, cls.model_fields)
        return given

    @field_validator("stop", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        stops = [value] if isinstance(value, str) else value
        return [stop for stop in stops if stop] if isinstance(stops, list) else stops

    @field_validator("stream_options")
    @classmethod
    def _options_are_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported(value, ("include_usage",))
        return value

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options.get("include_usage"))


class ResponseFormat(ForeignRecord):
    """`json_schema` holds a `schema` with the type json_schema, and is empty otherwise."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_dropped(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        given = {key: item for key, item in value.items() if item is not None}
        refuse_unsupported(given, cls.model_fields)
        if ("json_schema" in given) != (given.get("type") == "json_schema"):
            raise ValueError('a schema stands in json_schema.schema, with the type "json_schema"')
        return given

    @field_validator("json_schema")
    @classmethod
    def _has_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("schema"), dict):
            raise ValueError("json_schema.schema must be a JSON schema, an object")
        return value

    @property
    def schema_text(self) -> dict[str, Any]:
        """The JSON schema a reply must satisfy."""
        return cast(dict[str, Any], self.json_schema["schema"])


class ChatRequest(_Request):
    """A chat completion. `tool_choice` is auto, none, required, or the name of a tool after a leading `=`."""

    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    response_format: ResponseFormat = ResponseFormat()
    logprobs: bool = False
    parallel_tool_calls: bool = True

    @model_validator(mode="before")
    @classmethod
    def _newer_name_of_max_tokens(cls, value: object) -> object:
        if not isinstance(value, dict) or value.get("max_completion_tokens") is None:
            return value
        others = {key: item for key, item in value.items() if key != "max_completion_tokens"}
        if value.get("max_tokens") not in (None, value["max_completion_tokens"]):
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit, and differ")
        return {**others, "max_tokens": value["max_completion_tokens"]}

    @field_validator("messages")
    @classmethod
    def _roles_are_known(cls, value: tuple[Message, ...]) -> tuple[Message, ...]:
        # A template may leave out what a role that it does not know says.
        for place, message in enumerate(value):
            if message.role not in _ROLES:
                context = {"role": message.role, "known": ", ".join(_ROLES), "path": (place, "role")}
                raise PydanticCustomError("unknown_role", "{role} is no role; known are {known}", context)
        return value

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _named_tool(cls, value: object) -> object:
        if isinstance(value, str) and value in ("auto", "none", "required"):
            return value
        function = value.get("function") if isinstance(value, dict) and value.get("type") in (None, "function") else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise ValueError('tool_choice must be "auto", "none", "required" or {"type": "function", "function": {"name": ...}}')
        return "=" + name

    @model_validator(mode="after")
    def _choice_exists(self) -> ChatRequest:
        if self.tool_choice.startswith("=") and self.tool_choice[1:] not in {tool.function.name for tool in self.tools}:
            raise ValueError(f"tool_choice names {self.tool_choice[1:]!r}, which is not among the tools")
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice is required, but there are no tools")
        # A required call is held to one by its grammar; a free reply may hold several, and what was drawn cannot be cut afterwards.
        if not self.parallel_tool_calls and self.tools and self.tool_choice == "auto":
            raise ValueError('parallel_tool_calls=false is supported with tool_choice "required" or a named tool, not with "auto"')
        return self


class CompletionRequest(_Request):
    """A raw text continuation. `prompt` is one text or one list of token ids; `logprobs` as OpenAI's legacy count (0 or 1)."""

    prompt: str | tuple[int, ...]
    max_tokens: int | None = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=1)

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: object) -> object:
        if isinstance(value, list) and any(isinstance(item, (str, list)) for item in value):
            if len(value) != 1:
                raise ValueError("send one prompt a request")
            return value[0]
        return value
