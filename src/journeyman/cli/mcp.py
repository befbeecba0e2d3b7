"""`journeyman mcp tools | scenarios | train`: look at an MCP server, see the tasks, train on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from journeyman.cli.options import (
    AllowWritesOption,
    BaseOption,
    CountOption,
    EnvOption,
    HeaderOption,
    HomeOption,
    JsonOption,
    ReadOnlyOption,
    SeedOption,
    ServerOption,
    ToolsOption,
    UrlOption,
    WriterOption,
    home_folder,
    names_of,
)

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
AllowChangedOption = Annotated[
    bool, typer.Option("--allow-changed-settings", help="With --resume: go on although settings given here differ from the run's.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, e.g. grpo.learning_rate=1e-4; repeatable.", metavar="NAME=VALUE")
]


@mcp.command("tools")
def show(
    server: ServerOption = None,
    url: UrlOption = None,
    header: HeaderOption = None,
    env: EnvOption = None,
    tools: ToolsOption = None,
    read_only: ReadOnlyOption = None,
    allow_writes: AllowWritesOption = False,
    as_json: JsonOption = False,
) -> None:
    """The server's tools: what each takes, which are known to only read and why, and which would be used. Calls none of them."""
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.mcp_look import show_tools
    from journeyman.cli.mcp_target import target_from_options

    target = target_from_options(server, url, header, env)
    work = show_tools(
        target,
        tools=names_of(tools, "--tools"),
        read_only=names_of(read_only, "--read-only") or (),
        allow_writes=allow_writes,
        as_json=as_json,
    )
    run_interruptible(work, str)


@mcp.command("scenarios")
def scenarios(
    server: ServerOption = None,
    url: UrlOption = None,
    header: HeaderOption = None,
    env: EnvOption = None,
    base: BaseOption = None,
    writer: WriterOption = None,
    tools: ToolsOption = None,
    read_only: ReadOnlyOption = None,
    allow_writes: AllowWritesOption = False,
    seed: SeedOption = None,
    count: CountOption = 12,
    as_json: JsonOption = False,
) -> None:
    """Build the tasks that training would use, and show some. Calls the server's tools; trains nothing."""
    from journeyman.cli.interrupts import run_interruptible
    from journeyman.cli.mcp_look import show_scenarios
    from journeyman.cli.mcp_target import target_from_options

    target = target_from_options(server, url, header, env)
    work = show_scenarios(
        target,
        base=base,
        writer=writer,
        tools=names_of(tools, "--tools"),
        read_only=names_of(read_only, "--read-only") or (),
        allow_writes=allow_writes,
        seed=seed or 0,
        count=count,
        as_json=as_json,
    )
    run_interruptible(work, str)


@mcp.command("train")
def train(
    server: ServerOption = None,
    url: UrlOption = None,
    header: HeaderOption = None,
    env: EnvOption = None,
    base: BaseOption = None,
    judge: JudgeOption = None,
    judge_budget: JudgeBudgetOption = None,
    writer: WriterOption = None,
    steps: StepsOption = None,
    tools: ToolsOption = None,
    read_only: ReadOnlyOption = None,
    allow_writes: AllowWritesOption = False,
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
    from journeyman.cli.mcp_target import TargetOptions
    from journeyman.cli.mcp_train import Request, run_training

    given: dict[str, Any] = {"base": base, "judge": judge, "writer": writer, "steps": steps, "seed": seed}
    given["judge_options"] = {"budget": judge_budget} if judge_budget is not None else None
    given["tools"] = names_of(tools, "--tools")
    given["read_only"] = names_of(read_only, "--read-only")
    given["allow_writes"] = allow_writes or None
    run_training(
        Request(
            target=TargetOptions(server, url, header, env),
            given={name: value for name, value in given.items() if value is not None},
            config=config,
            overrides=tuple(settings or ()),
            resume=resume,
            home=home_folder(home),
            allow_changed=allow_changed_settings,
        )
    )
