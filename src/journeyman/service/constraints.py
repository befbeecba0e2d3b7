"""The grammar that a chat request puts on its reply: a JSON schema, a required tool call, or either. Not for compiling grammars."""

from __future__ import annotations

import json
from typing import Any

from journeyman.chat.reply import CALL_CLOSE, CALL_OPEN
from journeyman.errors import SettingError
from journeyman.service.requests import ChatRequest
from journeyman.types.messages import Tool
from journeyman.types.sampling import Grammar, JsonSchemaGrammar, LarkGrammar

# Small models pad JSON with endless whitespace when they may; this is how calls are written in training, too.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Where one of these stands beside `properties`, other properties than those may be called for.
_BRINGS_PROPERTIES = ("$ref", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "dependentSchemas", "unevaluatedProperties")


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
