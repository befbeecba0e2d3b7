"""`journeyman chat`: talk to what a run trained, to a base model, to a Journeyman server or to any OpenAI-compatible model.

With the tools of an MCP server, beside another model if you like. How it looks is in `chat_talk.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import (
    BaseOption,
    HomeOption,
    TargetOptions,
    ToolOptions,
    checked_key_option,
    grouped,
    home_folder,
    target_of_run,
)
from journeyman.errors import InputError, McpError, SettingError
from journeyman.types.names import BASE, Version

if TYPE_CHECKING:
    from journeyman.agents.conversation import Conversation
    from journeyman.mcp import McpTarget, McpTool
    from journeyman.types.runs import RunInfo

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


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What to talk to, and how; docs/cli.md explains each."""

    run: RunArgument = None
    base: BaseOption = None
    step: StepOption = None
    compare: CompareOption = None
    target: TargetOptions = field(default_factory=TargetOptions)
    choice: ToolOptions = field(default_factory=ToolOptions)
    no_tools: NoToolsOption = False
    system: SystemOption = None
    temperature: TemperatureOption = 0.0
    max_tokens: MaxTokensOption = 256
    seed: SeedOption = 0
    home: HomeOption = None
    connect: ConnectOption = None
    api_key: KeyOption = None


@grouped
def chat(options: ChatOptions, message: MessageOption = None, save: SaveOption = None) -> None:
    """Talk to a model in the terminal; /help lists what can be typed. Tools of the run's MCP server are offered, called and shown."""
    if message is None and not sys.stdin.isatty():
        raise InputError("chat needs a terminal to read from", hint='in a script give --message "TEXT" (repeatable)', reason="no_terminal")
    hold(options, message, save)


def hold(options: ChatOptions, messages: Sequence[str] | None, save: Path | None) -> None:
    """Open, talk (or send `messages`), save, close."""
    from journeyman.cli.chat_talk import Talk
    from journeyman.cli.console import failures, output

    def note(text: str) -> None:
        failures().print(text, style="dim")  # standard error, so that the replies of `--message` can be piped

    console, stack = output(), AsyncExitStack()
    with asyncio.Runner() as runner:
        try:
            conversations, context_length = runner.run(stack.enter_async_context(open_chat(options, note)))
            talk = Talk(conversations, context_length, runner, console)
            if messages is None:
                console.print(greeting(conversations), style="dim")
                talk.hold(line_reader(has_colour=console.color_system is not None))
            for text in messages or ():
                talk.send(text)
            if save is not None:
                talk.save(save)
        finally:
            runner.run(stack.aclose())


def greeting(conversations: Sequence[Conversation]) -> str:
    """Who is there, with which tools."""
    names = " and ".join(conversation.label for conversation in conversations)
    tools = ", ".join(tool.function.name for tool in conversations[0].tools)
    return f"{names}{'; tools: ' if tools else ''}{tools}. /help lists commands, Ctrl-C stops a reply, Ctrl-D ends."


def line_reader(*, has_colour: bool) -> Callable[[], str]:
    """Asks for a line, with editing and history where this Python has them."""
    prompt = "you> "
    with contextlib.suppress(ImportError):
        import readline

        readline.set_history_length(1000)
        if has_colour:
            # The markers tell readline which signs take no room on the line.
            prompt = "\001\033[1;32m\002you>\001\033[0m\002 "
    return lambda: input(prompt)


@asynccontextmanager
async def open_chat(options: ChatOptions, note: Callable[[str], None]) -> AsyncIterator[tuple[tuple[Conversation, ...], int | None]]:
    """The conversations that were asked for (two with --compare), and the context of the model where it is known. Closed with the block.

    Raises:
        SettingError: options that contradict each other; a run that trained nothing.
        NotFoundError: an unknown run, step or model to compare with.
        McpError: the MCP server cannot be used.
        ModelNotFoundError, StoreError, LlmError, ServiceError: as their docstrings say.
    """
    from journeyman.agents.conversation import Conversation, ConversationSettings
    from journeyman.agents.server_pool import ServerPool

    info = _check(options)
    async with AsyncExitStack() as stack:
        # The MCP server first: it is quick to start and the likeliest to fail.
        offer = await _find_tools(options, info, note)
        models, context_length = await _open_models(options, info, stack, note)
        system = options.system if options.system is not None else _default_system(offer is not None, info)
        settings = ConversationSettings(temperature=options.temperature, max_tokens=options.max_tokens, seed=options.seed)
        conversations = []
        for model in models:
            # A server process for each, so that none sees what another changed; what a tool changed stays for the whole conversation.
            pool = None if offer is None else await stack.enter_async_context(ServerPool(*offer, "shared"))
            conversations.append(Conversation(model.client, model.name, settings, system=system, pool=pool, label=model.label))
        yield tuple(conversations), context_length


def _check(options: ChatOptions) -> RunInfo | None:
    """Whether the options make sense; the run it names, when that is one of this home folder."""
    from journeyman.cli.runs import open_store
    from journeyman.cli.serve import base_of

    if options.no_tools and (options.target or options.choice.given()):
        raise SettingError(
            "--no-tools was given together with options about tools", hint="leave out one or the other", reason="tools_and_none"
        )
    if options.step is not None and (options.run is None or options.connect is not None):
        raise SettingError(
            "--step belongs to a run of this machine", hint="give RUN; with --connect name the version: agent@12", reason="step_of_no_run"
        )
    if options.connect is not None:
        if options.base is not None:
            raise SettingError(
                "--base and --connect were both given", hint="a server has its base model already: it is called base", reason="two_bases"
            )
        return None
    if options.run is None and options.base is None:
        raise SettingError(
            "nothing to chat with was given", hint="give a run (see journeyman runs list) or --base smollm2-135m", reason="no_model"
        )
    if options.run is None:
        return None
    base_of(options.run, options.base, home_folder(options.home))
    with open_store(home_folder(options.home), options.run) as store:
        return store.runs.get(options.run)


async def _find_tools(
    options: ChatOptions, info: RunInfo | None, note: Callable[[str], None]
) -> tuple[McpTarget, tuple[McpTool, ...]] | None:
    """The server and its tools to offer: of the server that is named, else of the run's own."""
    from journeyman.mcp import open_server
    from journeyman.mcp.tools import choose_tools

    if options.no_tools:
        return None
    choice = options.choice.settings()
    if info is not None and info.kind == "mcp" and not options.target.names_server:
        from journeyman.cli.runs import open_store
        from journeyman.recipes.resume import run_settings
        from journeyman.recipes.settings import McpTrain

        home = home_folder(options.home)
        with open_store(home) as store:
            settings = run_settings(store, info.id, McpTrain)
        target = target_of_run(info.id, home, options.target)
        read_only, allow_writes = (*settings.read_only, *choice.read_only), choice.allow_writes or settings.allow_writes
        tools = choice.tools or settings.tools
        choice = choice.model_copy(update={"tools": tools, "read_only": read_only, "allow_writes": allow_writes})
    elif options.target:
        target = options.target.target()
    elif options.choice.given():
        hint = 'give one: --server "CMD" or --url URL'
        raise SettingError("--tools, --read-only and --allow-writes need an MCP server", hint=hint, reason="no_target")
    else:
        return None
    note(f"tools of {target.label}")
    try:
        async with open_server(target) as server:
            chosen = choose_tools(server.tools, target.label, choice.tools, read_only=choice.read_only, allow_writes=choice.allow_writes)
            for text in (*server.notes, *chosen.notes):
                note(text)
    except McpError as error:
        if options.target.names_server:
            raise
        hint = f"{error.hint}; or chat without tools: --no-tools" if error.hint else "chat without tools: --no-tools"
        raise McpError(error.reason or "failed", error.message, hint=hint) from error
    return target, chosen.tools


def _default_system(has_tools: bool, info: RunInfo | None) -> str:
    """The words that the run was trained with; with tools those of every tool loop."""
    if has_tools:
        from journeyman.agents.tool_loop import SYSTEM_PROMPT

        return SYSTEM_PROMPT
    if info is None or info.kind != "grpo":
        return ""
    # Only one field is wanted: a run of another version can be talked to although the rest would not be understood.
    return str(info.settings.get("rollout", {}).get("system") or "")


@dataclass(frozen=True, slots=True)
class _Model:
    client: Any
    name: str
    label: str


#: The model of a name, of those that one server serves; the one that was asked for when None.
_Find = Callable[[str | None], _Model]


async def _open_models(
    options: ChatOptions, info: RunInfo | None, stack: AsyncExitStack, note: Callable[[str], None]
) -> tuple[tuple[_Model, ...], int | None]:
    from journeyman.llm import names_provider

    name = options.compare
    compared = await _open_foreign(name, stack) if name is not None and names_provider(name) else None
    context_length: int | None = None
    if options.connect is not None:
        find, context_length = await _open_connection(options, stack)
    elif options.run is None and names_provider(str(options.base)):
        if name is not None and compared is None:
            hint = "name a provider/model to compare with"
            raise SettingError(f"{options.base} cannot be compared with {name!r}", hint=hint, reason="not_comparable")
        foreign = await _open_foreign(str(options.base), stack)
        find = lambda _: foreign  # noqa: E731
    else:
        find, context_length = await _open_here(options, str(options.base) if info is None else info.base, stack, note)
    first = find(None)
    return (first,) if name is None else (first, compared or find(name)), context_length


async def _open_foreign(name: str, stack: AsyncExitStack) -> _Model:
    """A model of a provider. Raises LlmError when its key is not set."""
    from journeyman.llm import LlmEndpoint, open_openai, read_key

    endpoint = LlmEndpoint.parse(name)
    key = read_key(endpoint)
    client = await stack.enter_async_context(open_openai(endpoint.base_url, key or "none"))
    return _Model(client, endpoint.model, name)


async def _open_connection(options: ChatOptions, stack: AsyncExitStack) -> tuple[_Find, int | None]:
    """A server that runs: the model that is named, else the first trained one, else the base."""
    from journeyman.client.backend import connect

    connection = await stack.enter_async_context(connect(str(options.connect), options.api_key))
    health = await connection.health()
    served = [model.id async for model in connection.base_model().openai().models.list()]
    default = options.run if options.run is not None else next((name for name in served[2:] if Version.parse(name) is None), BASE)

    def find(name: str | None) -> _Model:
        name = default if name is None else name
        if name not in served:
            hint = f"it serves {', '.join(served)}"
            raise InputError(f"the server at {connection.url} serves no model {name!r}", hint=hint, reason="unknown_model")
        return _Model(connection.served_model(name).openai(), name, name)

    return find, health.get("engine", {}).get("context_length")


async def _open_here(options: ChatOptions, base: str, stack: AsyncExitStack, note: Callable[[str], None]) -> tuple[_Find, int]:
    """The run, or the base model, in this process. One reply at a time needs no engine processes, which take seconds to start."""
    from journeyman.local import open_backend, serving

    note(f"loading {base}")
    backend = await asyncio.to_thread(open_backend, base, home=home_folder(options.home), engine_processes=0, note=note, is_trained=False)
    connection = await stack.enter_async_context(serving(backend))
    newest = BASE if options.run is None else backend.serve_run(options.run)[-1]
    default = newest if options.step is None else str(Version(newest, options.step))

    def find(name: str | None) -> _Model:
        version = backend.weights.find(default if name is None else name)
        served = BASE if version is None else version.name
        return _Model(connection.served_model(served).openai(), served, f"base {backend.base}" if version is None else served)

    return find, backend.engine.info.context_length
