"""`journeyman chat`: talk to what a run trained, with its tools, beside the base model if you like."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.cli.options import (
    AllowWritesOption,
    BaseOption,
    EnvOption,
    HeaderOption,
    HomeOption,
    ReadOnlyOption,
    ServerOption,
    TargetOptions,
    ToolsOption,
    UrlOption,
    checked_key_option,
    home_folder,
    names_of,
)

if TYPE_CHECKING:
    from journeyman.cli.chat_open import ChatRequest, OpenChat

RunArgument = Annotated[
    str | None,
    typer.Argument(
        help="Id of a run (journeyman runs list); with --connect: a model that the server serves.", metavar="RUN", show_default=False
    ),
]
StepOption = Annotated[
    int | None, typer.Option("--step", min=0, help="The run's model at this step \\[default: newest].", show_default=False)
]
CompareOption = Annotated[
    str | None,
    typer.Option(
        "--compare", help="Also ask this model, side by side: base, NAME@STEP or PROVIDER/MODEL.", metavar="MODEL", show_default=False
    ),
]
ConnectOption = Annotated[
    str | None, typer.Option("--connect", help="Talk to a Journeyman server that runs.", metavar="URL", show_default=False)
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key", help="Of the server of --connect.", envvar="JOURNEYMAN_API_KEY", callback=checked_key_option, show_default=False
    ),
]
NoToolsOption = Annotated[bool, typer.Option("--no-tools", help="Offer no tools, although the run has an MCP server.")]
SystemOption = Annotated[
    str | None, typer.Option("--system", help="System message \\[default: the one the run was trained with].", show_default=False)
]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0.0, max=100.0, help="0 takes the likeliest token.")]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="Of one reply.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the replies; both columns of --compare use it.")]
MessageOption = Annotated[
    list[str] | None,
    typer.Option("--message", "-m", help="Send this and end; repeatable: one conversation.", metavar="TEXT", show_default=False),
]
SaveOption = Annotated[
    Path | None, typer.Option("--save", help="At the end add the conversation to this JSON lines file.", metavar="FILE", show_default=False)
]


def chat(
    run: RunArgument = None,
    base: BaseOption = None,
    step: StepOption = None,
    compare: CompareOption = None,
    message: MessageOption = None,
    save: SaveOption = None,
    server: ServerOption = None,
    url: UrlOption = None,
    header: HeaderOption = None,
    env: EnvOption = None,
    tools: ToolsOption = None,
    no_tools: NoToolsOption = False,
    read_only: ReadOnlyOption = None,
    allow_writes: AllowWritesOption = False,
    system: SystemOption = None,
    temperature: TemperatureOption = 0.0,
    max_tokens: MaxTokensOption = 256,
    seed: SeedOption = 0,
    home: HomeOption = None,
    connect: ConnectOption = None,
    api_key: KeyOption = None,
) -> None:
    """Talk to a model in the terminal; /help lists what can be typed. Tools of the run's MCP server are offered, called and shown."""
    from journeyman.agents.conversation import ConversationSettings
    from journeyman.cli.chat_open import ChatRequest
    from journeyman.errors import InputError

    if message is None and not sys.stdin.isatty():
        raise InputError("chat needs a terminal to read from", hint='in a script give --message "TEXT" (repeatable)')
    request = ChatRequest(
        home=home_folder(home),
        settings=ConversationSettings(temperature=temperature, max_tokens=max_tokens, seed=seed),
        run=run,
        base=base,
        step=step,
        connect=connect,
        api_key=api_key,
        compare=compare,
        target=TargetOptions(server, url, header, env),
        tools=names_of(tools, "--tools"),
        read_only=names_of(read_only, "--read-only") or (),
        no_tools=no_tools,
        allow_writes=allow_writes,
        system=system,
    )
    _hold(request, message, save)


def _hold(request: ChatRequest, messages: Sequence[str] | None, save: Path | None) -> None:
    """Open, talk, save, close."""
    from journeyman.cli.chat_loop import ChatLoop, line_reader, note
    from journeyman.cli.chat_open import open_chat
    from journeyman.cli.console import output
    from journeyman.cli.loop_thread import LoopThread

    console = output()
    with LoopThread() as loop:
        stack = AsyncExitStack()
        try:
            opened = loop.run(stack.enter_async_context(open_chat(request, note)))
            talk = ChatLoop(opened, loop, console, line_reader(console))
            if messages is None:
                console.print(greeting(opened), style="dim")
                talk.talk()
            for text in messages or ():
                talk.send(text)
            if save is not None:
                talk.save(save)
        finally:
            loop.run(stack.aclose())


def greeting(opened: OpenChat) -> str:
    """Who is there, with which tools."""
    first = opened.conversations[0]
    names = " and ".join(conversation.label for conversation in opened.conversations)
    tools = f"; tools: {', '.join(tool.function.name for tool in first.tools)}" if first.tools else ""
    return f"{names}{tools}. /help lists commands, Ctrl-C stops a reply, Ctrl-D ends."
