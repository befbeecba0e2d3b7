"""What an MCP server sends, made such as the library can read: it drops a message, or the connection, for one odd sign in it.

Texts are mended before they are parsed (`repaired_json`), messages after (`RepairedStream`). Not for which tools are listed (`listing`).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from journeyman.mcp.listing import Listing
from journeyman.types.json_text import MAX_DEPTH, well_formed

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_TOO_DEEP = '"(left out: nested too deep)"'
_MAX_DIGITS = 300  # of a whole number: a longer one is no float either
_INTERNAL_ERROR = -32603


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
        return [_well_formed(one) for one in value]
    return {well_formed(key): _well_formed(one) for key, one in value.items()} if isinstance(value, dict) else value


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
        found: bool | None = await self._stream.__aexit__(*failure)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _repaired_result(result: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in result.items() if value is not None}
    if "structuredContent" in found:
        found.setdefault("content", [])
    if isinstance(content := found.get("content"), list):
        found["content"] = [_without_remarks(block) if isinstance(block, dict) else block for block in content]
    return found


def _without_remarks(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in ("annotations", "_meta")}


def _read_again(failure: ValidationError) -> Any:
    """The message that the library could not read, or an error in its place; the failure itself where nobody waits for it."""
    import mcp.types
    from mcp.shared.message import SessionMessage

    faults = failure.errors()
    try:
        is_text = faults[0]["type"] == "json_invalid"
        given = [_read_leniently(faults[0]["input"])] if is_text else [fault["input"] for fault in faults]
    except (ValueError, TypeError, RecursionError):
        return failure
    whole = next((one for one in given if isinstance(one, dict) and "jsonrpc" in one), {})
    why = f"an answer that is none: its result is {type(whole.get('result')).__name__}, not an object"
    refusal = {"jsonrpc": "2.0", "id": whole.get("id"), "error": {"code": _INTERNAL_ERROR, "message": why}}
    types: Any = mcp.types
    for message in (whole, refusal) if "method" not in whole else (whole,):
        with contextlib.suppress(ValueError):
            if hasattr(types, "jsonrpc_message_adapter"):
                return SessionMessage(types.jsonrpc_message_adapter.validate_python(message, by_name=False))
            return SessionMessage(types.JSONRPCMessage.model_validate(message))
    return failure


@contextlib.asynccontextmanager
async def repaired(transport: Any, listing: Listing) -> AsyncIterator[tuple[Any, Any]]:
    """A transport of the library, both versions of it, with its read side mended."""
    async with transport as (read, write, *_):
        yield RepairedStream(read, listing), write
