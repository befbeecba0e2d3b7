"""One connection to an MCP server over stdio or streamable HTTP, with mcp 1.24 to 2.x behind one face.

Each connection has one owner task that opens and closes it (the library demands the same task for both); calls may run at the same
time from any task. Everything that goes wrong is an McpError with a reason, the command or URL, what happened and the end of the
server's own log. `mcp` is imported when a server is opened, not before. Not for choosing tools or values.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from journeyman.errors import McpError
from journeyman.mcp.failures import (
    connect_failure,
    first_leaf,
    has_no_such_method,
    is_closed,
    is_timeout,
    open_mcp_http_client,
    preflight,
    read_tail,
    shorten,
)
from journeyman.mcp.messages import Listing, repaired
from journeyman.mcp.results import ToolResult, field_of, read_result, shown
from journeyman.mcp.target import McpTarget, RevealedTarget
from journeyman.mcp.tools import McpTool

CLOSE_TIMEOUT_SECONDS = 10.0


class McpServer:
    """An open connection. Made by `open_server` only. `notes`: what is odd about its list of tools as a whole."""

    def __init__(self, target: McpTarget, log_path: Path | None) -> None:
        self.target = target
        self.log_path = log_path
        self.tools: tuple[McpTool, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._listing = Listing()
        self._client: Any = None
        self._death: McpError | None = None
        self._junk: list[str] = []

    @property
    def is_alive(self) -> bool:
        return self._client is not None and self._death is None

    def tool(self, name: str) -> McpTool | None:
        """The tool of that name, as the model or as the server spells it."""
        return next((tool for tool in self.tools if name in (tool.name, tool.server_name)), None)

    async def call(self, name: str, arguments: dict[str, Any], timeout_seconds: float = 60.0) -> ToolResult:
        """Call a tool. What the tool (or the protocol) says went wrong is a result with `is_error`.

        Raises McpError: died (the server is gone), call_timeout (the connection stays usable).
        """
        if self._client is None or self._death is not None:
            raise self._death or self._died("the connection is closed")
        tool = self.tool(name)
        server_name = tool.server_name if tool else name
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_seconds + 5.0):
                result = await self._client.call_tool(server_name, arguments, read_timeout_seconds=_duration(timeout_seconds))
        except TimeoutError as error:
            raise self._call_timeout(name, timeout_seconds) from error
        except _protocol_error() as error:
            if is_timeout(error):
                raise self._call_timeout(name, timeout_seconds) from error
            if is_closed(error):
                self._death = self._died(f"it died while {name!r} ran")
                raise self._death from error
            return ToolResult(shown(str(error)), True, time.perf_counter() - started)
        except _stream_errors() as error:
            self._death = self._died(f"it died while {name!r} ran")
            raise self._death from error
        except (RuntimeError, ValueError) as error:
            # The library checks the form of results; a server that breaks it is the tool's failure.
            return ToolResult(shown(f"unusable result: {shorten(str(error))}"), True, time.perf_counter() - started)
        answer = read_result(result, time.perf_counter() - started)
        fault = None if answer.is_error else self._listing.result_fault(server_name, field_of(result, "structured_content"))
        return answer if fault is None else ToolResult(shown(f"unusable result: {fault}"), True, answer.seconds)

    def _call_timeout(self, name: str, seconds: float) -> McpError:
        return McpError(
            "call_timeout",
            f"tool {name!r} of the MCP server {self.target.label} gave no result within {seconds:g} s",
            hint="the tool is slow or hangs: leave it out (--tools), or raise the timeout of a call (call_timeout_seconds)",
        )

    def _died(self, what: str) -> McpError:
        tail = read_tail(self.log_path)
        return McpError("died", f"the MCP server {self.target.label} is gone: {what}{tail}", hint="run its command by hand to see why")

    async def _note_message(self, message: Any) -> None:
        """Lines on stdout that are no protocol messages arrive as exceptions."""
        if isinstance(message, Exception) and len(self._junk) < 5:
            self._junk.append(str(message.errors()[0]["input"] if isinstance(message, ValidationError) else message))

    async def _list_tools(self, client: Any, timeout_seconds: float) -> None:
        """Ask for page after page; what they hold is read on the way (`listing`). What keeps the first page away fails the connection;
        what goes wrong later only ends the list."""
        try:
            await self._list_page(client, None)
        except _protocol_error() as error:
            if not has_no_such_method(error):  # a server may have no tools at all
                raise
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._listing.cursor is not None:
                    await self._list_page(client, self._listing.cursor)
        except TimeoutError:
            self._listing.end(f"no further page came within {timeout_seconds:g} s")
        except (_protocol_error(), RuntimeError, ValueError) as error:
            if is_closed(error):
                raise
            self._listing.end(f"the next one is an error: {shorten(str(error))}")
        self.tools, self.notes = self._listing.tools(), tuple(self._listing.notes)

    async def _list_page(self, client: Any, cursor: str | None) -> None:
        page = await client.list_tools(cursor=cursor)
        self._listing.keep_only({tool.name for tool in page.tools})

    async def _own(self, ready: asyncio.Future[None], stop: asyncio.Event, timeout_seconds: float) -> None:
        """The owner task: open, list the tools, wait for the stop, close."""
        try:
            with contextlib.ExitStack() as files:
                log = files.enter_context(self.log_path.open("a")) if self.log_path else None
                async with asyncio.timeout(None) as limit:
                    limit.reschedule(asyncio.get_running_loop().time() + timeout_seconds)
                    async with _connect(self.target, log, timeout_seconds, self._note_message, self._listing) as client:
                        await self._list_tools(client, timeout_seconds / 3)
                        limit.reschedule(None)
                        self._client = client
                        ready.set_result(None)
                        await stop.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the top handler of the owner task: whatever ends a connection is reported
            failure = connect_failure(self.target, first_leaf(error), timeout_seconds, self.log_path, self._junk)
            if not ready.done():
                ready.set_exception(failure)
            elif not stop.is_set():
                self._death = self._died(failure.message)
        finally:
            self._client = None


@contextlib.asynccontextmanager
async def open_server(
    target: McpTarget, *, log_folder: Path | None = None, start_timeout_seconds: float | None = None
) -> AsyncIterator[McpServer]:
    """Start or reach a server and list its tools; it is stopped on leaving.

    Args:
        log_folder: where the server's stderr goes, as `mcp-server-*.log`; a temporary folder by default.
        start_timeout_seconds: the target's own when None.

    Raises SettingError: secret_missing, secret_not_set (a secret of the target is not known), malformed_key, bad_proxy. McpError:
    command_not_found, exited_at_start, junk_on_stdout, handshake_timeout, connection_refused, unauthorized, wrong_path, redirected, failed.
    """
    target.revealed()  # a secret that is not known fails before anything is started
    if target.url is not None:
        await preflight(target)
    with contextlib.ExitStack() as files:
        log_path = None
        if target.command is not None:
            target.program()
            folder = log_folder or Path(files.enter_context(tempfile.TemporaryDirectory(prefix="journeyman-mcp-")))
            folder.mkdir(parents=True, exist_ok=True)
            log_path = _new_log(folder)
        server = McpServer(target, log_path)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        owner = asyncio.create_task(
            server._own(ready, stop, start_timeout_seconds or target.start_timeout_seconds), name=f"mcp {target.label}"
        )
        try:
            await asyncio.wait([ready, owner], return_when=asyncio.FIRST_COMPLETED)
            await ready
            yield server
        finally:
            stop.set()
            if not ready.done():
                ready.cancel()
                owner.cancel()
            await _end(owner)


async def _end(owner: asyncio.Task[None]) -> None:
    """Give the owner its time to close, then cancel it."""
    done, _ = await asyncio.wait([owner], timeout=CLOSE_TIMEOUT_SECONDS)
    if not done:
        owner.cancel()
        await asyncio.wait([owner], timeout=CLOSE_TIMEOUT_SECONDS)
    if owner.done() and not owner.cancelled():
        owner.exception()


@contextlib.asynccontextmanager
async def _connect(target: McpTarget, log: TextIO | None, timeout_seconds: float, on_message: Any, listing: Listing) -> AsyncIterator[Any]:
    import mcp

    library_log = logging.getLogger("mcp")
    if not library_log.handlers:
        # Without any logging set up, Python would print each junk line of a server with a stack trace; we report it once ourselves.
        library_log.addHandler(logging.NullHandler())
    async with contextlib.AsyncExitStack() as stack:
        revealed = target.revealed()
        if target.command is not None:
            from mcp.client.stdio import stdio_client

            parameters = mcp.StdioServerParameters(
                command=target.program(),
                args=list((revealed.command or ())[1:]),
                env={**revealed.env, "PATH": target.search_path()},
                cwd=target.cwd,
                encoding_error_handler="replace",  # one line that is not UTF-8 must not end the connection
            )
            transport: Any = stdio_client(parameters, errlog=log) if log else stdio_client(parameters)
        else:
            transport = await _http_transport(revealed, stack)
        transport = repaired(transport, listing)
        if hasattr(mcp, "Client"):
            client: Any = mcp.Client(transport, read_timeout_seconds=timeout_seconds, message_handler=on_message)
            yield await stack.enter_async_context(client)
            return
        read, write, *_ = await stack.enter_async_context(transport)
        session: Any = mcp.ClientSession(read, write, read_timeout_seconds=_duration(timeout_seconds), message_handler=on_message)
        await stack.enter_async_context(session)
        await session.initialize()
        yield session


async def _http_transport(target: RevealedTarget, stack: contextlib.AsyncExitStack) -> Any:
    from mcp.client.streamable_http import streamable_http_client

    http = await stack.enter_async_context(open_mcp_http_client(target))
    assert target.url is not None
    return streamable_http_client(target.url, http_client=http)


def _duration(seconds: float) -> Any:
    import mcp

    return seconds if hasattr(mcp, "Client") else dt.timedelta(seconds=seconds)


def _protocol_error() -> type[Exception]:
    import mcp

    kind: type[Exception] = getattr(mcp, "MCPError", None) or getattr(mcp, "McpError")  # noqa: B009 - mcp 1 has no MCPError
    return kind


def _stream_errors() -> tuple[type[Exception], ...]:
    import anyio

    return (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, ConnectionError)


def _new_log(folder: Path) -> Path:
    descriptor, name = tempfile.mkstemp(prefix="mcp-server-", suffix=".log", dir=folder)
    with open(descriptor, "w"):
        pass
    return Path(name)
