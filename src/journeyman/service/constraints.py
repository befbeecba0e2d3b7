"""The grammar that a chat request puts on its reply: a JSON schema, a required tool call, or either. Not for compiling grammars."""

from __future__ import annotations

import json
from typing import Any

from journeyman.chat.tool_calls import CLOSE, OPEN
from journeyman.service.requests import ChatRequest
from journeyman.types.messages import Tool
from journeyman.types.sampling import Grammar, JsonSchemaGrammar, LarkGrammar

# Small models pad JSON with endless whitespace when they may; this is how calls are written in training, too.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


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
    # One rule a tool: references inside a tool's schema are resolved from the root of its own rule.
    names = [f"call_{number}" for number in range(len(tools))]
    rules = [f"{name}: {_json_rule(_call_schema(tool))}" for name, tool in zip(names, tools, strict=True)]
    return "\n".join([f'call: "{OPEN}" ({" | ".join(names)}) "{CLOSE}"', *rules])


def _json_rule(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _COMPACT})}"


def _call_schema(tool: Tool) -> dict[str, Any]:
    parameters = dict(tool.function.parameters) or {"type": "object", "properties": {}, "additionalProperties": False}
    if "properties" in parameters:
        parameters.setdefault("additionalProperties", False)  # a forced call invents no arguments
    # A tool's own definitions are found from the root of the schema that its references stand in.
    definitions: dict[str, Any] = {key: parameters.pop(key) for key in ("$defs", "definitions") if key in parameters}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **definitions,
    }
