"""What an MCP server sends, made such as the library can read: it drops a message, a page of tools or the connection for one odd sign.

Texts are repaired before they are parsed (`repaired_json`), messages after (`RepairedStream`). A page of tools is read here on its way to
the library (`Listing`): an odd tool is left out by name, the others work, and what goes on holds only what the library needs to send
calls. Not for choosing among the tools (`tools.choose_tools`).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from journeyman.mcp.schemas import SchemaFaultError, fits, resolved
from journeyman.mcp.tools import McpTool, describe_tool
from journeyman.types.json_text import MAX_DEPTH, well_formed

MAX_PAGES = 100
MAX_TOOLS = 1000
_MAX_NAME_CHARS = 1000
_MAX_BARREN_PAGES = 3
_TOO_MANY = f"at most {MAX_PAGES} pages and {MAX_TOOLS} tools are read"
_HEADER_MARK = '"x-mcp-header"'
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_TOO_DEEP = '"(left out: nested too deep)"'
_MAX_DIGITS = 300  # of a whole number: a longer one is no float either
_INTERNAL_ERROR = -32603


@contextlib.asynccontextmanager
async def repaired(transport: Any, listing: Listing) -> AsyncIterator[tuple[Any, Any]]:
    """A transport of the library, both versions of it, with its read side mended."""
    async with transport as (read, write, *_):
        yield RepairedStream(read, listing), write


class RepairedStream:
    """The read side of a transport, whose messages the library can read, whatever the server sends.

    A page of tools goes through `listing`; of a call's result goes what is null and what nobody reads, and without content it gets an empty
    one. An answer that is none becomes an error for whoever waits for it.
    """

    def __init__(self, stream: Any, listing: Listing) -> None:
        self._stream = stream
        self._listing = listing

    def _repaired(self, item: Any) -> Any:
        item = _read_again(item) if isinstance(item, ValidationError) else item
        message = getattr(item, "message", None)
        result = getattr(getattr(message, "root", message), "result", None)
        if isinstance(result, dict):
            mended = self._listing.take(result) if "tools" in result and "content" not in result else _repaired_result(result)
            result.clear()
            result.update(mended)
        return item

    async def receive(self) -> Any:
        return self._repaired(await self._stream.receive())

    async def __anext__(self) -> Any:
        return self._repaired(await self._stream.__anext__())

    def __aiter__(self) -> RepairedStream:
        return self

    async def __aenter__(self) -> RepairedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> bool | None:
        is_handled: bool | None = await self._stream.__aexit__(*failure)
        return is_handled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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


def repaired_json(raw: bytes) -> bytes:
    """A JSON text that the library can read; as it was where it can be read, or cannot be mended.

    Example:
        >>> repaired_json(b'{"text": "half \\\\ud83d"}')
        b'{"text": "half \\\\ufffd"}'
    """
    with contextlib.suppress(ValueError):
        from_json(raw)
        return raw
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(_read_leniently(raw.decode("utf-8", "replace"))).encode()
    return raw


def _read_leniently(text: str) -> Any:
    """What a text says that is JSON but for what many programs write: half of a character, a control character or a byte order mark as it
    is, a number that no float can be (here infinity), more levels than anybody can check (here a text). Raises ValueError."""
    read = json.loads(
        _cut(text.lstrip("\ufeff \t")), strict=False, parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else math.inf
    )
    return _well_formed(read)


def _cut(text: str) -> str:
    """A JSON text without what stands below `MAX_DEPTH` levels."""
    kept, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[start : token.start()] + _TOO_DEEP)
        elif token[0] in "]}":
            if depth == MAX_DEPTH + 1:
                start = token.end()
            depth -= 1
    return "".join(kept) + text[start:]


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed(part) for part in value]
    return {well_formed(key): _well_formed(part) for key, part in value.items()} if isinstance(value, dict) else value


def repair_bodies(client: Any, library: Any) -> None:
    """Put `repaired_json` before what an HTTP client of `library` reads: whole bodies, and events one by one."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, body: Any, is_events: bool) -> None:
            self.body, self.is_events = body, is_events

        async def __aiter__(self) -> AsyncIterator[bytes]:
            rest = b""
            async for chunk in self.body:
                rest += chunk
                if self.is_events:
                    lines = rest.splitlines(keepends=True)
                    rest = b"" if rest.endswith((b"\r", b"\n")) else lines.pop()
                    for line in lines:
                        yield _repaired_line(line)
            yield _repaired_line(rest) if self.is_events else repaired_json(rest)

        async def aclose(self) -> None:
            await self.body.aclose()

    async def repair(response: Any) -> None:
        kind = response.headers.get("content-type", "").lower()
        if kind.startswith(("application/json", "text/event-stream")) and "content-encoding" not in response.headers:
            response.stream = Body(response.stream, kind.startswith("text"))

    client.headers["accept-encoding"] = "identity"
    client.event_hooks["response"].append(repair)


def _repaired_line(line: bytes) -> bytes:
    text = line.rstrip(b"\r\n")
    return b"data:" + repaired_json(text[5:]) + line[len(text) :] if text.startswith(b"data:") else line


def _repaired_result(result: dict[str, Any]) -> dict[str, Any]:
    repaired_result = {key: value for key, value in result.items() if value is not None}
    if "structuredContent" in repaired_result:
        repaired_result.setdefault("content", [])
    if isinstance(content := repaired_result.get("content"), list):
        repaired_result["content"] = [_without_remarks(block) if isinstance(block, dict) else block for block in content]
    return repaired_result


def _without_remarks(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in ("annotations", "_meta")}


def _read_again(failure: ValidationError) -> Any:
    """The message that the library could not read, or an error in its place; the failure itself where nobody waits for it."""
    import mcp.types
    from mcp.shared.message import SessionMessage

    faults = failure.errors()
    try:
        is_text = faults[0]["type"] == "json_invalid"
        inputs = [_read_leniently(faults[0]["input"])] if is_text else [fault["input"] for fault in faults]
    except (ValueError, TypeError, RecursionError):
        return failure
    whole = next((value for value in inputs if isinstance(value, dict) and "jsonrpc" in value), {})
    why = f"an answer that is none: its result is {type(whole.get('result')).__name__}, not an object"
    refusal = {"jsonrpc": "2.0", "id": whole.get("id"), "error": {"code": _INTERNAL_ERROR, "message": why}}
    types: Any = mcp.types
    for message in (whole, refusal) if "id" in whole and "method" not in whole else (whole,):
        with contextlib.suppress(ValueError):
            if hasattr(types, "jsonrpc_message_adapter"):
                return SessionMessage(types.jsonrpc_message_adapter.validate_python(message, by_name=False))
            return SessionMessage(types.JSONRPCMessage.model_validate(message))
    return failure
