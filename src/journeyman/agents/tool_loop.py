"""The plain tool loop: ask the model, run the tools it calls, show it the results, until it answers. Nothing clever on purpose: what is
trained should be the model.

Whatever the model does wrong (JSON that does not parse, a tool that does not exist, arguments that do not fit) goes back to it as a tool
message and is recorded. Only what is not the model's doing ends a rollout with an exception, and a prompt that no longer fits.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from journeyman.agents.server_pool import ServerPool
from journeyman.errors import ContextLengthError, McpError, SettingError
from journeyman.scenarios.mcp_client import McpServer
from journeyman.scenarios.schemas import argument_faults
from journeyman.scenarios.tools import McpTool
from journeyman.types.messages import Message, Tool
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import ToolEvent

SYSTEM_PROMPT = "Use the tools to find what the user asks for, then answer in one short sentence."
CUT_MARKER = " …[cut]"


class Run(Protocol):
    """What the loop needs of a rollout; `journeyman.client.Rollout` has it."""

    model: str
    metrics: dict[str, float]

    def openai(self) -> Any: ...

    def record_tool(self, event: ToolEvent) -> None: ...


@dataclass(frozen=True, slots=True)
class ToolLoopSettings:
    """Bounds of one rollout.

    Attributes:
        max_turns: model calls; the calls of the last one are still run, so that a judge sees what became of them.
        max_tokens: of one reply.
        call_timeout_seconds: of one tool call.
        max_result_chars: longer results are cut, with a marker that the model sees.
        max_calls_per_turn: further calls of the same reply are refused.
        temperature: None leaves it to the server (1 in training).
        seed: makes a rollout repeatable on the same engine when set.
    """

    max_turns: int = 4
    max_tokens: int = 96
    call_timeout_seconds: float = 30.0
    max_result_chars: int = 800
    max_calls_per_turn: int = 8
    temperature: float | None = None
    seed: int | None = None


class ToolLoop:
    """A rollout function: `await gather(ToolLoop(pool), scenarios, model=model)`. Offers the tools of the pool.

    Sets the metrics num_turns, num_tool_calls, num_tool_errors, num_malformed_calls, num_unknown_tools, num_invalid_arguments,
    num_results_cut and is_answered.
    """

    def __init__(self, pool: ServerPool, settings: ToolLoopSettings | None = None, *, system_prompt: str = SYSTEM_PROMPT) -> None:
        if not pool.tools:
            raise SettingError("a tool loop needs at least one tool")
        self.settings = settings or ToolLoopSettings()
        self.system_prompt = system_prompt
        self._pool = pool
        self._tools = {tool.name: tool for tool in pool.tools}
        self._offered = [tool.model_dump() for tool in self.tools]

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as the model is offered them."""
        return tuple(tool.function for tool in self._pool.tools)

    def messages(self, task: str) -> tuple[Message, ...]:
        """How every conversation begins: an example that starts with these and `tools` has the prompt of a rollout."""
        return Message(role="system", content=self.system_prompt), Message(role="user", content=task)

    async def __call__(self, scenario: Scenario, run: Run) -> None:
        """One rollout. Raises ContextLengthError, McpError (a server died or a call timed out) and what the client raises."""
        tally = dict.fromkeys(_METRICS, 0.0)
        run.metrics.update(tally)
        async with self._pool.lease() as server:
            messages = [message.wire() for message in self.messages(scenario.task)]
            for turn in range(self.settings.max_turns):
                reply = await self._ask(run, messages)
                run.metrics["num_turns"] = turn + 1.0
                messages.append(_echo(reply))
                if not reply.tool_calls:
                    run.metrics["is_answered"] = float(bool(reply.content))
                    return
                messages += await self._run_calls(reply.tool_calls, turn, server, run)

    async def _ask(self, run: Run, messages: list[dict[str, Any]]) -> Any:
        import openai

        extra: dict[str, Any] = {}
        if self.settings.temperature is not None:
            extra["temperature"] = self.settings.temperature
        if self.settings.seed is not None:
            extra["seed"] = self.settings.seed
        try:
            completion = await run.openai().chat.completions.create(
                model=run.model, messages=messages, tools=self._offered, max_tokens=self.settings.max_tokens, **extra
            )
        except openai.BadRequestError as error:
            if error.code == "context_length_exceeded":
                raise ContextLengthError(f"the conversation no longer fits the model's context: {error.message}") from error
            raise
        return completion.choices[0].message

    async def _run_calls(self, calls: Sequence[Any], turn: int, server: McpServer, run: Run) -> list[dict[str, Any]]:
        """Run the calls of one reply at the same time; their messages in the order asked for."""
        outcomes = await asyncio.gather(
            *(self._run_call(call, turn, number, server, run) for number, call in enumerate(calls)), return_exceptions=True
        )
        messages = []
        for call, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            run.record_tool(outcome)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": outcome.result})
        return messages

    async def _run_call(self, call: Any, turn: int, number: int, server: McpServer, run: Run) -> ToolEvent:
        name, text = call.function.name or "", call.function.arguments or ""
        run.metrics["num_tool_calls"] += 1
        arguments = parse_arguments(text)
        tool = self._tools.get(name)
        faults = argument_faults(tool.parameters, arguments) if tool is not None and arguments is not None else []
        fault = self._fault(name, arguments, faults, number)
        started = time.perf_counter()
        if fault is None and tool is not None and arguments is not None:
            is_error, result = await self._execute(server, tool, arguments)
        else:
            is_error, result = True, f"Error: {fault}"
            _count_fault(run, arguments, tool, faults)
        run.metrics["num_tool_errors"] += is_error
        run.metrics["num_results_cut"] += len(result) > self.settings.max_result_chars
        return ToolEvent(
            turn=turn,
            call_id=call.id or "",
            name=name,
            arguments=arguments,
            is_known=tool is not None,
            is_valid=tool is not None and arguments is not None and not faults,
            is_error=is_error,
            result=cut(result, self.settings.max_result_chars),
            seconds=time.perf_counter() - started,
        )

    def _fault(self, name: str, arguments: dict[str, Any] | None, faults: Sequence[str], number: int) -> str | None:
        """Why a call is not executed, in words for the model; None when it is."""
        if number >= self.settings.max_calls_per_turn:
            return f"at most {self.settings.max_calls_per_turn} calls at a time"
        if name not in self._tools:
            return f"there is no tool {name!r}; the tools are: {', '.join(self._tools)}"
        if arguments is None:
            return "the arguments are not a JSON object"
        return "; ".join(faults) if faults else None

    async def _execute(self, server: McpServer, tool: McpTool, arguments: dict[str, Any]) -> tuple[bool, str]:
        try:
            result = await server.call(tool.server_name, arguments, self.settings.call_timeout_seconds)
        except McpError as error:
            if error.reason == "died":
                await self._pool.replace(server)
            elif error.reason == "call_timeout":
                return True, f"Error: no result within {self.settings.call_timeout_seconds:g} s"
            raise
        return result.is_error, compact(result.text) or "(empty result)"


_METRICS = (
    "num_turns",
    "num_tool_calls",
    "num_tool_errors",
    "num_malformed_calls",
    "num_unknown_tools",
    "num_invalid_arguments",
    "num_results_cut",
    "is_answered",
)


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Arguments as the model wrote them; no text is no arguments; None when they are not a JSON object."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def compact(text: str) -> str:
    """A JSON result without the blanks between its parts (a fifth fewer tokens than an indented one); other text as it is.

    Example:
        >>> compact('{\n  "a": [1, 2]\n}')
        '{"a":[1,2]}'
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict | list) else text


def cut(text: str, limit: int) -> str:
    """A long text cut to `limit` characters and marked."""
    return text if len(text) <= limit else text[:limit] + CUT_MARKER


def _echo(reply: Any) -> dict[str, Any]:
    """The model's reply as history: exactly what came, so that the server recognises its own tokens."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}
            for call in reply.tool_calls
        ]
    reasoning = getattr(reply, "reasoning_content", None)
    if reasoning:
        message["reasoning_content"] = reasoning
    return message


def _count_fault(run: Run, arguments: dict[str, Any] | None, tool: McpTool | None, faults: Sequence[str]) -> None:
    run.metrics["num_malformed_calls"] += arguments is None
    run.metrics["num_unknown_tools"] += tool is None
    run.metrics["num_invalid_arguments"] += bool(faults)
