"""Tools of an MCP server as a model is offered them, and which of them only read. Calls none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from journeyman.config import command_line
from journeyman.errors import McpError, SettingError
from journeyman.mcp.schemas import SchemaFaultError, clean_schema
from journeyman.types.messages import Tool, ToolFunction
from journeyman.types.record import Record

Decided = Literal["says_reads", "says_writes", "says_nothing", "named_by_user"]
"""Why a tool counts as one that only reads (`says_reads`, `named_by_user`), or as one that may change something (the others)."""

# Only for advice: nothing is called because of its name.
_READ_VERBS = frozenset(
    "calculate compare compute convert count describe diff echo explain fetch find get inspect list lookup measure "
    "parse preview query read retrieve search show summarize translate validate verify view".split()
)
_WRITE_WORDS = frozenset(
    "add and append apply approve archive assign ban book buy cancel charge clear close commit create delete deploy destroy disable drop "
    "edit enable erase exec execute format grant insert install kill lock mark merge modify move or overwrite patch pay post publish purge "
    "push put reboot refund register reject release remove rename replace reset restart restore revoke run save schedule send set "
    "shutdown start stop store submit sync terminate then transfer truncate undo uninstall unlock update upload upsert wipe wire "
    "write".split()
)

WHY: Final[Mapping[Decided, str]] = {
    "says_reads": "the server says that it only reads",
    "says_writes": "the server says that it may change something",
    "says_nothing": "the server does not say that it only reads",
    "named_by_user": "it was named as one that only reads",
}


# What the schemas `true` and `false` say.
_WHOLE_OR_NOTHING: Final[Mapping[bool, dict[str, Any]]] = {True: {}, False: {"not": {}}}


class McpTool(Record):
    """A tool of a server.

    Attributes:
        name: as the model sees it: only characters that OpenAI's API allows, unique on this server.
        server_name: as the server calls it.
        parameters: cleaned JSON schema of the arguments (see `schemas.clean_schema`).
        is_read_only: calling it changes nothing, by the server's own word or by the user's. A tool that nobody vouches for writes.
        is_destructive: it may destroy what is there, which every tool may that neither only reads nor says that it only adds.
        decided: why `is_read_only` is what it is.
        problem: why it cannot be used; None when it can.
    """

    name: str
    server_name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    is_read_only: bool = False
    is_destructive: bool = True
    decided: Decided = "says_nothing"
    problem: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, data: Any) -> Any:
        """Kept tasks of runs that began before `decided` was kept: what is called is decided anew, from what the server says now."""
        return {name: value for name, value in data.items() if name != "is_annotated"} if isinstance(data, dict) else data

    @property
    def function(self) -> Tool:
        """The tool in OpenAI's shape."""
        return Tool(function=ToolFunction(name=self.name, description=self.description, parameters=self.parameters))

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        schemas = self.parameters.get("properties") or {}
        return {name: schema if isinstance(schema, dict) else _WHOLE_OR_NOTHING[bool(schema)] for name, schema in schemas.items()}

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("required") or ())


def describe_tool(
    server_name: str,
    description: str | None,
    schema: Any,
    hints: tuple[object, object],
    taken: Iterable[str] = (),
    problem: str | None = None,
) -> McpTool:
    """A tool from what the server lists.

    Args:
        hints: its annotations `readOnlyHint` and `destructiveHint` as they came; only true and false count.
        taken: names that the model's name must differ from.
        problem: why it cannot be used, where that is known already.
    """
    read_only, destructive = (hint if isinstance(hint, bool) else None for hint in hints)
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    try:
        parameters = clean_schema(schema)
    except SchemaFaultError as error:
        problem = problem or f"unusable schema: {error}"
    # The specification's defaults: a tool writes unless it says otherwise, and one that only reads destroys nothing whatever else it says.
    decided: Decided = "says_nothing" if read_only is None else "says_reads" if read_only else "says_writes"
    return McpTool(
        name=model_name(server_name, taken),
        server_name=server_name,
        description=(description or "").strip(),
        parameters=parameters,
        is_read_only=decided == "says_reads",
        is_destructive=not read_only and destructive is not False,
        decided=decided,
        problem=problem,
    )


def model_name(name: str, taken: Iterable[str] = ()) -> str:
    """A tool's name in OpenAI's characters (`[A-Za-z0-9_-]`, at most 64), different from those taken."""
    base = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "tool"
    used = set(taken)
    unique, number = base, 2
    while unique in used:
        unique = f"{base[:60]}_{number}"
        number += 1
    return unique


def split_identifier(name: str) -> list[str]:
    """The words of a snake_case, kebab-case or camelCase name, in lower case.

    Example:
        >>> split_identifier("getUserName_v2")
        ['get', 'user', 'name', 'v2']
    """
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.casefold() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def looks_read_only(name: str) -> bool:
    """A guess from a name, for advice and never acted on: its first word is a verb of reading, and no word one of changing,
    or one that joins two doings.

    Example:
        >>> looks_read_only("search_orders"), looks_read_only("get_and_delete"), looks_read_only("calculator")
        (True, False, False)
    """
    words = split_identifier(name)
    return bool(words) and words[0] in _READ_VERBS and not _WRITE_WORDS.intersection(words)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The tools to work with, and a note for what is left out and why."""

    tools: tuple[McpTool, ...]
    notes: tuple[str, ...]


def choose_tools(
    tools: Sequence[McpTool],
    label: str,
    names: Sequence[str] | None = None,
    *,
    read_only: Sequence[str] = (),
    allow_writes: bool = False,
) -> ToolChoice:
    """The tools to work with: those named (all when None) that only read, or all of them with `allow_writes`. The one place where it is
    decided what may be called.

    Args:
        label: how the server is named in messages.
        read_only: names of tools that only read, by the user's word, where the server does not say so.

    Raises:
        McpError: no_tools; only_write_tools (none that may be called is left); write_tools (one that was named may not be called);
            invalid_schema (one that was named cannot be used, or none can).
        SettingError: unknown_tool (a name that the server does not have); says_it_writes (`read_only` names one of which the server says
            that it writes).
    """
    if not tools:
        raise McpError(
            "no_tools", f"the MCP server {label} offers no tools", hint="check that it is the right server and that it is set up"
        )
    tools = vouched_for(tools, label, read_only)
    known = {name: tool for tool in tools for name in (tool.name, tool.server_name)}
    _refuse_unknown("--tools", names or (), known, label)
    chosen = list({known[name].name: known[name] for name in names}.values()) if names else list(tools)
    sound = [tool for tool in chosen if tool.problem is None]
    if not sound or (names and len(sound) < len(chosen)):
        raise _cannot_be_used(chosen, sound, label)
    callable_tools = [tool for tool in sound if tool.is_read_only or allow_writes]
    writes = [tool for tool in sound if tool not in callable_tools]
    if not callable_tools or (names and writes):
        raise _may_not_be_called(writes, callable_tools, label)
    notes = [f"tool {tool.server_name!r} is left out: {tool.problem}" for tool in chosen if tool.problem is not None]
    if writes:
        notes.append(f"not called, because they may change something: {_names(writes)} (add {what_to_add(writes)})")
    return ToolChoice(tuple(callable_tools), tuple(notes))


def vouched_for(tools: Sequence[McpTool], label: str, read_only: Sequence[str]) -> list[McpTool]:
    """The tools, those that the user names counted as reading. Raises SettingError: unknown_tool, says_it_writes."""
    known = {name: tool for tool in tools for name in (tool.name, tool.server_name)}
    _refuse_unknown("--read-only", read_only, known, label)
    named = {known[name].server_name for name in read_only}
    denied = [tool for tool in tools if tool.server_name in named and tool.decided == "says_writes"]
    if denied:
        raise SettingError(
            f"--read-only names {_names(denied)}, of which the MCP server {label} says itself that it may change something",
            hint=f"if that is fine (a scratch copy of the data): --tools {_listed(denied)} --allow-writes",
            reason="says_it_writes",
        )
    vouched = {"is_read_only": True, "is_destructive": False, "decided": "named_by_user"}
    return [tool.model_copy(update=vouched) if tool.server_name in named and not tool.is_read_only else tool for tool in tools]


def _refuse_unknown(option: str, names: Sequence[str], known: Mapping[str, McpTool], label: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        there = ", ".join(dict.fromkeys(tool.server_name for tool in known.values()))
        raise SettingError(
            f"{option}: the MCP server {label} has no tool {', '.join(unknown)}",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"it has: {there}",
            reason="unknown_tool",
        )


def _cannot_be_used(chosen: Sequence[McpTool], sound: Sequence[McpTool], label: str) -> McpError:
    bad = [tool for tool in chosen if tool.problem is not None]
    what = "; ".join(f"tool {tool.server_name!r}: {tool.problem}" for tool in bad[:3])
    return McpError(
        "invalid_schema",
        f"{len(bad)} of the tools of the MCP server {label} cannot be used: {what}",
        hint=f"leave it out: --tools {_listed(sound)}" if sound else "correct it in the server",
    )


def _may_not_be_called(writes: Sequence[McpTool], callable_tools: Sequence[McpTool], label: str) -> McpError:
    where = ("--url" if label.startswith(("http://", "https://")) else "--server", label)
    likely = _likely(writes)
    words = ("--read-only", _listed(likely)) if likely else ("--tools", _listed([*callable_tools, *writes]), "--allow-writes")
    return McpError(
        "write_tools" if callable_tools else "only_write_tools",
        f"tools of the MCP server {label} that may change something are not called: {_names(writes)}",
        hint=f"add {what_to_add(writes)}; for example: {command_line('mcp', 'train', *where, *words)}",
    )


def what_to_add(writes: Sequence[McpTool]) -> str:
    """The options with which tools that may change something are called all the same."""
    likely, silent = _likely(writes), [tool for tool in writes if tool.decided != "says_writes"]
    ways = [f"--read-only {_listed(likely)} (looks read-only)"] if likely else []
    if silent and not likely:
        ways.append("--read-only NAME for one that only reads")
    return " or ".join([*ways, f"--tools {_listed(writes)} --allow-writes (called for real: give a scratch copy of the data)"])


def _likely(tools: Sequence[McpTool]) -> list[McpTool]:
    return [tool for tool in tools if tool.decided == "says_nothing" and looks_read_only(tool.server_name)]


def _listed(tools: Sequence[McpTool]) -> str:
    """As an option takes them: by the model's name where the server's has a comma, a blank or another sign that would not survive."""
    return ",".join(tool.server_name if re.fullmatch(r"[\w./:-]+", tool.server_name) else tool.name for tool in tools)


def _names(tools: Sequence[McpTool]) -> str:
    return ", ".join(tool.server_name for tool in tools)
