"""Tools of an MCP server as a model is offered them, and which of them only read. Calls none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from journeyman.errors import McpError
from journeyman.scenarios.schemas import SchemaFaultError, clean_schema
from journeyman.scenarios.words import split_identifier
from journeyman.types.messages import Tool, ToolFunction
from journeyman.types.record import Record

_WRITE_WORDS = (
    "add append apply approve archive assign attach book buy cancel clear clone close commit copy create deactivate delete deploy destroy "
    "disable drop edit enable erase exec execute grant import insert install invite kill lock make merge modify move mutate notify open "
    "order overwrite patch pay post publish purge push put rebase register reject release remove rename replace reset restart restore "
    "revert revoke rotate run save schedule send set sign start stop store submit subscribe sync terminate transfer trigger truncate "
    "undo uninstall unlock update upload upsert wipe write"
)
_READ_WORDS = (
    "calculate check compare compute convert count describe diff download echo evaluate explain fetch find format get inspect list load "
    "lookup measure parse ping preview query read resolve retrieve search select show status summarize tell test translate validate "
    "verify view"
)
_WRITE_VERBS = frozenset(_WRITE_WORDS.split())
_READ_VERBS = frozenset(_READ_WORDS.split())


class McpTool(Record):
    """A tool of a server.

    Attributes:
        name: as the model sees it: only characters that OpenAI's API allows, unique on this server.
        server_name: as the server calls it.
        parameters: cleaned JSON schema of the arguments (see `schemas.clean_schema`).
        is_read_only: calling it changes nothing, by its annotation or, without one, by its name and description.
        is_annotated: the server says itself whether the tool only reads.
        problem: why its schema cannot be used; None when it can.
    """

    name: str
    server_name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    is_read_only: bool = True
    is_destructive: bool = False
    is_annotated: bool = False
    problem: str | None = None

    @property
    def function(self) -> Tool:
        """The tool in OpenAI's shape."""
        return Tool(function=ToolFunction(name=self.name, description=self.description, parameters=self.parameters))

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        found = self.parameters.get("properties") or {}
        return {name: schema if isinstance(schema, dict) else {} for name, schema in found.items()}

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("required") or ())


def describe_tool(
    server_name: str, description: str | None, schema: Any, hints: tuple[bool | None, bool | None], taken: Iterable[str] = ()
) -> McpTool:
    """A tool from what the server lists. `hints` are its read-only and destructive annotations, None where not given."""
    read_only, destructive = hints
    text = (description or "").strip()
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    problem = None
    try:
        parameters = clean_schema(schema)
    except SchemaFaultError as error:
        problem = str(error)
    return McpTool(
        name=model_name(server_name, taken),
        server_name=server_name,
        description=text,
        parameters=parameters,
        is_read_only=looks_read_only(server_name, text, parameters) if read_only is None else read_only,
        is_destructive=bool(destructive) and not read_only,
        is_annotated=read_only is not None,
        problem=problem,
    )


def model_name(name: str, taken: Iterable[str] = ()) -> str:
    """A tool's name in OpenAI's characters (`[A-Za-z0-9_-]`, at most 64), different from those taken."""
    base = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "tool"
    used = set(taken)
    found, number = base, 2
    while found in used:
        found = f"{base[:60]}_{number}"
        number += 1
    return found


def looks_read_only(name: str, description: str, parameters: dict[str, Any]) -> bool:
    """A guess for a tool without annotations: a verb that changes things, in its name or at the head of its description, makes it one
    that writes. "add" of numbers only is arithmetic."""
    words = set(split_identifier(name))
    writes = words & _WRITE_VERBS
    properties = parameters.get("properties") or {}
    is_numeric = bool(properties) and all(
        isinstance(schema, dict) and schema.get("type") in ("number", "integer") for schema in properties.values()
    )
    if writes == {"add"} and is_numeric:
        return True
    if writes:
        return False
    if words & _READ_VERBS:
        return True
    first = re.match(r"[A-Za-z]+", description)
    verb = first.group(0).casefold() if first else ""
    return not any(form in _WRITE_VERBS for form in (verb, verb.removesuffix("s"), verb.removesuffix("es"), verb.removesuffix("d")))


def usable_tools(tools: Sequence[McpTool], label: str, names: Sequence[str] | None = None, *, allow_writes: bool = False) -> list[McpTool]:
    """The tools to train with: those named (all when None) that read only, or all of them with `allow_writes`.

    Raises McpError: no_tools, only_write_tools, invalid_schema (names the tool), failed (a name the server does not have).
    """
    if not tools:
        raise McpError(
            "no_tools", f"the MCP server {label} offers no tools", hint="check that it is the right server and that it is set up"
        )
    known = {name: tool for tool in tools for name in (tool.name, tool.server_name)}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise McpError(
            "failed",
            f"the MCP server {label} has no tool {', '.join(unknown)}",
            hint=f"it has: {', '.join(tool.name for tool in tools)}",
        )
    chosen = list(dict.fromkeys(known[name].name for name in names)) if names else [tool.name for tool in tools]
    found = [tool for tool in tools if tool.name in chosen and (allow_writes or (tool.is_read_only and not tool.is_destructive))]
    if not found:
        raise McpError(
            "only_write_tools",
            f"every tool of the MCP server {label} may change something: {', '.join(chosen)}",
            hint="if that is fine (a scratch copy of the data), pass --allow-writes; they are then really called",
        )
    for tool in found:
        if tool.problem is not None:
            others = ",".join(other.name for other in found if other.problem is None)
            raise McpError(
                "invalid_schema",
                f"tool {tool.server_name!r} of the MCP server {label} has an unusable argument schema: {tool.problem}",
                hint=f"leave it out: --tools {others}" if others else "correct the schema in the server",
            )
    return found
