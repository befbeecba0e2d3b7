"""What a run of the MCP recipe works with, opened in order and closed in reverse: server, backend, scenarios, model, agent, judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from journeyman.agents.server_pool import ServerPool, num_shared_servers
from journeyman.agents.tool_loop import ToolLoop, ToolLoopSettings
from journeyman.errors import SettingError
from journeyman.llm import Llm, LlmEndpoint
from journeyman.local import open_backend, serving
from journeyman.mcp.client import open_server
from journeyman.mcp.tools import McpTool, choose_tools
from journeyman.observe.progress import Progress
from journeyman.recipes.costs import Costs
from journeyman.recipes.open_run import KeepingJudge, OpenRun
from journeyman.recipes.settings import McpTrain
from journeyman.rewards import EvidenceJudge, Ruler, RulerOptions
from journeyman.rewards.judge import Judge
from journeyman.scenarios.writer import ChatWriter
from journeyman.store.layout import HomeFolder

_SCENARIOS = "scenarios"


@dataclass(slots=True)
class Session(OpenRun):
    """Everything open while a run trains or is evaluated. `writer`: only while the run has no scenarios yet."""

    settings: McpTrain
    tools: tuple[McpTool, ...]
    pool: ServerPool
    judge: Judge
    writer: ChatWriter | None = None

    @property
    def scenarios_folder(self) -> Path:
        return self.folder.path / _SCENARIOS

    def agent(self, temperature: float = 1.0) -> ToolLoop:
        rollouts = self.settings.rollouts
        return ToolLoop(self.pool, ToolLoopSettings(max_turns=rollouts.max_turns, max_tokens=rollouts.max_tokens, temperature=temperature))


@asynccontextmanager
async def open_session(run: str, settings: McpTrain, home: Path, progress: Progress) -> AsyncIterator[Session]:
    """Reach the MCP server first (cheap, and most likely to fail), then load the base model."""
    costs = Costs()
    async with AsyncExitStack() as stack:
        async with costs.phase("start"):
            settings.target.revealed()  # a secret that must be given again is told before anything else
            progress.phase("start", note=settings.target.label)
            judge = make_judge(settings, run=run, home=home, progress=progress)
            if isinstance(judge, Ruler):
                stack.push_async_callback(judge.close)
                costs.watch(judge)
                await judge.check()
            writer = make_writer(settings.writer, HomeFolder(home).run(run).path / _SCENARIOS)
            if writer is not None:
                stack.push_async_callback(writer.close)
                await writer.check()
            async with open_server(settings.target) as server:
                choice = choose_tools(
                    server.tools,
                    settings.target.label,
                    settings.tools,
                    read_only=settings.read_only,
                    allow_writes=settings.allow_writes,
                )
                if (HomeFolder(home).run(run).path / _SCENARIOS).exists():  # else told when they are built
                    for note in (*server.notes, *choice.notes):
                        progress.note(note)
            tools = choice.tools
            shared = ServerPool(
                settings.target,
                tools,
                isolation=settings.rollouts.isolation,
                num_shared=num_shared_servers(),
                max_servers=settings.rollouts.max_concurrent,
            )
            if shared.warning is not None:
                progress.warn(shared.warning)
            pool = await stack.enter_async_context(shared)
            progress.phase("load", note=settings.base)
            backend = await asyncio.to_thread(  # the MCP sessions stay awake
                open_backend, settings.base, home=home, num_workers=settings.workers, note=progress.note, retention=settings.retention
            )
            connection = await stack.enter_async_context(serving(backend))
        costs.count_tokens(lambda: backend.sampling.num_sampled_tokens)
        info = backend.engine.info
        progress.note(
            f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers; tools: {', '.join(t.name for t in tools)}"
        )
        progress.note(f"judge {judge.name}: {judge.description}")
        keeping = KeepingJudge(judge, backend.store)
        yield Session(run, home, backend, connection, progress, costs, settings, tools, pool, keeping, writer)


def make_writer(name: str | None, scenarios: Path) -> ChatWriter | None:
    """The writer that the settings name; none for a run whose scenarios are made. Raises LlmError when its key is not set."""
    return None if name is None or scenarios.exists() else ChatWriter(Llm(LlmEndpoint.parse(name)))


def make_judge(settings: McpTrain, *, run: str, home: Path, progress: Progress) -> Judge:
    """The judge that the settings name. Raises SettingError for options that the evidence judge would ignore."""
    options = settings.judge_options
    if settings.judge == "evidence":
        if options != RulerOptions():
            raise SettingError(
                "the evidence judge has no options; judge_options were given", hint="name a model with --judge, or leave them out"
            )
        return EvidenceJudge()
    return Ruler(settings.judge, options.base_url, options=options, home=home, run=run, warn=progress.warn)
