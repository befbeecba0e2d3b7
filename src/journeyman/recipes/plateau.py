"""When not to fine-tune: how far prompting takes a model on held-out scenarios, and whether training is worth it.

    settings = PlateauSettings(model="smollm2-135m", target=McpTarget.parse("python -m mcp_server_time"))
    plateau = await measure_plateau(settings, SilentProgress(), home=Path(".journeyman"), folder=Path("plateau"))

Every prompt is tried with every number of worked examples, all on the same held-out scenarios, greedily, judged by evidence. A cell is
kept as soon as it is measured: the same call again measures only what is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from journeyman.agents.server_pool import Isolation, ServerPool, num_shared_servers
from journeyman.agents.tool_loop import SYSTEM_PROMPT, ToolLoop, ToolLoopSettings
from journeyman.config import command_line
from journeyman.errors import SettingError
from journeyman.evaluation.heldout import VariantResult, scenarios_hash
from journeyman.evaluation.plateau import Plateau, assess, write_plateau
from journeyman.llm import names_provider
from journeyman.mcp.client import open_server
from journeyman.mcp.target import McpTarget
from journeyman.mcp.tools import choose_tools
from journeyman.observe.progress import Progress
from journeyman.recipes.plateau_bench import PROVIDER_MAX_TOKENS, Bench, Prompted, PromptedModel, trained_adapter
from journeyman.recipes.resume import run_settings
from journeyman.recipes.session import scenario_settings
from journeyman.recipes.settings import McpTrain, Rollouts
from journeyman.rewards import EvidenceJudge
from journeyman.scenarios.build import build_scenarios
from journeyman.scenarios.drills import make_shots
from journeyman.scenarios.proposals import CompletionProposer
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.store import Store
from journeyman.types.record import Record
from journeyman.types.settings import Seed

PROMPTS: Mapping[str, str] = {
    "default": SYSTEM_PROMPT,
    "terse": "Answer with the tools, in a few words.",
    "step by step": (
        "You answer questions with tools. Work step by step: choose the tool that fits, call it with arguments taken from the question, "
        "read its result, and when you have every value that is asked for, state it in one short sentence. Never guess a value."
    ),
}
"""Tried by default: the words that runs are trained with, a terse prompt, and one that spells the steps out."""


class PlateauSettings(Record):
    """What to measure.

    Attributes:
        model: PROVIDER/MODEL of any OpenAI-compatible server, or a base model (a known name, a folder, a Hugging Face id).
        target: the MCP server.
        prompts: system messages by name.
        shots: numbers of worked examples before each task, from training scenarios.
        goal: the success that is wanted.
        limit: only the first so many held-out scenarios.
        max_tokens: of one reply; None: as in training for a base model, 1024 for a provider's.
        run: a run whose scenarios are used, and whose trained model is compared; None: scenarios are made for `target`.
    """

    model: str
    target: McpTarget
    prompts: dict[str, str] = Field(default_factory=lambda: dict(PROMPTS))
    shots: tuple[int, ...] = (0, 2, 4)
    goal: float = Field(default=0.9, gt=0.0, le=1.0)
    limit: int | None = Field(default=None, ge=2)
    tools: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    allow_writes: bool = False
    max_turns: int = Field(default=4, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    timeout_seconds: float = Field(default=600.0, gt=0)
    seed: Seed = 0
    run: str | None = None


def settings_of_run(run: str, home: Path, model: str, **changed: object) -> PlateauSettings:
    """Settings that prompt `model` on the scenarios of a run. Raises NotFoundError; SettingError for a run without an MCP server."""
    with Store.open(home) as store:
        info = store.runs.get(run)
        folder = store.home.run(run).path
        known = run_settings(store, run, McpTrain) if info.kind == "mcp" else None
    if known is None:
        raise SettingError(f"run {run!r} ({info.kind}) has no MCP server to prompt a model on", hint='give one: --server "CMD"')
    if not (folder / "scenarios").exists():
        raise SettingError(
            f"run {run!r} has no scenarios yet", hint="go on with it: " + command_line("mcp", "train", "--resume", run, "--home", home)
        )
    given = {name: getattr(known, name) for name in ("target", "tools", "read_only", "allow_writes", "seed")}
    return PlateauSettings.model_validate({"model": model, "run": run, **given, **changed})


async def measure_plateau(
    settings: PlateauSettings, progress: Progress, *, home: Path, folder: Path, scenarios_folder: Path | None = None
) -> Plateau:
    """Measure what is missing in `folder`, assess, and write plateau.json, plateau.md and plateau.png there.

    `scenarios_folder`: where scenarios that are made for a server are kept, for other models too; in `folder` when None.

    Raises:
        SettingError: settings that cannot be used (more worked examples than there are, fewer than two scenarios).
        McpError: the MCP server cannot be used. LlmError: the provider's model cannot be used; finished cells are kept.
        ModelNotFoundError, StoreError: as their docstrings say.
    """
    async with AsyncExitStack() as stack:
        progress.phase("start", note=settings.target.label)
        model = PromptedModel(settings.model, home, progress, stack)
        pool = await stack.enter_async_context(_pool(settings))
        scenarios = await _scenarios(settings, model, progress, home, scenarios_folder or folder / "scenarios")
        scenarios.check_offered(pool.tools)
        heldout = scenarios.heldout[: settings.limit]
        bench = Bench(folder, progress, heldout, EvidenceJudge(), settings.timeout_seconds, pool.max_concurrent, seed=settings.seed)
        # All agents first: a prompt that cannot be made is found out before the first attempt.
        ways = [_way(settings, pool, scenarios, prompt, count) for prompt in settings.prompts for count in settings.shots]
        cells = [await bench.cell(model, way) for way in ways]
        await stack.aclose()
        trained = await _trained(settings, bench, home)
    plateau = assess(
        cells,
        model=settings.model,
        server=settings.target.label,
        scenarios_hash=scenarios_hash(heldout),
        goal=settings.goal,
        trained=trained,
        can_be_trained=not names_provider(settings.model),
        notes=scenarios.notes,
    )
    write_plateau(plateau, folder)
    return plateau


@asynccontextmanager
async def _pool(settings: PlateauSettings, isolation: Isolation = "auto") -> AsyncIterator[ServerPool]:
    async with open_server(settings.target) as server:
        choice = choose_tools(
            server.tools, settings.target.label, settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes
        )
    async with ServerPool(
        settings.target,
        choice.tools,
        isolation,
        num_shared=num_shared_servers(),
        max_servers=settings.max_concurrent,
    ) as pool:
        yield pool


async def _scenarios(settings: PlateauSettings, model: PromptedModel, progress: Progress, home: Path, path: Path) -> ScenarioSet:
    """The run's; without a run those made for this server before, else made now and kept."""
    kept = _kept_scenarios(settings, home, path)
    if kept is not None:
        return kept
    proposer = None
    if not model.is_provider:
        await model.open()
        assert model.connection is not None
        proposer = CompletionProposer(model.connection.openai_url, model.connection.api_key)
    try:
        async with open_server(settings.target) as server:
            wanted = McpTrain(
                target=settings.target, tools=settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes
            )
            made = await build_scenarios(server, scenario_settings(wanted), proposer=proposer, seed=settings.seed, progress=progress)
    finally:
        if proposer is not None:
            await proposer.close()
    aside = path.with_name("scenarios.part")
    made.save(aside)
    aside.rename(path)
    return made


def _kept_scenarios(settings: PlateauSettings, home: Path, path: Path) -> ScenarioSet | None:
    if settings.run is not None:
        with Store.open(home) as store:
            return ScenarioSet.load(store.home.run(settings.run).path / "scenarios")
    return ScenarioSet.load(path) if path.exists() else None


def _way(settings: PlateauSettings, pool: ServerPool, scenarios: ScenarioSet, prompt: str, num_shots: int) -> Prompted:
    max_tokens = settings.max_tokens or (PROVIDER_MAX_TOKENS if names_provider(settings.model) else Rollouts().max_tokens)
    bounds = ToolLoopSettings(max_turns=settings.max_turns, max_tokens=max_tokens, temperature=0.0)
    shots = make_shots(scenarios.train, num_shots, seed=settings.seed, max_result_chars=bounds.max_result_chars)
    return _prompted(prompt, num_shots, ToolLoop(pool, bounds, system_prompt=settings.prompts[prompt], shots=shots))


def _prompted(prompt: str, num_shots: int, agent: ToolLoop) -> Prompted:
    messages = [message.wire() for message in agent.messages("")]
    said = (messages, [tool.model_dump() for tool in agent.tools])
    return Prompted(prompt, num_shots, agent, (said, asdict(agent.settings)))


async def _trained(settings: PlateauSettings, bench: Bench, home: Path) -> VariantResult | None:
    """The newest model of the run, on the same scenarios, prompted and bounded as it was trained; None when the run has none."""
    adapter = None if settings.run is None else trained_adapter(settings.run, home, bench.progress)
    if settings.run is None or adapter is None:
        return None
    with Store.open(home) as store:
        train = run_settings(store, settings.run, McpTrain)
    bounds = ToolLoopSettings(max_turns=train.rollouts.max_turns, max_tokens=train.rollouts.max_tokens, temperature=0.0)
    async with _pool(settings, train.rollouts.isolation) as pool:
        way = _prompted(adapter, 0, ToolLoop(pool, bounds))
        return await bench.trained(adapter, way, run=settings.run, base=train.base, home=home)
