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
    target_of_run,
)
from journeyman.errors import InputError, McpError, SettingError

if TYPE_CHECKING:
    from journeyman.agents.conversation import Conversation, ConversationSettings
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
    hold(request, message, save)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the command line asked for; docs/cli.md explains each."""

    home: Path
    settings: ConversationSettings
    run: str | None = None
    base: str | None = None
    step: int | None = None
    connect: str | None = None
    api_key: str | None = None
    compare: str | None = None
    target: TargetOptions = field(default_factory=TargetOptions)
    tools: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    no_tools: bool = False
    allow_writes: bool = False
    system: str | None = None


def hold(request: ChatRequest, messages: Sequence[str] | None, save: Path | None) -> None:
    """Open, talk (or send `messages`), save, close."""
    from journeyman.cli.chat_talk import Talk
    from journeyman.cli.console import failures, output

    def note(text: str) -> None:
        failures().print(text, style="dim")  # standard error, so that the replies of `--message` can be piped

    console, stack = output(), AsyncExitStack()
    with asyncio.Runner() as runner:
        try:
            conversations, context_length = runner.run(stack.enter_async_context(open_chat(request, note)))
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
async def open_chat(request: ChatRequest, note: Callable[[str], None]) -> AsyncIterator[tuple[tuple[Conversation, ...], int | None]]:
    """The conversations that were asked for (two with --compare), and the context of the model where it is known. Closed with the block.

    Raises:
        SettingError: options that contradict each other; a run that trained nothing.
        NotFoundError: an unknown run, step or model to compare with.
        McpError: the MCP server cannot be used.
        ModelNotFoundError, StoreError, LlmError, ServiceError: as their docstrings say.
    """
    from journeyman.agents.conversation import Conversation
    from journeyman.agents.server_pool import ServerPool

    info = _check(request)
    async with AsyncExitStack() as stack:
        # The MCP server first: it is quick to start and the likeliest to fail.
        offer = await _find_tools(request, info, note)
        models, context_length = await _open_models(request, stack, note)
        system = request.system if request.system is not None else _default_system(offer is not None, info)
        conversations = []
        for model in models:
            # A server process for each, so that none sees what another changed; what a tool changed stays for the whole conversation.
            pool = None if offer is None else await stack.enter_async_context(ServerPool(*offer, "shared"))
            conversations.append(Conversation(model.client, model.name, request.settings, system=system, pool=pool, label=model.label))
        yield tuple(conversations), context_length


def _check(request: ChatRequest) -> RunInfo | None:
    """Whether the request makes sense; the run it names, when that is one of this home folder."""
    from journeyman.cli.runs import open_store
    from journeyman.cli.serve import base_of

    if request.no_tools and any((request.target, request.tools, request.read_only, request.allow_writes)):
        raise SettingError("--no-tools was given together with options about tools", hint="leave out one or the other")
    if request.step is not None and (request.run is None or request.connect is not None):
        raise SettingError("--step belongs to a run of this machine", hint="give RUN; with --connect name the version: agent@12")
    if request.connect is not None:
        if request.base is not None:
            raise SettingError("--base and --connect were both given", hint="a server has its base model already: it is called base")
        return None
    if request.run is None and request.base is None:
        raise SettingError("nothing to chat with was given", hint="give a run (see journeyman runs list) or --base smollm2-135m")
    if request.run is None:
        return None
    base_of(request.run, request.base, request.home)
    with open_store(request.home, request.run) as store:
        return store.runs.get(request.run)


async def _find_tools(
    request: ChatRequest, info: RunInfo | None, note: Callable[[str], None]
) -> tuple[McpTarget, tuple[McpTool, ...]] | None:
    """The server and its tools to offer: of the server that is named, else of the run's own."""
    from journeyman.mcp import open_server
    from journeyman.mcp.tools import choose_tools

    names, read_only, allow_writes = request.tools, request.read_only, request.allow_writes
    if request.no_tools:
        return None
    if info is not None and info.kind == "mcp" and not request.target.names_server:
        from journeyman.cli.runs import open_store
        from journeyman.recipes.resume import run_settings
        from journeyman.recipes.settings import McpTrain

        with open_store(request.home) as store:
            settings = run_settings(store, info.id, McpTrain)
        target, names = target_of_run(info.id, request.home, request.target), names or settings.tools
        read_only, allow_writes = (*settings.read_only, *read_only), allow_writes or settings.allow_writes
    elif request.target:
        target = request.target.target()
    elif names or read_only or allow_writes:
        raise SettingError("--tools, --read-only and --allow-writes need an MCP server", hint='give one: --server "CMD" or --url URL')
    else:
        return None
    note(f"tools of {target.label}")
    try:
        async with open_server(target) as server:
            choice = choose_tools(server.tools, target.label, names, read_only=read_only, allow_writes=allow_writes)
            for text in (*server.notes, *choice.notes):
                note(text)
    except McpError as error:
        if request.target.names_server:
            raise
        hint = f"{error.hint}; or chat without tools: --no-tools" if error.hint else "chat without tools: --no-tools"
        raise McpError(error.reason or "failed", error.message, hint=hint) from error
    return target, choice.tools


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


async def _open_models(request: ChatRequest, stack: AsyncExitStack, note: Callable[[str], None]) -> tuple[tuple[_Model, ...], int | None]:
    from journeyman.llm import names_provider

    name = request.compare
    compared = await _open_foreign(name, stack) if name is not None and names_provider(name) else None
    context_length: int | None = None
    if request.connect is not None:
        find, context_length = await _open_connection(request, stack)
    elif request.run is None and names_provider(str(request.base)):
        if name is not None and compared is None:
            raise SettingError(f"{request.base} cannot be compared with {name!r}", hint="name a provider/model to compare with")
        foreign = await _open_foreign(str(request.base), stack)
        find = lambda _: foreign  # noqa: E731
    else:
        find, context_length = await _open_here(request, stack, note)
    first = find(None)
    return (first,) if name is None else (first, compared or find(name)), context_length


async def _open_foreign(name: str, stack: AsyncExitStack) -> _Model:
    """A model of a provider. Raises LlmError when its key is not set."""
    from journeyman.llm import LlmEndpoint, open_openai, read_key

    endpoint = LlmEndpoint.parse(name)
    key = read_key(endpoint)
    client = await stack.enter_async_context(open_openai(endpoint.base_url, key or "none"))
    return _Model(client, endpoint.model, name)


async def _open_connection(request: ChatRequest, stack: AsyncExitStack) -> tuple[_Find, int | None]:
    """A server that runs: the model that is named, else the first trained one, else the base."""
    from journeyman.client.backend import connect

    connection = await stack.enter_async_context(connect(str(request.connect), request.api_key))
    health = await connection.health()
    served = [model.id async for model in connection.base_model().openai().models.list()]
    default = request.run if request.run is not None else next((name for name in served[2:] if "@" not in name), "base")

    def find(name: str | None) -> _Model:
        name = default if name is None else name
        if name not in served:
            raise InputError(f"the server at {connection.url} serves no model {name!r}", hint=f"it serves {', '.join(served)}")
        return _Model(connection.served_model(name).openai(), name, name)

    return find, health.get("engine", {}).get("context_length")


async def _open_here(request: ChatRequest, stack: AsyncExitStack, note: Callable[[str], None]) -> tuple[_Find, int]:
    """The run, or the base model, in this process. One reply at a time needs no engine processes, which take seconds to start."""
    from journeyman.cli.serve import base_of
    from journeyman.local import open_backend, serving

    base = base_of(request.run, request.base, request.home)
    note(f"loading {base}")
    backend = await asyncio.to_thread(open_backend, base, home=request.home, engine_processes=0, note=note, is_trained=False)
    connection = await stack.enter_async_context(serving(backend))
    newest = "base" if request.run is None else backend.serve_run(request.run)[-1]
    default = newest if request.step is None else f"{newest}@{request.step}"

    def find(name: str | None) -> _Model:
        version = backend.weights.resolve(default if name is None else name)
        served = version or "base"
        return _Model(connection.served_model(served).openai(), served, version or f"base {backend.base}")

    return find, backend.engine.info.context_length
