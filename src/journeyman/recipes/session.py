"""What a run of the MCP recipe works with, opened in order and closed in reverse: server, backend, scenarios, model, agent, judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.agents.server_pool import ServerPool
from journeyman.agents.tool_loop import ToolLoop, ToolLoopSettings
from journeyman.client.backend import Connection
from journeyman.errors import SettingError
from journeyman.evaluation.report import PhaseCost
from journeyman.local import open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.mcp_settings import McpTrain
from journeyman.rewards import EvidenceJudge, Ruler, RulerOptions
from journeyman.rewards.judge import Judge
from journeyman.scenarios.mcp_client import open_server
from journeyman.scenarios.tools import McpTool, usable_tools
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.store.layout import RunFolder
from journeyman.types.trajectory import Group


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
            judge = make_judge(settings, run=run, home=home, progress=progress)
            if isinstance(judge, Ruler):
                stack.push_async_callback(judge.close)
                await judge.check()
            async with open_server(settings.target) as server:
                found = usable_tools(server.tools, settings.target.label, settings.tools, allow_writes=settings.allow_writes)
            tools = tuple(found)
            pool = await stack.enter_async_context(ServerPool(settings.target, tools, isolation=settings.rollouts.isolation))
            progress.phase("load", note=settings.base)
            backend = open_backend(settings.base, home=home, num_workers=settings.workers, note=progress.note, retention=settings.retention)
            connection = await stack.enter_async_context(serving(backend))
        info = backend.engine.info
        progress.note(
            f"base {info.base} on {info.device}, {info.dtype}, {info.num_workers} workers; tools: {', '.join(t.name for t in tools)}"
        )
        progress.note(f"judge {judge.name}: {judge.description}")
        yield Session(run, settings, home, backend, connection, tools, pool, KeepingJudge(judge, backend.store), progress, costs)


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


class KeepingJudge:
    """Another judge whose every verdict is kept with its rollout: to be looked at later, and so that none is paid for twice."""

    def __init__(self, judge: Judge, store: Store) -> None:
        self._judge, self._store = judge, store

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def description(self) -> str:
        return self._judge.description

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        # A group whose attempts all have verdicts was judged before the run was stopped.
        is_judged = [all(one.verdict is not None for one in group) for group in groups]
        fresh = await self._judge.score([group for group, is_known in zip(groups, is_judged, strict=True) if not is_known])
        attempts = [one for group in fresh for one in group]
        verdicts = {one.id: one.verdict for one in attempts if one.verdict is not None}
        await asyncio.to_thread(self._store.rollouts.set_rewards, {one.id: one.reward for one in attempts}, verdicts)
        next_fresh = iter(fresh)
        return [group if is_known else next(next_fresh) for group, is_known in zip(groups, is_judged, strict=True)]
