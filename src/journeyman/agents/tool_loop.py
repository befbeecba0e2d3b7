"""The plain tool loop: ask the model, run the tools it calls, show it the results, until it answers. Nothing clever on purpose: what is
trained should be the model.

Whatever the model does wrong (JSON that does not parse, a tool that does not exist, arguments that do not fit) goes back to it as a tool
message and is recorded. Only what is not the model's doing ends a rollout with an exception (a server that dies, a call without a result
in time: nobody knows what the tool would have said), and a prompt that no longer fits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from journeyman.agents.server_pool import ServerPool
from journeyman.errors import ContextLengthError, InputError, McpError, SettingError
from journeyman.mcp.client import McpServer
from journeyman.mcp.results import compact
from journeyman.mcp.schemas import argument_faults
from journeyman.mcp.tools import McpTool
from journeyman.types.json_text import parse_json
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall
from journeyman.types.scenarios import Scenario, WorkedExample
from journeyman.types.training import SftExample
from journeyman.types.trajectory import ToolEvent

CUT_MARKER = " …[cut]"
SYSTEM_PROMPT = "Use the tools to find what the user asks for, then answer in one short sentence."
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


class Run(Protocol):
    """What the loop needs of a rollout; `journeyman.client.Rollout` has it."""

    model: str
    metrics: dict[str, float]
    seed: int | None

    def openai(self) -> Any: ...

    def record_tool(self, event: ToolEvent) -> None: ...


@dataclass(frozen=True, slots=True)
class ToolLoopSettings:
    """How replies are drawn, and the bounds of one rollout.

    Attributes:
        max_turns: model calls; the calls of the last one are still run, so that a judge sees what became of them.
        max_tokens: of one reply.
        call_timeout_seconds: of one tool call.
        max_result_chars: longer results are cut, with a marker that the model sees.
        max_calls_per_turn: further calls of the same reply are refused.
        temperature: 0 takes the likeliest token; None leaves it to the server (1 in training).
        seed: of every rollout; None takes the rollout's own (`run.seed`). Each turn draws from a stream of its own.
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

    `shots` are worked examples that stand before every task, as messages: users that ask, calls, results, answers.

    Sets the metrics num_turns, num_tool_calls, num_tool_errors, num_malformed_calls, num_unknown_tools, num_invalid_arguments,
    num_results_cut and is_answered.
    """

    def __init__(
        self,
        pool: ServerPool,
        settings: ToolLoopSettings | None = None,
        *,
        system_prompt: str = SYSTEM_PROMPT,
        shots: Sequence[Message] = (),
    ) -> None:
        self.settings = settings or ToolLoopSettings()
        self.system_prompt = system_prompt
        self.shots = tuple(shots)
        self._pool = pool
        self._runner = ToolRunner(pool, self.settings)
        self._offered = [tool.model_dump() for tool in self.tools]

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as the model is offered them."""
        return tuple(tool.function for tool in self._pool.tools)

    def messages(self, task: str) -> tuple[Message, ...]:
        """How every conversation begins: an example that starts with these and `tools` has the prompt of a rollout."""
        head = (Message(role="system", content=self.system_prompt),) if self.system_prompt else ()
        return *head, *self.shots, Message(role="user", content=task)

    def example(self, drill: WorkedExample) -> SftExample:
        """The drill as a conversation that begins exactly as a rollout does."""
        # The drill's own first message is the task, which the beginning ends with.
        return SftExample(messages=(*self.messages(drill.task), *drill.messages()[1:]), tools=self.tools)

    async def __call__(self, scenario: Scenario, run: Run) -> None:
        """One rollout. Raises ContextLengthError, McpError (a server died or a call timed out) and what the client raises."""
        run.metrics.update(dict.fromkeys(_METRICS, 0.0))
        async with self._pool.lease() as server:
            messages = [message.wire() for message in self.messages(scenario.task)]
            for turn in range(self.settings.max_turns):
                reply = await self._ask(run, messages, turn)
                run.metrics["num_turns"] = turn + 1.0
                messages.append(_echo(reply))
                if not reply.tool_calls:
                    run.metrics["is_answered"] = float(bool(reply.content))
                    return
                messages += await self._run_calls(reply.tool_calls, turn, server, run)

    async def _ask(self, run: Run, messages: list[dict[str, Any]], turn: int) -> Any:
        import openai

        settings = self.settings
        chosen = settings.seed if settings.seed is not None else run.seed
        seed = None if chosen is None else chosen + turn
        wanted = {"model": run.model, "messages": messages, "tools": self._offered, "max_tokens": settings.max_tokens}
        optional = {"temperature": settings.temperature, "seed": seed}
        body = wanted | {name: value for name, value in optional.items() if value is not None}
        try:
            completion = await run.openai().chat.completions.create(**body)
        except openai.BadRequestError as error:
            if error.code == "context_length_exceeded":
                raise ContextLengthError(f"the conversation no longer fits the model's context: {error.message}") from error
            raise
        return completion.choices[0].message

    async def _run_calls(self, asked: Sequence[Any], turn: int, server: McpServer, run: Run) -> list[dict[str, Any]]:
        """Run the calls of one reply; their messages in the order asked for."""
        calls = [
            ToolCall(id=call.id or "", function=FunctionCall(name=call.function.name or "", arguments=call.function.arguments or ""))
            for call in asked
        ]
        run.metrics["num_tool_calls"] += len(calls)
        messages = []
        for call, outcome in zip(calls, await self._runner.run(calls, turn, server), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self._count(outcome, run)
            run.record_tool(outcome)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": outcome.result})
        return messages

    def _count(self, event: ToolEvent, run: Run) -> None:
        run.metrics["num_tool_errors"] += event.is_error
        run.metrics["num_malformed_calls"] += event.arguments is None
        run.metrics["num_unknown_tools"] += not event.is_known
        run.metrics["num_invalid_arguments"] += event.is_known and event.arguments is not None and not event.is_valid
        run.metrics["num_results_cut"] += len(event.result) > self.settings.max_result_chars


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


class ToolRunner:
    """Runs the calls that a model asks for on the servers of a pool: its tools are those that exist, and one that dies is replaced."""

    def __init__(self, pool: ServerPool, settings: ToolLoopSettings) -> None:
        if not pool.tools:
            raise SettingError("a tool loop needs at least one tool")
        self.pool = pool
        self.tools = {tool.name: tool for tool in pool.tools}
        self._settings = settings

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
            result=cut(result, self._settings.max_result_chars),
            seconds=time.perf_counter() - started,
        )

    def _fault(self, name: str, arguments: dict[str, Any] | None, faults: Sequence[str], number: int) -> str | None:
        """Why a call is not executed, in words for the model; None when it is."""
        if number >= self._settings.max_calls_per_turn:
            return f"at most {self._settings.max_calls_per_turn} calls at a time"
        if name not in self.tools:
            return f"there is no tool {name!r}; the tools are: {', '.join(self.tools)}"
        if arguments is None:
            return "the arguments are not a JSON object"
        return "; ".join(faults) if faults else None

    async def _execute(self, server: McpServer, tool: McpTool, arguments: dict[str, Any]) -> tuple[bool, str]:
        try:
            result = await server.call(tool.server_name, arguments, self._settings.call_timeout_seconds)
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
