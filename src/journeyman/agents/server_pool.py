"""MCP servers for rollouts: one shared by all where its tools only read, a fresh process for each rollout where they do not.

A shared server that died is started again for the next rollout; the rollout that saw it die fails with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

from journeyman.scenarios.mcp_client import McpServer, open_server
from journeyman.scenarios.target import McpTarget
from journeyman.scenarios.tools import McpTool

Isolation = Literal["auto", "shared", "per_rollout"]
MAX_STARTS_AT_ONCE = 4


class ServerPool:
    """Hands out connected servers. Use as an async context manager; leaving it stops every server it started.

    Args:
        tools: the tools offered to the model.
        isolation: `shared`: one server for all rollouts; `per_rollout`: a process each; `auto`: shared when every tool only reads.
    """

    def __init__(
        self, target: McpTarget, tools: tuple[McpTool, ...], *, isolation: Isolation = "auto", log_folder: Path | None = None
    ) -> None:
        self.target = target
        self.tools = tools
        self._log_folder = log_folder
        only_reads = all(tool.is_read_only and not tool.is_destructive for tool in tools)
        self.is_shared = isolation == "shared" or (isolation == "auto" and only_reads) or target.url is not None
        self._starts = asyncio.Semaphore(MAX_STARTS_AT_ONCE)
        self._lock = asyncio.Lock()
        self._server: McpServer | None = None
        self._stack: AsyncExitStack | None = None

    @asynccontextmanager
    async def server(self) -> AsyncIterator[McpServer]:
        """A server for one rollout. Raises McpError when it cannot be started."""
        if self.is_shared:
            yield await self._shared()
            return
        async with AsyncExitStack() as stack:
            async with self._starts:
                server = await stack.enter_async_context(open_server(self.target, log_folder=self._log_folder))
            yield server

    async def _shared(self) -> McpServer:
        async with self._lock:
            if self._server is not None and self._server.is_alive:
                return self._server
            await self._close()
            self._stack = AsyncExitStack()
            self._server = await self._stack.enter_async_context(open_server(self.target, log_folder=self._log_folder))
            return self._server

    async def _close(self) -> None:
        stack, self._stack, self._server = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def __aenter__(self) -> ServerPool:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self._close()
