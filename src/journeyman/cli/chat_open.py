"""What `journeyman chat` talks to: a run or base model served in this process, a Journeyman server, or any OpenAI-compatible model; and
the MCP server whose tools are offered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.agents.conversation import Conversation, ConversationSettings
from journeyman.cli.options import TargetOptions, target_of_run
from journeyman.errors import InputError, McpError, SettingError

if TYPE_CHECKING:
    from journeyman.agents.server_pool import ServerPool
    from journeyman.scenarios import McpTarget, McpTool
    from journeyman.types.runs import RunInfo


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


@dataclass(frozen=True, slots=True)
class OpenChat:
    """Conversations to hold side by side (one, or two with --compare), and the context of the model served here, where it is known."""

    conversations: tuple[Conversation, ...]
    context_length: int | None


@dataclass(frozen=True, slots=True)
class _Speaker:
    client: Any
    model: str
    label: str


@dataclass(frozen=True, slots=True)
class _Offer:
    """Tools of a server, for pools: each conversation gets a server process of its own, so that none sees what another changed."""

    target: McpTarget
    tools: tuple[McpTool, ...]


@asynccontextmanager
async def open_chat(request: ChatRequest, note: Callable[[str], None]) -> AsyncIterator[OpenChat]:
    """Open what was asked for; everything is closed when the block ends.

    Raises:
        SettingError: options that contradict each other; a run that trained nothing.
        NotFoundError: an unknown run, step or model to compare with.
        McpError: the MCP server cannot be used.
        ModelNotFoundError, StoreError, LlmError, ServiceError: as their docstrings say.
    """
    info = _check(request)
    async with AsyncExitStack() as stack:
        # The MCP server first: it is quick to start and the likeliest to fail.
        offer = await _find_tools(request, info, note)
        speakers, context_length = await _open_speakers(request, stack, note)
        system = request.system if request.system is not None else _default_system(offer, info)
        conversations = []
        for speaker in speakers:
            pool = None if offer is None else await _open_pool(offer, stack)
            conversations.append(
                Conversation(speaker.client, speaker.model, request.settings, system=system, pool=pool, label=speaker.label)
            )
        yield OpenChat(tuple(conversations), context_length)


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


# Tools ----------------------------------------------------------------------------------------------------------------


async def _find_tools(request: ChatRequest, info: RunInfo | None, note: Callable[[str], None]) -> _Offer | None:
    """The tools to offer: of the server that is named, else of the run's own."""
    from journeyman.scenarios import open_server
    from journeyman.scenarios.tools import choose_tools

    names, read_only, allow_writes, asked = request.tools, request.read_only, request.allow_writes, request.target
    if request.no_tools:
        return None
    if asked.names_server or (asked and (info is None or info.kind != "mcp")):
        target = asked.target()
    elif info is not None and info.kind == "mcp":
        from journeyman.cli.runs import open_store
        from journeyman.recipes.resume import run_settings
        from journeyman.recipes.settings import McpTrain

        with open_store(request.home) as store:
            settings = run_settings(store, info.id, McpTrain)
        target, names = target_of_run(info.id, request.home, asked), names or settings.tools
        read_only, allow_writes = (*settings.read_only, *read_only), allow_writes or settings.allow_writes
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
        if asked.names_server:
            raise
        hint = f"{error.hint}; or chat without tools: --no-tools" if error.hint else "chat without tools: --no-tools"
        raise McpError(error.reason or "failed", error.message, hint=hint) from error
    return _Offer(target, choice.tools)


async def _open_pool(offer: _Offer, stack: AsyncExitStack) -> ServerPool:
    from journeyman.agents.server_pool import ServerPool

    # Shared: what a tool changed stays changed for the whole conversation.
    return await stack.enter_async_context(ServerPool(offer.target, offer.tools, "shared"))


def _default_system(offer: _Offer | None, info: RunInfo | None) -> str:
    """The words that the run was trained with; with tools those of every tool loop."""
    if offer is not None:
        from journeyman.agents.tool_loop import SYSTEM_PROMPT

        return SYSTEM_PROMPT
    if info is None or info.kind != "grpo":
        return ""
    # Only one field is wanted: a run of another version can be talked to although the rest would not be understood.
    return str(info.settings.get("rollout", {}).get("system") or "")


# Models ---------------------------------------------------------------------------------------------------------------


async def _open_speakers(
    request: ChatRequest, stack: AsyncExitStack, note: Callable[[str], None]
) -> tuple[tuple[_Speaker, ...], int | None]:
    from journeyman.llm import names_provider

    other = [] if request.compare is None else [request.compare]
    foreign = {name: await _open_foreign(name, stack) for name in other if names_provider(name)}
    if request.connect is not None:
        first, known, context_length = await _open_connection(request, stack)
    elif request.run is None and names_provider(str(request.base)):
        if other and not foreign:
            raise SettingError(f"{request.base} cannot be compared with {request.compare!r}", hint="name a provider/model to compare with")
        speaker = await _open_foreign(str(request.base), stack)
        return (speaker, *foreign.values()), None
    else:
        first, known, context_length = await _open_here(request, stack, note)
    return (first, *(foreign.get(name) or known(name) for name in other)), context_length


async def _open_foreign(name: str, stack: AsyncExitStack) -> _Speaker:
    """A model of a provider. Raises LlmError when its key is not set."""
    from journeyman.llm import LlmEndpoint, open_openai, read_key

    endpoint = LlmEndpoint.parse(name)
    key = read_key(endpoint)
    client = await stack.enter_async_context(open_openai(endpoint.base_url, key or "none"))
    return _Speaker(client, endpoint.model, name)


async def _open_connection(request: ChatRequest, stack: AsyncExitStack) -> tuple[_Speaker, Callable[[str], _Speaker], int | None]:
    """A model of a server that runs: the one that is named, else the first trained one, else the base."""
    from journeyman.client.backend import connect

    connection = await stack.enter_async_context(connect(str(request.connect), request.api_key))
    health = await connection.health()
    served = [model.id async for model in connection.base_model().openai().models.list()]

    def known(name: str) -> _Speaker:
        if name not in served:
            raise InputError(f"the server at {connection.url} serves no model {name!r}", hint=f"it serves {', '.join(served)}")
        return _Speaker(connection.served_model(name).openai(), name, name)

    trained = [name for name in served[2:] if "@" not in name]
    return known(request.run or (trained or ["base"])[0]), known, health.get("engine", {}).get("context_length")


async def _open_here(
    request: ChatRequest, stack: AsyncExitStack, note: Callable[[str], None]
) -> tuple[_Speaker, Callable[[str], _Speaker], int]:
    """Serve the run, or the base model, in this process. One reply at a time needs no engine processes, which take seconds to start."""
    from journeyman.cli.serve import base_of
    from journeyman.local import open_backend, serving

    base = base_of(request.run, request.base, request.home)
    note(f"loading {base}")
    backend = await asyncio.to_thread(open_backend, base, home=request.home, engine_processes=0, note=note, is_trained=False)
    connection = await stack.enter_async_context(serving(backend))
    names = backend.serve_run(request.run) if request.run else ("base",)

    def known(name: str) -> _Speaker:
        version = backend.weights.resolve(name)
        served = version or "base"
        return _Speaker(connection.served_model(served).openai(), served, version or f"base {backend.base}")

    first = known(names[-1] if request.step is None else f"{names[-1]}@{request.step}")
    return first, known, backend.engine.info.context_length
