"""The work behind `journeyman mcp tools` and `journeyman mcp scenarios`: look before anything is trained."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.cli.console import Terminal
    from journeyman.scenarios import ChatWriter, McpTarget, McpTool, Proposer, ScenarioSet
    from journeyman.types.scenarios import Scenario

_CHARS_PER_TOKEN = 4


async def show_tools(target: McpTarget, *, allow_writes: bool = False, as_json: bool = False) -> None:
    """Print the server's tools, what each takes, and whether training would call it."""
    from journeyman.cli.console import output, write_json
    from journeyman.scenarios import open_server, usable_tools

    async with open_server(target) as server:
        tools = server.tools
        console = output()
        if as_json:
            write_json([_tool_row(tool, allow_writes) for tool in tools])
            return
        _print_tools(console, tools, allow_writes)
        # Says, as an error, when nothing could be trained with these tools.
        usable_tools([tool for tool in tools if tool.problem is None] or tools, target.label, allow_writes=allow_writes)


async def show_scenarios(
    target: McpTarget,
    *,
    base: str | None = None,
    writer: str | None = None,
    tools: Sequence[str] | None = None,
    allow_writes: bool = False,
    seed: int = 0,
    count: int = 12,
    as_json: bool = False,
) -> None:
    """Build scenarios and print `count` of each split. The base model is loaded only when values must be proposed."""
    from journeyman.cli.console import output, write_json
    from journeyman.scenarios import InTurn, ScenarioSettings, build_scenarios, open_server

    console = output()
    chosen = tuple(tools) if tools else None
    settings = ScenarioSettings(tools=chosen, allow_writes=allow_writes)
    async with contextlib.AsyncExitStack() as stack:
        opened = await _open_writer(writer, stack)
        server = await stack.enter_async_context(open_server(target))
        proposer = await _open_proposer(server.tools, settings, target.label, base, stack)
        if opened is not None and proposer is not None:
            proposer = InTurn(opened.proposer(), proposer)
        made = await build_scenarios(server, settings, proposer=proposer, writer=opened, seed=seed)
    if as_json:
        write_json([scenario.model_dump(mode="json") for scenario in (*made.heldout[:count], *made.train[:count])])
        return
    _print_scenarios(console, made, count)


async def _open_proposer(
    tools: Sequence[McpTool], settings: Any, label: str, base: str | None, stack: contextlib.AsyncExitStack
) -> Proposer | None:
    """The base model behind a loopback port, when some argument is free text; nothing is kept of it."""
    import random

    from journeyman.local import DEFAULT_BASE, local
    from journeyman.scenarios import CompletionProposer, usable_tools
    from journeyman.scenarios.pools import make_pools

    usable = usable_tools(tools, label, settings.tools, allow_writes=settings.allow_writes)
    if not any(pool.needs_proposals for pool in make_pools(usable, random.Random(0))):
        return None
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="journeyman-look-"))
    connection = await stack.enter_async_context(local(base or DEFAULT_BASE, home=home))
    proposer = CompletionProposer(connection.openai_url, connection.api_key or "", "base")
    stack.push_async_callback(proposer.close)
    return proposer


async def _open_writer(name: str | None, stack: contextlib.AsyncExitStack) -> ChatWriter | None:
    from journeyman.llm import Llm, LlmEndpoint
    from journeyman.scenarios import ChatWriter

    if name is None:
        return None
    writer = ChatWriter(await stack.enter_async_context(Llm(LlmEndpoint.parse(name))))
    await writer.check()
    return writer


def _tool_row(tool: McpTool, allow_writes: bool) -> dict[str, Any]:
    return {
        "name": tool.server_name,
        "description": tool.description,
        "parameters": tool.parameters,
        "is_read_only": tool.is_read_only,
        "is_destructive": tool.is_destructive,
        "used": _verdict(tool, allow_writes) == "yes",
        "problem": tool.problem,
    }


def _verdict(tool: McpTool, allow_writes: bool) -> str:
    if tool.problem is not None:
        return f"no: unusable schema ({tool.problem})"
    if (tool.is_read_only and not tool.is_destructive) or allow_writes:
        return "yes"
    how = "it says so" if tool.is_annotated else "by its name"
    return f"no: it may change something, {how} (--allow-writes)"


def _print_tools(console: Terminal, tools: Sequence[McpTool], allow_writes: bool) -> None:
    from journeyman.cli.console import styled

    for tool in tools:
        parameters = ", ".join(
            f"{name}{'' if name in tool.required else '?'}: {schema.get('type', 'any')}" for name, schema in tool.properties.items()
        )
        console.print(styled((tool.server_name, "bold"), f"({parameters})"))
        if tool.description:
            console.print(f"  {tool.description.splitlines()[0]}")
        size = len(json.dumps(tool.parameters)) // _CHARS_PER_TOKEN
        console.print(f"  used in training: {_verdict(tool, allow_writes)}; about {size} tokens of schema")


def _print_scenarios(console: Terminal, made: ScenarioSet, count: int) -> None:
    from journeyman.cli.console import styled

    for title, scenarios in (("held-out", made.heldout), ("training", made.train)):
        console.print(styled((f"{len(scenarios)} {title} scenarios", "bold"), f", {min(count, len(scenarios))} of them:"))
        for scenario in scenarios[:count]:
            console.print(f"  {scenario.task}")
            console.print(f"    {_witness_line(scenario)}", style="dim")
    for note in made.notes:
        console.print(f"note: {note}")


def _witness_line(scenario: Scenario) -> str:
    if scenario.witness is None:
        return "(no witness)"
    calls = " ; ".join(f"{call.tool} {json.dumps(call.arguments, ensure_ascii=False)}" for call in scenario.witness.calls)
    answers = ", ".join(str(answer.value) for answer in scenario.witness.answers)
    return f"{calls} -> {answers}" if answers else calls
