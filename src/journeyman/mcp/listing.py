"""What a server lists as its tools, read one by one: a tool that is odd is left out by name, and the others work.

The MCP library takes a page of tools as a whole or not at all. So the page is read here on its way to it (`repair`), and what goes on
holds only what it needs to send calls. Not for choosing among the tools (`tools.choose_tools`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from journeyman.mcp.schemas import SchemaFaultError, fits, resolved
from journeyman.mcp.tools import McpTool, describe_tool

MAX_PAGES = 100
MAX_TOOLS = 1000
_MAX_NAME_CHARS = 1000
_MAX_BARREN_PAGES = 3
_TOO_MANY = f"at most {MAX_PAGES} pages and {MAX_TOOLS} tools are read"
_HEADER_MARK = '"x-mcp-header"'


class Listing:
    """The tools of a server, page by page: each once, in the order listed.

    Attributes:
        cursor: of the page to ask for next; None when there is none.
        notes: what is odd about the list as a whole.
    """

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.notes: list[str] = []
        self._entries: dict[str, Any] = {}
        self._problems: dict[str, str] = {}
        self._cursors: set[str] = set()
        self._fit: set[str] = set()
        self._num_pages = 0
        self._num_barren = 0

    def take(self, page: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what a page says, and return it as the library can read it."""
        self._num_pages += 1
        entries = page.get("tools")
        if not isinstance(entries, list):
            self.notes.append(f"page {self._num_pages} of the list of tools is {type(entries).__name__}, not a list")
            entries = []
        num_before = len(self._entries)
        for number, entry in enumerate(entries):
            if len(self._entries) >= MAX_TOOLS:
                self.end(f"{len(entries) - number} more on it: {_TOO_MANY}")
                break
            self._keep(entry)
        else:
            self._num_barren = 0 if len(self._entries) > num_before else self._num_barren + 1
            self._go_on(page.get("nextCursor"))
        names = {entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)}
        self._fit = {name for name in names if name in self._entries and name not in self._problems}
        rest = {key: value for key, value in page.items() if key not in ("tools", "nextCursor")}
        return rest | {"tools": [_for_the_library(self._entries[name]) for name in sorted(self._fit)]}

    def end(self, why: str) -> None:
        """Ask for no further page, and note why."""
        self.cursor = None
        self.notes.append(f"the list of tools was read as far as its {self._num_pages}. page, {len(self._entries)} tools: {why}")

    def keep_only(self, names: set[str]) -> None:
        """What the library did not take of the last page cannot be called through it."""
        for name in self._fit - names:
            self._problems.setdefault(name, "the MCP library refuses it (an invalid x-mcp-header)")

    def tools(self) -> tuple[McpTool, ...]:
        """Those that were listed. No name that the model sees is another tool's on the server: a call means one tool."""
        taken: set[str] = set()
        found = []
        for name, entry in self._entries.items():
            notes = entry.get("annotations")
            notes = notes if isinstance(notes, dict) else {}
            description = entry.get("description")
            tool = describe_tool(
                name,
                description if isinstance(description, str) else "",
                entry.get("inputSchema"),
                (notes.get("readOnlyHint"), notes.get("destructiveHint")),
                taken | (self._entries.keys() - {name}),
                self._problems.get(name),
            )
            taken.add(tool.name)
            found.append(tool)
        return tuple(found)

    def result_fault(self, name: str, structured: Any) -> str | None:
        """Why a result is not what the tool's own outputSchema promises; None when it is, or nothing is promised."""
        schema = self._entries.get(name, {}).get("outputSchema")
        if not isinstance(schema, dict):
            return None
        if structured is None:
            return "it has an outputSchema and gave no structured content"
        return None if fits(schema)(structured) else "its structured content does not fit its outputSchema"

    def _keep(self, entry: Any) -> None:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME_CHARS:
            stand_in = f"(tool {len(self._entries) + 1}, without a name that can be used)"
            self._entries[stand_in] = entry if isinstance(entry, dict) else {}
            said = f"{name[:40]!r}…, {len(name)} characters" if isinstance(name, str) and name.strip() else repr(name)
            self._problems[stand_in] = f"its name is {said}" if isinstance(entry, dict) else f"it is {type(entry).__name__}, not an object"
            return
        if name in self._entries:
            if self._entries[name] != entry:
                self._problems[name] = "it is listed twice, in different words: nobody can say which one a call means"
            return
        self._entries[name] = entry
        if (problem := _problem(entry)) is not None:
            self._problems[name] = problem

    def _go_on(self, cursor: Any) -> None:
        """Whether there is another page worth asking for."""
        self.cursor = None
        if cursor is None or cursor == "":
            return
        if not isinstance(cursor, str):
            why = f"its cursor is {type(cursor).__name__}, not text"
        elif cursor in self._cursors:
            why = "its cursor came before"
        elif self._num_barren >= _MAX_BARREN_PAGES:
            why = f"{self._num_barren} pages in a row brought no new tool"
        elif self._num_pages >= MAX_PAGES or len(self._entries) >= MAX_TOOLS:
            why = _TOO_MANY
        else:
            self._cursors.add(cursor)
            self.cursor = cursor
            return
        self.end(why)


def _problem(entry: Mapping[str, Any]) -> str | None:
    """Why a tool cannot be used, beside what is wrong with its arguments."""
    if entry.get("inputSchema") is None:
        return "it has no inputSchema"
    schema = entry.get("outputSchema")
    try:
        if isinstance(schema, dict):
            resolved(schema)
        elif schema is not None:
            raise SchemaFaultError(f"it is {type(schema).__name__}, not an object")
    except SchemaFaultError as error:
        return f"unusable outputSchema: {error}"
    return None


def _for_the_library(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A tool with what the library acts upon: arguments that go into HTTP headers. Results are checked here (`Listing.result_fault`)."""
    schema = entry["inputSchema"]
    is_marked = isinstance(schema, dict) and _HEADER_MARK in json.dumps(schema)
    return {"name": entry["name"], "inputSchema": {**schema, "type": "object"} if is_marked else {"type": "object"}}
