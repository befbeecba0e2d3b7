"""What a run of the MCP recipe works with, opened in order and closed in reverse: server, backend, scenarios, model, agent, judge."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.agents.server_pool import ServerPool
from journeyman.agents.tool_loop import ToolLoop, ToolLoopSettings
from journeyman.client.backend import Connection
from journeyman.evaluation.report import PhaseCost
from journeyman.local import open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.mcp_settings import McpTrain
from journeyman.rewards import EvidenceJudge, Ruler
from journeyman.rewards.judge import Judge
from journeyman.scenarios.mcp_client import open_server
from journeyman.scenarios.tools import McpTool, usable_tools
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.store.layout import RunFolder


@dataclass(slots=True)
class Costs:
    """Time spent in phases that leave no steps behind."""

    phases: list[PhaseCost] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.phases.append(PhaseCost(name=name, seconds=time.perf_counter() - started))


@dataclass(slots=True)
class Session:
    """Everything open while a run trains or is evaluated."""

    run: str
    settings: McpTrain
    home: Path
    backend: Backend
    connection: Connection
    tools: tuple[McpTool, ...]
    pool: ServerPool
    judge: Judge
    progress: Progress
    costs: Costs

    @property
    def store(self) -> Store:
        return self.backend.store

    @property
    def folder(self) -> RunFolder:
        return self.store.home.run(self.run)

    @property
    def scenarios_folder(self) -> Path:
        return self.folder.path / "scenarios"

    def agent(self, temperature: float = 1.0) -> ToolLoop:
        rollouts = self.settings.rollouts
        return ToolLoop(self.pool, ToolLoopSettings(max_turns=rollouts.max_turns, max_tokens=rollouts.max_tokens, temperature=temperature))


@asynccontextmanager
async def open_session(run: str, settings: McpTrain, home: Path, progress: Progress) -> AsyncIterator[Session]:
    """Reach the MCP server first (cheap, and most likely to fail), then load the base model."""
    costs = Costs()
    async with AsyncExitStack() as stack:
        with costs.phase("start"):
            progress.phase("start", note=settings.target.label)
            judge = make_judge(settings)
            if isinstance(judge, Ruler):
                stack.push_async_callback(judge.close)
                await judge.check()
            async with open_server(settings.target) as server:
                found = usable_tools(server.tools, settings.target.label, settings.tools, allow_writes=settings.allow_writes)
            tools = tuple(found)
            pool = await stack.enter_async_context(ServerPool(settings.target, tools, isolation=settings.rollouts.isolation))
            progress.phase("load", note=settings.base)
            backend = open_backend(settings.base, home=home, num_workers=settings.workers, note=progress.note)
            connection = await stack.enter_async_context(serving(backend))
        info = backend.engine.info
        progress.note(
            f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers; tools: {', '.join(t.name for t in tools)}"
        )
        progress.note(f"judge {judge.name}: {judge.description}")
        yield Session(run, settings, home, backend, connection, tools, pool, judge, progress, costs)


def make_judge(settings: McpTrain) -> Judge:
    """The judge that the settings name."""
    return EvidenceJudge() if settings.judge == "evidence" else Ruler(settings.judge)
