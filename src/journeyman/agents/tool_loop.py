"""The plain agent: the model calls tools, sees their results, answers. A rollout function for `gather`.

Whatever the model gets wrong (calls that do not parse, unknown tools, arguments that do not fit) goes back to it as the tool's reply, and
is recorded as a `ToolEvent`. Not for judging, and not for any particular server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journeyman.agents.server_pool import ServerPool
from journeyman.client.rollout import Rollout
from journeyman.errors import McpError
from journeyman.scenarios.mcp_client import McpServer, ToolResult
from journeyman.scenarios.schemas import argument_faults
from journeyman.types.messages import Message, Tool
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import ToolEvent

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessage

SYSTEM_PROMPT = "Use the tools to find out, then answer the question in one short sentence."


@dataclass(frozen=True, slots=True)
class ToolLoopSettings:
    """How far one attempt may go. `max_tokens` is per turn; a result longer than `max_result_characters` is cut with a marker."""

    system_prompt: str = SYSTEM_PROMPT
    max_turns: int = 4
    max_tokens: int = 96
    temperature: float = 1.0
    call_timeout_seconds: float = 30.0
    max_result_characters: int = 1200


class ToolLoop:
    """A rollout function: `await gather(ToolLoop(pool), scenarios, model=model)`."""

    def __init__(self, pool: ServerPool, settings: ToolLoopSettings | None = None) -> None:
        self._pool = pool
        self.settings = settings or ToolLoopSettings()
        self.tools: tuple[Tool, ...] = tuple(tool.function for tool in pool.tools)

    def messages(self, task: str) -> tuple[Message, ...]:
        """What an attempt begins with; drills begin with the same."""
        return (Message(role="system", content=self.settings.system_prompt), Message(role="user", content=task))

    async def __call__(self, scenario: Scenario, run: Rollout) -> None:
        async with self._pool.server() as server:
            await self._converse(scenario, run, server)

    async def _converse(self, scenario: Scenario, run: Rollout, server: McpServer) -> None:
        messages = [message.wire() for message in self.messages(scenario.task)]
        tools: Any = [tool.model_dump() for tool in self.tools]
        events: list[ToolEvent] = []
        for turn in range(self.settings.max_turns):
            reply = await run.openai().chat.completions.create(
                model=run.model,
                messages=messages,  # type: ignore[arg-type]
                tools=tools,
                max_tokens=self.settings.max_tokens,
                temperature=self.settings.temperature,
            )
            message = reply.choices[0].message
            messages.append(_echo(message))
            if not message.tool_calls or reply.choices[0].finish_reason == "length":
                break
            for call in message.tool_calls:
                function: Any = getattr(call, "function", None)
                event = await self._run_call(server, turn, call.id, function.name, function.arguments)
                events.append(event)
                run.record_tool(event)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": event.result})
        run.metrics |= _metrics(events)

    async def _run_call(self, server: McpServer, turn: int, call_id: str, name: str, raw: str) -> ToolEvent:
        """Execute one call, or say why not. Raises McpError only when the server is gone."""

        def refused(text: str, *, arguments: dict[str, Any] | None = None, is_known: bool = False, is_valid: bool = False) -> ToolEvent:
            return ToolEvent(
                turn=turn, call_id=call_id, name=name, arguments=arguments, is_known=is_known, is_valid=is_valid, is_error=True, result=text
            )

        known = {tool.name: tool for tool in self._pool.tools}
        arguments = _parse(raw)
        if arguments is None:
            return refused("error: the call is not valid JSON", is_known=name in known)
        if name not in known:
            return refused(f"error: there is no tool {name!r}; there are {', '.join(known)}", arguments=arguments)
        faults = argument_faults(known[name].parameters, arguments)
        if faults:
            return refused("error: " + "; ".join(faults), arguments=arguments, is_known=True)
        try:
            result = await server.call(name, arguments, self.settings.call_timeout_seconds)
        except McpError as error:
            if error.reason != "call_timeout":
                raise
            result = ToolResult(f"error: no result within {self.settings.call_timeout_seconds:g} s", True)
        return ToolEvent(
            turn=turn,
            call_id=call_id,
            name=name,
            arguments=arguments,
            is_known=True,
            is_valid=True,
            is_error=result.is_error,
            result=cut(result.text, self.settings.max_result_characters),
            seconds=result.seconds,
        )


def cut(text: str, max_characters: int) -> str:
    """The text, its middle replaced by a marker when it is too long.

    Example:
        >>> cut("a" * 50, 30)
        'aaaaa [40 characters cut] aaaaa'
    """
    if len(text) <= max_characters:
        return text
    kept = max(max_characters - 20, 2)
    head, tail = (kept + 1) // 2, kept // 2
    return f"{text[:head]} [{len(text) - kept} characters cut] {text[-tail:]}"


def _parse(raw: str) -> dict[str, Any] | None:
    try:
        arguments = json.loads(raw) if raw.strip() else {}
    except json.JSONDecodeError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _echo(message: ChatCompletionMessage) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        out["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    return out


def _metrics(events: list[ToolEvent]) -> dict[str, float]:
    return {
        "num_tool_calls": float(len(events)),
        "num_tool_errors": float(sum(event.is_error for event in events)),
        "num_unparseable_calls": float(sum(event.arguments is None for event in events)),
        "num_unknown_tools": float(sum(not event.is_known for event in events)),
    }
