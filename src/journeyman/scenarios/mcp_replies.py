"""Replies of an MCP server over stdio that the library cannot read: half characters, deep or huge values, no result. It would drop them,
and the call would wait for its whole timeout. Such a reply is mended, or ends its call with an error. Not for lines that are no replies.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from journeyman.types.json_text import well_formed

_HEAD = re.compile(r'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d+)\s*,\s*"(?:result|error)"\s*:')
_TAIL = re.compile(r'"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d+)\s*\}\s*$')
_NUM_LOOKED_AT = 200  # characters at either end of a reply that is no JSON
_PARSE_ERROR = -32700


@contextlib.asynccontextmanager
async def readable_replies(transport: Any) -> AsyncIterator[Any]:
    """A transport of the library whose unreadable replies are mended or errors of their calls."""
    async with transport as (read, *others):
        yield _Replies(read), *others


class _Replies:
    """The stream of what a server sends."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> _Replies:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stream.__aexit__(*error)

    def __aiter__(self) -> _Replies:
        return self

    async def __anext__(self) -> Any:
        item = await self._stream.__anext__()
        return _mended(item) if isinstance(item, ValidationError) else item


def _mended(error: ValidationError) -> Any:
    """A message for the call that the reply was meant for; the error itself where there is none."""
    from mcp import types
    from mcp.shared.message import SessionMessage

    reply = _reply_of(error)
    if reply is None:
        return error
    fault = {"code": _PARSE_ERROR, "message": f"unusable reply: {error.errors(include_url=False)[0]['msg']}"}
    messages: TypeAdapter[Any] = TypeAdapter(types.JSONRPCMessage)
    for candidate in (reply, {"jsonrpc": "2.0", "id": reply["id"], "error": fault}):
        with contextlib.suppress(ValueError, RecursionError):
            return SessionMessage(messages.validate_json(well_formed(json.dumps(candidate, ensure_ascii=False)), by_name=False))
    return error


def _reply_of(error: ValidationError) -> dict[str, Any] | None:
    """The reply, or as much of it as could be read; None for what is no reply."""
    for given in (fault["input"] for fault in error.errors(include_url=False)):
        found = _read(given) if isinstance(given, str) else given
        if isinstance(found, dict) and isinstance(found.get("id"), int | str) and "method" not in found and "jsonrpc" in found:
            return found
    return None


def _read(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # no JSON, numbers of thousands of digits, or too deep
        found = _HEAD.match(line) or _TAIL.search(line[-_NUM_LOOKED_AT:])
        return found and {"jsonrpc": "2.0", "id": int(found[1])}
