"""Runs the tool calls that a model asked for on an MCP server, and says what became of each. Not for asking the model.

Whatever the model does wrong (JSON that does not parse, a tool that does not exist, arguments that do not fit) becomes a result that
tells it so. Only what is not the model's doing raises: a server that dies, a call without a result in time. Nobody knows then what the
tool would have said, so the attempt says nothing about the model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from journeyman.agents.server_pool import ServerPool
from journeyman.errors import InputError, McpError, SettingError
from journeyman.mcp.client import McpServer
from journeyman.mcp.results import compact
from journeyman.mcp.schemas import argument_faults
from journeyman.mcp.tools import McpTool
from journeyman.types.json_text import parse_json
from journeyman.types.messages import ToolCall
from journeyman.types.trajectory import ToolEvent

CUT_MARKER = " …[cut]"


class ToolRunner:
    """Runs calls on the servers of a pool.

    Args:
        pool: its tools are those that exist; a server that dies is replaced in it.
        call_timeout_seconds: of one call.
        max_result_chars: longer results are cut, with a marker that the model sees.
        max_calls_per_turn: further calls of the same reply are refused.
    """

    def __init__(self, pool: ServerPool, *, call_timeout_seconds: float, max_result_chars: int, max_calls_per_turn: int) -> None:
        if not pool.tools:
            raise SettingError("a tool loop needs at least one tool")
        self.pool = pool
        self.tools = {tool.name: tool for tool in pool.tools}
        self._call_timeout_seconds = call_timeout_seconds
        self._max_result_chars = max_result_chars
        self._max_calls_per_turn = max_calls_per_turn

    async def run(self, calls: Sequence[ToolCall], turn: int, server: McpServer) -> list[ToolEvent | BaseException]:
        """Run the calls of one reply at the same time; what became of each, in the order asked for, McpError where a server failed."""
        work = (self._run_one(call, turn, number, server) for number, call in enumerate(calls))
        return await asyncio.gather(*work, return_exceptions=True)

    async def _run_one(self, call: ToolCall, turn: int, number: int, server: McpServer) -> ToolEvent:
        name = call.function.name
        arguments = parse_arguments(call.function.arguments)
        tool = self.tools.get(name)
        faults = argument_faults(tool.parameters, arguments) if tool is not None and arguments is not None else []
        fault = self._fault(name, arguments, faults, number)
        started = time.perf_counter()
        if fault is None and tool is not None and arguments is not None:
            is_error, result = await self._execute(server, tool, arguments)
        else:
            is_error, result = True, f"Error: {fault}"
        return ToolEvent(
            turn=turn,
            call_id=call.id,
            name=name,
            arguments=arguments,
            is_known=tool is not None,
            is_valid=tool is not None and arguments is not None and not faults,
            is_error=is_error,
            result=cut(result, self._max_result_chars),
            seconds=time.perf_counter() - started,
        )

    def _fault(self, name: str, arguments: dict[str, Any] | None, faults: Sequence[str], number: int) -> str | None:
        """Why a call is not executed, in words for the model; None when it is."""
        if number >= self._max_calls_per_turn:
            return f"at most {self._max_calls_per_turn} calls at a time"
        if name not in self.tools:
            return f"there is no tool {name!r}; the tools are: {', '.join(self.tools)}"
        if arguments is None:
            return "the arguments are not a JSON object"
        return "; ".join(faults) if faults else None

    async def _execute(self, server: McpServer, tool: McpTool, arguments: dict[str, Any]) -> tuple[bool, str]:
        try:
            result = await server.call(tool.server_name, arguments, self._call_timeout_seconds)
        except McpError as error:
            if error.reason == "died":
                await self.pool.replace(server)
            raise
        return result.is_error, compact(result.text) or "(empty result)"


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Arguments as the model wrote them; no text is no arguments; None when they are not a JSON object."""
    if not text.strip():
        return {}
    try:
        value = parse_json(text)
    except InputError:
        return None
    return value if isinstance(value, dict) else None


def cut(text: str, limit: int) -> str:
    """A long text cut to `limit` characters and marked."""
    return text if len(text) <= limit else text[:limit] + CUT_MARKER
