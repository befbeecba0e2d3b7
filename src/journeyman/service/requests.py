"""Requests in OpenAI's shape, as foreign clients send them: which fields are honoured, refused, or change nothing (docs/server.md prints
that table), and the grammar that a chat request puts on its reply.

A field that would change the reply is honoured or refused by name, never dropped; so is one that nobody here has heard of, as OpenAI's own
server does. `null` means absent. Not for serving requests (`sampling.py`), nor for compiling grammars.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, cast

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from journeyman.chat.reply import CALL_CLOSE, CALL_OPEN
from journeyman.errors import SettingError
from journeyman.types.messages import Message, Tool
from journeyman.types.record import ForeignRecord
from journeyman.types.sampling import Grammar, JsonSchemaGrammar, LarkGrammar
from journeyman.types.secrets import hide_in_settings

#: Taken and ignored: they change no token.
IGNORED: Final = frozenset(
    {
        *("store", "metadata", "user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "prediction", "request_id", "session_id", "trace_id", "priority", "cache_salt", "cache_prompt"),
        *("keep_alive", "guided_decoding_backend", "usage", "strict", "include_obfuscation"),
    }
)

#: Not supported here, with the values that ask for nothing. `null` always asks for nothing.
UNSUPPORTED: Final[Mapping[str, tuple[object, ...]]] = {
    # of OpenAI's API
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "top_logprobs"), (0,)),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "echo": (False,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    **dict.fromkeys(("audio", "reasoning_effort", "web_search_options"), ()),
    # of other servers and their samplers
    **dict.fromkeys(("min_p", "min_tokens", "min_new_tokens", "mirostat", "top_a", "xtc_probability", "dry_multiplier"), (0,)),
    **dict.fromkeys(("dynatemp_range", "smoothing_factor", "no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff"), (0,)),
    **dict.fromkeys(("repetition_penalty", "repeat_penalty", "length_penalty", "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("typical_p", "tfs_z", "num_beams", "guidance_scale", "cfg_scale"), (1,)),
    "top_n_sigma": (-1,),
    **dict.fromkeys(("use_beam_search", "early_stopping", "ignore_eos", "include_stop_str_in_output", "penalize_nl"), (False,)),
    **dict.fromkeys(("continue_final_message", "skip_special_tokens", "no_stop_trim", "safe_prompt", "raw"), (False,)),
    **dict.fromkeys(("return_token_ids", "return_tokens_as_token_ids", "continuous_usage_stats"), (False,)),
    **dict.fromkeys(("add_generation_prompt", "do_sample", "include_reasoning", "separate_reasoning"), (True,)),
    **dict.fromkeys(("stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors", "stop_regex", "documents"), ([],)),
    **dict.fromkeys(("guided_regex", "guided_grammar", "grammar", "regex", "ebnf", "negative_prompt", "format"), ("",)),
    **dict.fromkeys(("structured_outputs", "chat_template_kwargs", "mm_processor_kwargs", "options", "extra_body"), ({},)),
    **dict.fromkeys(("guided_json", "guided_choice", "json_schema", "prompt_logprobs", "truncate_prompt_tokens", "chat_template"), ()),
    **dict.fromkeys(("add_special_tokens", "thinking", "enable_thinking", "max_new_tokens", "n_predict", "random_seed"), ()),
}
_INSTEAD: Final = {
    **dict.fromkeys(("guided_json", "structured_outputs", "json_schema", "format"), "response_format with a json_schema"),
    **dict.fromkeys(("functions", "function_call"), "tools and tool_choice"),
    **dict.fromkeys(("max_new_tokens", "n_predict"), "max_tokens"),
    "random_seed": "seed",
    "extra_body": "its fields themselves",
}
_MAX_SHOWN = 80

# Small models pad JSON with endless whitespace when they may; this is how calls are written in training, too.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Where one of these stands beside `properties`, other properties than those may be called for.
_BRINGS_PROPERTIES = ("$ref", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "dependentSchemas", "unevaluatedProperties")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def refuse_unsupported(fields: Mapping[str, Any], honoured: Collection[str]) -> None:
    """Raises for fields that are neither honoured nor without effect; the error's `path` is the first, its text has all of them."""
    refused = [name for name in fields if name not in honoured and not _asks_for_nothing(name, fields[name])]
    if not refused:
        return
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in hide_in_settings({name: fields[name] for name in refused}).items())
    instead = [f"send {_INSTEAD[name]} instead of {name}" for name in refused if name in _INSTEAD]
    kind = "unsupported_parameter" if refused[0] in UNSUPPORTED else "unknown_parameter"
    raise PydanticCustomError(
        kind,
        "{shown}: not supported by this server; {advice}",
        {"path": (refused[0],), "shown": shown, "advice": "; ".join(instead) or "leave it out"},
    )


def _asks_for_nothing(name: str, value: object) -> bool:
    return value is None or name in IGNORED or any(value == neutral for neutral in UNSUPPORTED.get(name, ()))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


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
        fields = {str(key): item for key, item in cast(dict[str, Any], value).items() if item is not None}
        refuse_unsupported(fields, cls.model_fields)
        return fields

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
        fields = {key: item for key, item in value.items() if item is not None}
        refuse_unsupported(fields, cls.model_fields)
        if ("json_schema" in fields) != (fields.get("type") == "json_schema"):
            raise ValueError('a schema stands in json_schema.schema, with the type "json_schema"')
        return fields

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


# Grammars -------------------------------------------------------------------------------------------------------------


def grammar_of(request: ChatRequest) -> Grammar | None:
    """The grammar of a reply, None when it is free.

    With a response format *and* tools that may be called, the reply is one or the other.
    """
    if request.tool_choice == "required" or request.tool_choice.startswith("="):
        return LarkGrammar("start: call\n" + _call_rules(_callable_tools(request)))
    if request.response_format.type == "text":
        return None
    is_schema = request.response_format.type == "json_schema"
    schema = request.response_format.schema_text if is_schema else {"type": "object"}
    if not request.tools or request.tool_choice == "none":
        return JsonSchemaGrammar(json.dumps(schema))
    return LarkGrammar(f"start: call | answer\nanswer: {_json_rule(schema)}\n" + _call_rules(request.tools))


def _callable_tools(request: ChatRequest) -> tuple[Tool, ...]:
    if request.tool_choice.startswith("="):
        return tuple(tool for tool in request.tools if tool.function.name == request.tool_choice[1:])
    return request.tools


def _call_rules(tools: tuple[Tool, ...]) -> str:
    # The text around the arguments is spelt out, so that a tool's own schema is the root from which its references are resolved.
    rules = []
    for number, tool in enumerate(tools):
        name = json.dumps(tool.function.name, ensure_ascii=False)
        opening = json.dumps(f'{{"name": {name}, "arguments": ', ensure_ascii=False)
        rules += [f'call_{number}: {opening} arguments_{number} "}}"', f"arguments_{number}: {_json_rule(_arguments_schema(tool))}"]
    names = " | ".join(f"call_{number}" for number in range(len(tools)))
    return "\n".join([f'call: "{CALL_OPEN}" ({names}) "{CALL_CLOSE}"', *rules])


def _json_rule(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _COMPACT})}"


def _arguments_schema(tool: Tool) -> dict[str, Any]:
    parameters = tool.function.parameters or {"properties": {}}
    kinds = parameters.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise SettingError(
            f"tool {tool.function.name!r} cannot be called: its parameters are of the type {kinds!r}, and arguments are an object",
            hint='write its parameters as {"type": "object", "properties": {...}}',
            reason="parameters_no_object",
        )
    schema = {**parameters, "type": "object"}  # whatever else the schema would take: arguments are an object
    declared, required = schema.get("properties"), schema.get("required") or []
    brings_others = any(name in schema for name in _BRINGS_PROPERTIES)
    if isinstance(declared, dict) and isinstance(required, list) and not brings_others and all(name in declared for name in required):
        schema.setdefault("additionalProperties", False)  # a forced call invents no arguments
    return schema
