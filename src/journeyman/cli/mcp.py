"""`journeyman mcp tools | scenarios | train`: look at an MCP server, see the tasks, train on it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import (
    AllowChangedOption,
    BaseOption,
    HomeOption,
    JsonOption,
    SeedOption,
    SetOption,
    TargetOptions,
    ToolOptions,
    given,
    grouped,
    home_folder,
)

if TYPE_CHECKING:
    from journeyman.cli.console import Terminal
    from journeyman.mcp import McpTarget, McpTool
    from journeyman.observe.progress import Progress
    from journeyman.scenarios import ChatWriter, Proposer, ScenarioSet, ScenarioSettings
    from journeyman.types.scenarios import Scenario

mcp = typer.Typer(help="Train a model to use an MCP server; look at its tools and tasks first.", no_args_is_help=True)

JudgeOption = Annotated[
    str | None,
    typer.Option("--judge", help="evidence (needs no model) or a model, e.g. openai/gpt-5-mini \\[default: evidence].", show_default=False),
]
JudgeBudgetOption = Annotated[
    str | None,
    typer.Option("--judge-budget", help='The most a judging model may use in this run: "$2.50", or 300k (tokens).', show_default=False),
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=0, help="Training steps.", show_default=False)]
ResumeOption = Annotated[str | None, typer.Option("--resume", help="Go on with this run where it stopped.", metavar="RUN")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings from a YAML file; options given here win.", metavar="FILE")]
WriterOption = Annotated[
    str | None,
    typer.Option(
        "--writer", help="Model that words tasks and proposes values, e.g. openai/gpt-5-mini \\[default: templates].", metavar="MODEL"
    ),
]
CountOption = Annotated[int, typer.Option("--count", min=1, help="How many to show.")]

_CHARS_PER_TOKEN = 4
_SHOWN_CHARS = 1000


@mcp.command("tools")
@grouped
def show(
    server: TargetOptions,
    choice: ToolOptions,
    as_json: JsonOption = False,
) -> None:
    """The server's tools: what each takes, which are known to only read and why, and which would be used. Calls none of them."""
    from journeyman.cli.progress import run_interruptible

    run_interruptible(show_tools(server.target(), choice.settings(), as_json=as_json), str)


@mcp.command("scenarios")
@grouped
def scenarios(
    server: TargetOptions,
    choice: ToolOptions,
    base: BaseOption = None,
    writer: WriterOption = None,
    seed: SeedOption = None,
    count: CountOption = 12,
    as_json: JsonOption = False,
) -> None:
    """Build the tasks that training would use, and show some. Calls the server's tools; trains nothing."""
    from journeyman.cli.progress import run_interruptible

    target, settings = server.target(), choice.settings()
    run_interruptible(show_scenarios(target, settings, base=base, writer=writer, seed=seed or 0, count=count, as_json=as_json), str)


@mcp.command("train")
@grouped
def train(
    server: TargetOptions,
    choice: ToolOptions,
    base: BaseOption = None,
    judge: JudgeOption = None,
    judge_budget: JudgeBudgetOption = None,
    writer: WriterOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    home: HomeOption = None,
    resume: ResumeOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    allow_changed_settings: AllowChangedOption = False,
) -> None:
    """Train a small model to use an MCP server, and report how much better it became.

    Ctrl-C stops cleanly and says how to go on. docs/mcp.md lists every setting of --config and --set, with its default.
    """
    from journeyman.cli.train import TrainRequest, run_mcp_recipe

    budget = None if judge_budget is None else {"budget": judge_budget}
    asked = given(base=base, judge=judge, judge_options=budget, writer=writer, steps=steps, seed=seed)
    run_mcp_recipe(
        TrainRequest(
            home=home_folder(home),
            file=config,
            overrides=tuple(settings or ()),
            given=asked | choice.given(),
            target=server,
            resume=resume,
            allow_changed=allow_changed_settings,
        )
    )


async def show_tools(target: McpTarget, settings: ScenarioSettings, *, as_json: bool = False) -> None:
    """Print the server's tools, what each takes, whether it is known to only read and why, and whether training would call it.

    Raises, after the list, what `choose_tools` raises when nothing could be trained with these tools.
    """
    from journeyman.cli.console import failures, output, write_json
    from journeyman.cli.progress import ProgressView
    from journeyman.errors import McpError
    from journeyman.mcp import open_server
    from journeyman.mcp.tools import choose_tools, vouched_for

    with ProgressView(failures()) as view:
        view.phase("start", note=target.label)
        async with open_server(target) as server:
            pass
    tools = vouched_for(server.tools, target.label, settings.read_only)
    used: set[str] = set()
    fault = None
    try:
        used = {tool.name for tool in choose_tools(tools, target.label, settings.tools, allow_writes=settings.allow_writes).tools}
    except McpError as error:
        fault = error
    if as_json:
        write_json([_tool_row(tool, tool.name in used) for tool in tools])
        return
    print_tools(output(), tools, used)
    for note in server.notes:
        output().print(f"note: {note}")
    if fault is not None:
        raise fault


async def show_scenarios(
    target: McpTarget,
    settings: ScenarioSettings,
    *,
    base: str | None = None,
    writer: str | None = None,
    seed: int = 0,
    count: int = 12,
    as_json: bool = False,
) -> None:
    """Build scenarios and print `count` of each split; how far it is goes to standard error. The base model is loaded only when values
    must be proposed."""
    from journeyman.cli.console import failures, output, write_json
    from journeyman.cli.progress import ProgressView
    from journeyman.mcp import open_server
    from journeyman.scenarios import InTurn, build_scenarios

    with ProgressView(failures()) as view:
        async with contextlib.AsyncExitStack() as stack:
            view.phase("start", note=target.label)
            opened = await _open_writer(writer, stack)
            server = await stack.enter_async_context(open_server(target))
            proposer = await _open_proposer(server.tools, settings, target.label, base, stack, view)
            if opened is not None and proposer is not None:
                proposer = InTurn(opened.proposer(), proposer)
            scenarios = await build_scenarios(server, settings, proposer=proposer, writer=opened, seed=seed, progress=view)
    if as_json:
        write_json([scenario.model_dump(mode="json") for scenario in (*scenarios.heldout[:count], *scenarios.train[:count])])
        return
    print_scenarios(output(), scenarios, count)


async def _open_proposer(
    tools: Sequence[McpTool], settings: ScenarioSettings, label: str, base: str | None, stack: contextlib.AsyncExitStack, progress: Progress
) -> Proposer | None:
    """The base model behind a loopback port, when some argument is free text; nothing is kept of it."""
    import random

    from journeyman.local import DEFAULT_BASE, local
    from journeyman.mcp.tools import choose_tools
    from journeyman.scenarios import CompletionProposer
    from journeyman.scenarios.explore import make_pools

    choice = choose_tools(tools, label, settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes)
    if not any(pool.needs_proposals for pool in make_pools(choice.tools, random.Random(0))):
        return None
    progress.phase("load", note=base or DEFAULT_BASE)
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="journeyman-look-"))
    connection = await stack.enter_async_context(local(base or DEFAULT_BASE, home=home, note=progress.note))
    proposer = CompletionProposer(connection.openai_url, connection.api_key or "")
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


def print_tools(console: Terminal, tools: Sequence[McpTool], used: Collection[str]) -> None:
    """A block for each tool: what it takes and says, then what was decided of it and why."""
    from journeyman.cli.console import styled
    from journeyman.mcp.tools import WHY, what_to_add

    for tool in tools:
        parameters = ", ".join(
            f"{name}{'' if name in tool.required else '?'}: {schema.get('type', 'any')}" for name, schema in tool.properties.items()
        )
        console.print(styled((_one_line(tool.server_name), "bold"), f"({_one_line(parameters)})"))
        if tool.description:
            console.print(f"  {_one_line(tool.description.splitlines()[0])}")
        if tool.problem is not None:
            console.print(f"  left out: {_one_line(tool.problem)}")
            continue
        is_used = tool.name in used
        adds = "" if tool.is_read_only or tool.is_destructive else ", only that it destroys nothing"
        way = "" if tool.is_read_only or is_used else f"; add {what_to_add([tool])}"
        console.print(f"  only reads: {'yes' if tool.is_read_only else 'no'}, {WHY[tool.decided]}{adds}{way}")
        size = len(json.dumps(tool.parameters)) // _CHARS_PER_TOKEN
        console.print(f"  used: {'yes' if is_used else 'no'}; about {size} tokens of schema")


def _one_line(text: str) -> str:
    """A server's words must not look like lines of ours, nor fill the screen."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"


def print_scenarios(console: Terminal, scenarios: ScenarioSet, count: int) -> None:
    from journeyman.cli.console import styled

    for title, part in (("held-out", scenarios.heldout), ("training", scenarios.train)):
        console.print(styled((f"{len(part)} {title} scenarios", "bold"), f", {min(count, len(part))} of them:"))
        for scenario in part[:count]:
            console.print(f"  {_one_line(scenario.task)}")
            console.print(f"    {_one_line(_witness_line(scenario))}", style="dim")


def _witness_line(scenario: Scenario) -> str:
    if scenario.witness is None:
        return "(no witness)"
    calls = " ; ".join(f"{call.tool} {json.dumps(call.arguments, ensure_ascii=False)}" for call in scenario.witness.calls)
    answers = ", ".join(str(answer.value) for answer in scenario.witness.answers)
    return f"{calls} -> {answers}" if answers else calls
