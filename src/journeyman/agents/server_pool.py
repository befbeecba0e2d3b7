"""MCP servers for rollouts: one each for servers that keep state, a few shared ones otherwise. Starts them, replaces dead ones, stops them.

Rollouts of one group must see the same world. A server whose every offered tool only reads gives that when it is shared; any other gets a
fresh process per rollout. A server at a URL is not ours to start: it is always shared, with a warning when it can be changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from journeyman.client.rollout import uncounted
from journeyman.errors import McpError, SettingError, WaitTimeoutError
from journeyman.mcp.client import McpServer, open_server
from journeyman.mcp.target import McpTarget
from journeyman.mcp.tools import McpTool

Isolation = Literal["auto", "shared", "per_rollout"]

_START_TRIES = 3
_SHARED_BOUNDS = (2, 4)
_SHARED_CONCURRENT = 64
_OWN_CONCURRENT = 8


def num_shared_servers() -> int:
    """Servers for the rollouts of a run that can share them: one a core, 2 to 4. With two, one that dies or is slow is not all there is."""
    least, most = _SHARED_BOUNDS
    return min(most, max(least, os.cpu_count() or 1))


class ServerPool:
    """Gives each rollout a server. Use as an async context manager.

    Args:
        target: the server.
        tools: those offered to the model; decide what "auto" means.
        isolation: `auto` is `shared` when every offered tool only reads, `per_rollout` otherwise.
        num_shared: servers that share the calls of all rollouts; one where an offered tool may write, so that all see one world.
        max_servers: servers at any time where each rollout has its own, 8 when None: further rollouts wait. A server that is shared takes
            as many rollouts as come, and only says that so many (64 when None) are to be run at once.
        log_folder: where the servers' stderr goes.
        wait_timeout_seconds: for a place to become free, counted anew whenever one does: only a queue that stands still is an error.

    Attributes:
        max_concurrent: how many rollouts to run at once (`gather`'s argument of that name), so that none waits.

    Example:
        >>> async def use(target, tools):                                                 # doctest: +SKIP
        ...     async with ServerPool(target, tools) as pool, pool.lease() as server:
        ...         return await server.call("add", {"a": 1, "b": 2})
    """

    def __init__(
        self,
        target: McpTarget,
        tools: Sequence[McpTool],
        isolation: Isolation = "auto",
        *,
        num_shared: int = 1,
        max_servers: int | None = None,
        log_folder: Path | None = None,
        start_timeout_seconds: float | None = None,
        wait_timeout_seconds: float = 3600.0,
    ) -> None:
        for name, value in (("num_shared", num_shared), ("max_servers", max_servers)):
            if value is not None and value < 1:
                raise SettingError(f"{name} is {value}; it must be at least 1", reason="too_small")
        only_reads = all(tool.is_read_only for tool in tools)
        if target.url is not None and isolation == "per_rollout":
            raise SettingError(
                f"the server at {target.url} cannot be started per rollout", hint="give its command, or use isolation shared"
            )
        self.target = target
        self.tools = tuple(tools)
        self.is_shared = isolation == "shared" or target.url is not None or (isolation == "auto" and only_reads)
        self.warning = (
            f"the tools at {target.url} may change it, and all rollouts share it: their results may depend on each other"
            if target.url is not None and not only_reads
            else None
        )
        self.max_concurrent = max_servers or (_SHARED_CONCURRENT if self.is_shared else _OWN_CONCURRENT)
        self.num_restarts = 0
        self._log_folder = log_folder
        self._start_timeout_seconds = start_timeout_seconds
        self._wait_timeout_seconds = wait_timeout_seconds
        self._shared: list[_Seat] = [_Seat() for _ in range(num_shared if only_reads else 1)]
        self._next = 0
        self._places = asyncio.Semaphore(self.max_concurrent)
        self._num_left = 0
        self._is_open = False

    async def __aenter__(self) -> ServerPool:
        self._is_open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the shared servers."""
        self._is_open = False
        for seat in self._shared:
            await seat.close()

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[McpServer]:
        """A server for one rollout. Raises McpError when it cannot be started, WaitTimeoutError when no place becomes free.

        What it takes to get it and to stop it does not count against the time limit of the attempt (`gather`).
        """
        if not self._is_open:
            raise SettingError("the server pool is not open", hint="use it as: async with ServerPool(…) as pool")
        if self.is_shared:
            self._next = (self._next + 1) % len(self._shared)
            with uncounted():
                server = await self._seated(self._shared[self._next])
            yield server
            return
        with uncounted():
            await self._take_place()
        seat = _Seat()
        try:
            with uncounted():
                server = await self._start(seat)
            yield server
        finally:
            try:
                with uncounted():
                    await seat.close()
            finally:
                self._num_left += 1
                self._places.release()

    async def _take_place(self) -> None:
        while True:
            num_left = self._num_left
            try:
                async with asyncio.timeout(self._wait_timeout_seconds):
                    await self._places.acquire()
                return
            except TimeoutError as error:
                if self._num_left == num_left:
                    raise WaitTimeoutError(
                        f"no MCP server became free within {self._wait_timeout_seconds:g} s; all {self.max_concurrent} are in use",
                        hint="raise max_servers, or lower the number of rollouts",
                        reason="no_free_server",
                    ) from error

    async def replace(self, server: McpServer) -> None:
        """Forget a shared server that died; the next lease starts another."""
        for seat in self._shared:
            if seat.server is server and not server.is_alive:
                self.num_restarts += 1
                await seat.close()

    async def _seated(self, seat: _Seat) -> McpServer:
        async with seat.lock:
            if seat.server is not None and not seat.server.is_alive:
                self.num_restarts += 1
                await seat.close()
            return seat.server or await self._start(seat)

    async def _start(self, seat: _Seat) -> McpServer:
        """A machine under load may be too slow once, so a timeout is tried again; a command that exits is not."""
        for attempt in range(1, _START_TRIES + 1):
            try:
                return await seat.open(self.target, self._log_folder, self._start_timeout_seconds)
            except McpError as error:
                if error.reason not in ("handshake_timeout", "connection_refused") or attempt == _START_TRIES:
                    raise
        raise AssertionError("the last attempt returns or raises")


class _Seat:
    """Holds one server open. A connection must be closed by the task that opened it, so a task of its own does both."""

    def __init__(self) -> None:
        self.server: McpServer | None = None
        self.lock = asyncio.Lock()
        self._stop = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    async def open(self, target: McpTarget, log_folder: Path | None, timeout_seconds: float | None) -> McpServer:
        ready: asyncio.Future[McpServer] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._holder = asyncio.create_task(_hold(target, log_folder, timeout_seconds, ready, self._stop))
        try:
            self.server = await ready
        except BaseException:
            await self.close()
            raise
        return self.server

    async def close(self) -> None:
        self.server = None
        holder, self._holder = self._holder, None
        if holder is not None:
            self._stop.set()
            await asyncio.wait([holder])


async def _hold(
    target: McpTarget, log_folder: Path | None, timeout_seconds: float | None, ready: asyncio.Future[McpServer], stop: asyncio.Event
) -> None:
    try:
        async with open_server(target, log_folder=log_folder, start_timeout_seconds=timeout_seconds) as server:
            if not ready.done():
                ready.set_result(server)
            await stop.wait()
    except Exception as error:  # noqa: BLE001 - the top handler of the holder: whatever keeps it from opening goes to who waits
        if not ready.done():
            ready.set_exception(error)
