"""The work behind `journeyman mcp tools` and `journeyman mcp scenarios`: look before anything is trained."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.cli.console import Terminal
    from journeyman.observe.progress import Progress
    from journeyman.scenarios import ChatWriter, McpTarget, McpTool, Proposer, ScenarioSet
    from journeyman.types.scenarios import Scenario

_CHARS_PER_TOKEN = 4
_SHOWN_CHARS = 300


async def show_tools(
    target: McpTarget,
    *,
    tools: Sequence[str] | None = None,
    read_only: Sequence[str] = (),
    allow_writes: bool = False,
    as_json: bool = False,
) -> None:
    """Print the server's tools, what each takes, whether it is known to only read and why, and whether training would call it.

    Raises, after the list, what `choose_tools` raises when nothing could be trained with these tools.
    """
    from journeyman.cli.console import failures, output, write_json
    from journeyman.cli.progress_view import ProgressView
    from journeyman.errors import McpError
    from journeyman.scenarios import open_server
    from journeyman.scenarios.tools import choose_tools, vouched_for

    with ProgressView(failures()) as view:
        view.phase("start", note=target.label)
        async with open_server(target) as server:
            pass
    found = vouched_for(server.tools, target.label, read_only)
    used: set[str] = set()
    fault = None
    try:
        used = {tool.name for tool in choose_tools(found, target.label, tools, allow_writes=allow_writes).tools}
    except McpError as error:
        fault = error
    if as_json:
        write_json([_tool_row(tool, tool.name in used) for tool in found])
        return
    _print_tools(output(), found, used)
    for note in server.notes:
        output().print(f"note: {note}")
    if fault is not None:
        raise fault


async def show_scenarios(
    target: McpTarget,
    *,
    base: str | None = None,
    writer: str | None = None,
    tools: Sequence[str] | None = None,
    read_only: Sequence[str] = (),
    allow_writes: bool = False,
    seed: int = 0,
    count: int = 12,
    as_json: bool = False,
) -> None:
    """Build scenarios and print `count` of each split; how far it is goes to standard error. The base model is loaded only when values
    must be proposed."""
    from journeyman.cli.console import failures, output, write_json
    from journeyman.cli.progress_view import ProgressView
    from journeyman.scenarios import InTurn, ScenarioSettings, build_scenarios, open_server

    console = output()
    settings = ScenarioSettings(tools=tuple(tools) if tools else None, read_only=tuple(read_only), allow_writes=allow_writes)
    with ProgressView(failures()) as view:
        async with contextlib.AsyncExitStack() as stack:
            view.phase("start", note=target.label)
            opened = await _open_writer(writer, stack)
            server = await stack.enter_async_context(open_server(target))
            proposer = await _open_proposer(server.tools, settings, target.label, base, stack, view)
            if opened is not None and proposer is not None:
                proposer = InTurn(opened.proposer(), proposer)
            made = await build_scenarios(server, settings, proposer=proposer, writer=opened, seed=seed, progress=view)
    if as_json:
        write_json([scenario.model_dump(mode="json") for scenario in (*made.heldout[:count], *made.train[:count])])
        return
    _print_scenarios(console, made, count)


async def _open_proposer(
    tools: Sequence[McpTool], settings: Any, label: str, base: str | None, stack: contextlib.AsyncExitStack, progress: Progress
) -> Proposer | None:
    """The base model behind a loopback port, when some argument is free text; nothing is kept of it."""
    import random

    from journeyman.local import DEFAULT_BASE, local
    from journeyman.scenarios import CompletionProposer, usable_tools
    from journeyman.scenarios.pools import make_pools

    usable = usable_tools(tools, label, settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes)
    if not any(pool.needs_proposals for pool in make_pools(usable, random.Random(0))):
        return None
    progress.phase("load", note=base or DEFAULT_BASE)
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="journeyman-look-"))
    connection = await stack.enter_async_context(local(base or DEFAULT_BASE, home=home, note=progress.note))
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


def _tool_row(tool: McpTool, is_used: bool) -> dict[str, Any]:
    return {
        "name": tool.server_name,
        "description": tool.description,
        "parameters": tool.parameters,
        "is_read_only": tool.is_read_only,
        "is_destructive": tool.is_destructive,
        "decided": tool.decided,
        "used": is_used,
        "problem": tool.problem,
    }


def _print_tools(console: Terminal, tools: Sequence[McpTool], used: Collection[str]) -> None:
    """A block for each tool: what it takes and says, then what was decided of it and why."""
    from journeyman.cli.console import styled
    from journeyman.scenarios.tools import WHY, what_to_add

    for tool in tools:
        parameters = ", ".join(
            f"{name}{'' if name in tool.required else '?'}: {schema.get('type', 'any')}" for name, schema in tool.properties.items()
        )
        console.print(styled((_one_line(tool.server_name), "bold"), f"({_one_line(parameters)})"))
        if tool.description:
            console.print(f"  {_one_line(tool.description.splitlines()[0])}")
        if tool.problem is not None:
            console.print(f"  left out: {tool.problem}")
            continue
        is_used = tool.name in used
        adds = "" if tool.is_read_only or tool.is_destructive else ", only that it destroys nothing"
        way = "" if tool.is_read_only or is_used else f"; add {what_to_add([tool])}"
        console.print(f"  only reads: {_word(tool.is_read_only)}, {WHY[tool.decided]}{adds}{way}")
        size = len(json.dumps(tool.parameters)) // _CHARS_PER_TOKEN
        console.print(f"  used: {_word(is_used)}; about {size} tokens of schema")


def _one_line(text: str) -> str:
    """A server's words must not look like lines of ours, nor fill the screen."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"


def _word(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _print_scenarios(console: Terminal, made: ScenarioSet, count: int) -> None:
    from journeyman.cli.console import styled

    for title, scenarios in (("held-out", made.heldout), ("training", made.train)):
        console.print(styled((f"{len(scenarios)} {title} scenarios", "bold"), f", {min(count, len(scenarios))} of them:"))
        for scenario in scenarios[:count]:
            console.print(f"  {scenario.task}")
            console.print(f"    {_witness_line(scenario)}", style="dim")


def _witness_line(scenario: Scenario) -> str:
    if scenario.witness is None:
        return "(no witness)"
    calls = " ; ".join(f"{call.tool} {json.dumps(call.arguments, ensure_ascii=False)}" for call in scenario.witness.calls)
    answers = ", ".join(str(answer.value) for answer in scenario.witness.answers)
    return f"{calls} -> {answers}" if answers else calls
