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
from journeyman.mcp.client import open_server
from journeyman.mcp.tools import McpTool, choose_tools
from journeyman.observe.progress import Progress
from journeyman.recipes.loop import KeepingJudge
from journeyman.recipes.report import Costs
from journeyman.recipes.run import OpenRun, open_run
from journeyman.recipes.settings import McpTrain
from journeyman.rewards import EvidenceJudge, Ruler, RulerOptions
from journeyman.rewards.judge import Judge
from journeyman.scenarios.build import ScenarioSettings, build_scenarios
from journeyman.scenarios.proposals import CompletionProposer, InTurn
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.scenarios.writer import ChatWriter
from journeyman.store.checkpoints import clean_leftovers, replaced_folder
from journeyman.store.home import HomeFolder

_SCENARIOS = "scenarios"


@dataclass(slots=True, kw_only=True)
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
            settings.target.revealed()  # a secret that must be given again is named before anything else
            progress.phase("start", note=settings.target.label)
            judge = make_judge(settings, run=run, home=home, progress=progress)
            if isinstance(judge, Ruler):
                stack.push_async_callback(judge.close)
                costs.watch(judge)
                await judge.check()
            folder = HomeFolder(home).run(run).path / _SCENARIOS
            writer = make_writer(settings.writer, folder)
            if writer is not None:
                stack.push_async_callback(writer.close)
                await writer.check()
            tools = await _choose_tools(settings, progress, with_notes=folder.exists())  # else noted when scenarios are built
            rollouts = settings.rollouts
            pool = ServerPool(
                settings.target,
                tools,
                isolation=rollouts.isolation,
                num_shared=num_shared_servers(),
                max_servers=rollouts.max_concurrent,
            )
            if pool.warning is not None:
                progress.warn(pool.warning)
            await stack.enter_async_context(pool)  # the MCP sessions stay awake while the model is loaded
        opened = await stack.enter_async_context(
            open_run(run, settings.base, home, progress, workers=settings.workers, retention=settings.retention, costs=costs)
        )
        progress.note(f"tools: {', '.join(tool.name for tool in tools)}")
        progress.note(f"judge {judge.name}: {judge.description}")
        yield Session(
            run=run,
            home=home,
            backend=opened.backend,
            connection=opened.connection,
            progress=progress,
            costs=costs,
            settings=settings,
            tools=tools,
            pool=pool,
            judge=KeepingJudge(judge, opened.store),
            writer=writer,
        )


async def _choose_tools(settings: McpTrain, progress: Progress, *, with_notes: bool) -> tuple[McpTool, ...]:
    async with open_server(settings.target) as server:
        choice = choose_tools(
            server.tools, settings.target.label, settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes
        )
        for note in (*server.notes, *choice.notes) if with_notes else ():
            progress.note(note)
    return choice.tools


def make_writer(name: str | None, scenarios: Path) -> ChatWriter | None:
    """The writer that the settings name; none for a run whose scenarios are made. Raises LlmError when its key is not set."""
    return None if name is None or scenarios.exists() else ChatWriter(Llm(LlmEndpoint.parse(name)))


def make_judge(settings: McpTrain, *, run: str, home: Path, progress: Progress) -> Judge:
    """The judge that the settings name. Raises SettingError for options that the evidence judge would ignore."""
    options = settings.judge_options
    if settings.judge == "evidence":
        if options != RulerOptions():
            hint = "name a model with --judge, or leave them out"
            raise SettingError("the evidence judge has no options; judge_options were given", hint=hint, reason="no_options")
        return EvidenceJudge()
    return Ruler(settings.judge, options.base_url, options=options, home=home, run=run, warn=progress.warn)


def kept_scenarios(session: Session) -> ScenarioSet:
    scenarios = ScenarioSet.load(session.scenarios_folder)
    scenarios.check_offered(session.tools)
    return scenarios


async def prepare_scenarios(session: Session) -> ScenarioSet:
    """The run's scenarios: read back if they were made before, else made and kept."""
    path = session.scenarios_folder
    if path.exists():
        return await asyncio.to_thread(kept_scenarios, session)
    settings = session.settings
    await session.update(phase="scenarios")
    async with session.costs.phase("scenarios"):
        base, writer = CompletionProposer(session.connection.openai_url, session.connection.api_key), session.writer
        try:
            async with open_server(settings.target) as server:
                scenarios = await build_scenarios(
                    server,
                    scenario_settings(settings),
                    proposer=base if writer is None else InTurn(writer.proposer(), base),
                    writer=writer,
                    seed=settings.seed,
                    progress=session.progress,
                )
        finally:
            await base.close()
    await asyncio.to_thread(_keep, scenarios, path)
    session.progress.note(f"{len(scenarios.train)} training and {len(scenarios.heldout)} held-out scenarios")
    return scenarios


def _keep(scenarios: ScenarioSet, path: Path) -> None:
    clean_leftovers(path.parent)
    with replaced_folder(path, what="scenarios") as aside:
        scenarios.save(aside)


def scenario_settings(settings: McpTrain) -> ScenarioSettings:
    return ScenarioSettings(
        num_train=settings.num_train,
        num_heldout=settings.num_heldout,
        tools=settings.tools,
        read_only=settings.read_only,
        allow_writes=settings.allow_writes,
    )
