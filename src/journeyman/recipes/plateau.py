"""When not to fine-tune: how far prompting takes a model on held-out scenarios, and whether training is worth it.

    settings = PlateauSettings(model="smollm2-135m", target=McpTarget.parse("python -m mcp_server_time"))
    plateau = await measure_plateau(settings, SilentProgress(), home=Path(".journeyman"), folder=Path("plateau"))

Every prompt is tried with every number of worked examples, all on the same held-out scenarios, greedily, judged by evidence. A cell is
kept as soon as it is measured: the same call again measures only what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import Field, ValidationError

from journeyman.agents.server_pool import Isolation, ServerPool, num_shared_servers
from journeyman.agents.shots import make_shots
from journeyman.agents.tool_loop import SYSTEM_PROMPT, ToolLoop, ToolLoopSettings
from journeyman.client.backend import Connection
from journeyman.client.models import Model
from journeyman.config import command_line
from journeyman.errors import LlmError, SettingError, StoreError
from journeyman.evaluation.heldout import VariantResult, evaluate, scenarios_hash
from journeyman.evaluation.plateau import Plateau, PlateauCell, TrainingCost, assess, cell_name
from journeyman.evaluation.plateau_view import write_plateau
from journeyman.llm import Llm, LlmEndpoint, LlmSettings, names_provider, read_key
from journeyman.local import local, open_backend, serving
from journeyman.observe.progress import Progress
from journeyman.recipes.mcp import scenario_settings
from journeyman.recipes.mcp_settings import McpTrain, Rollouts
from journeyman.rewards import EvidenceJudge
from journeyman.rewards.evidence import is_model_failure
from journeyman.scenarios.build import build_scenarios
from journeyman.scenarios.mcp_client import open_server
from journeyman.scenarios.proposals import CompletionProposer
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.scenarios.target import McpTarget
from journeyman.scenarios.tools import usable_tools
from journeyman.store import Store
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group

PROMPTS: Mapping[str, str] = {
    "default": SYSTEM_PROMPT,
    "terse": "Answer with the tools, in a few words.",
    "step by step": (
        "You answer questions with tools. Work step by step: choose the tool that fits, call it with arguments taken from the question, "
        "read its result, and when you have every value that is asked for, state it in one short sentence. Never guess a value."
    ),
}
"""Tried by default: the words that runs are trained with, a terse prompt, and one that spells the steps out."""

_PROVIDER_MAX_TOKENS = 1024  # models that think need room for it
_MAX_FAILED_SHARE = 0.2
_REST_SHARE = 1.0  # drills and updates, in parts of the time of the attempts: 8.3 beside 8.1 minutes (docs/results.md)


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
    allow_writes: bool = False
    max_turns: int = Field(default=4, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_concurrent: int = Field(default=32, ge=1)
    timeout_seconds: float = Field(default=600.0, gt=0)
    seed: int = 0
    run: str | None = None


def settings_of_run(run: str, home: Path, model: str, **changed: object) -> PlateauSettings:
    """Settings that prompt `model` on the scenarios of a run. Raises NotFoundError; SettingError for a run without an MCP server."""
    with Store.open(home) as store:
        info = store.runs.get(run)
        folder = store.home.run(run).path
    if info.kind != "mcp":
        raise SettingError(f"run {run!r} has no MCP server, and so no scenarios to prompt a model on", hint='give one: --server "CMD"')
    if not (folder / "scenarios").exists():
        raise SettingError(
            f"run {run!r} has no scenarios yet", hint="go on with it: " + command_line("mcp", "train", "--resume", run, "--home", home)
        )
    known = McpTrain.model_validate(info.settings)
    given = {"target": known.target, "tools": known.tools, "allow_writes": known.allow_writes, "seed": known.seed}
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
        pool = await stack.enter_async_context(_pool(settings))
        bench = _Bench(settings, home, folder, progress, stack)
        scenarios = await _scenarios(bench, scenarios_folder or folder / "scenarios")
        heldout = scenarios.heldout[: settings.limit]
        # All agents first: a prompt that cannot be made is found out before the first attempt.
        agents = {
            (prompt, count): _agent(settings, pool, scenarios, prompt, count) for prompt in settings.prompts for count in settings.shots
        }
        cells = [await _cell(bench, prompt, count, agent, heldout) for (prompt, count), agent in agents.items()]
        await stack.aclose()
        trained = await _trained(settings, heldout, home=home, folder=folder, progress=progress)
    plateau = assess(
        cells,
        model=settings.model,
        server=settings.target.label,
        scenarios_hash=scenarios_hash(heldout),
        goal=settings.goal,
        trained=trained,
        can_be_trained=not names_provider(settings.model),
        training_cost=None if names_provider(settings.model) else training_cost(cells),
        notes=scenarios.notes,
    )
    write_plateau(plateau, folder)
    return plateau


class _Bench:
    """What cells are measured with. The model is opened when the first cell needs it."""

    def __init__(self, settings: PlateauSettings, home: Path, folder: Path, progress: Progress, stack: AsyncExitStack) -> None:
        self.settings, self.home, self.folder, self.progress = settings, home, folder, progress
        self._stack = stack
        self._model: Model | None = None
        self.connection: Connection | None = None

    async def model(self) -> Model:
        if self._model is None:
            name = self.settings.model
            self.progress.phase("load", note=name)
            if names_provider(name):
                self._model = await self._stack.enter_async_context(_provider_model(name))
            else:
                self.connection = await self._stack.enter_async_context(local(name, home=self.home, note=self.progress.note))
                self._model = self.connection.base_model()
        return self._model


@asynccontextmanager
async def _pool(settings: PlateauSettings, isolation: Isolation = "auto") -> AsyncIterator[ServerPool]:
    async with open_server(settings.target) as server:
        tools = usable_tools(server.tools, settings.target.label, settings.tools, allow_writes=settings.allow_writes)
    async with ServerPool(settings.target, tools, isolation, num_shared=num_shared_servers()) as pool:
        yield pool


@asynccontextmanager
async def _provider_model(name: str) -> AsyncIterator[Model]:
    """A provider's model, tried once: a wrong key or name is told at once, not by every attempt."""
    endpoint = LlmEndpoint.parse(name)
    async with Llm(endpoint, settings=LlmSettings(max_tokens=256, max_retries=2)) as llm:
        await llm.complete([{"role": "user", "content": "Say hello."}])
    model = Model(endpoint.model, endpoint.base_url, read_key(endpoint) or "none")
    try:
        yield model
    finally:
        await model.close()


# Scenarios ------------------------------------------------------------------------------------------------------------


async def _scenarios(bench: _Bench, path: Path) -> ScenarioSet:
    """The run's; without a run those made for this server before, else made now and kept."""
    settings = bench.settings
    kept = _kept_scenarios(settings, bench.home, path)
    if kept is not None:
        return kept
    proposer = None
    if not names_provider(settings.model):
        await bench.model()
        assert bench.connection is not None
        proposer = CompletionProposer(bench.connection.openai_url, bench.connection.api_key, "base")
    try:
        async with open_server(settings.target) as server:
            wanted = McpTrain(target=settings.target, tools=settings.tools, allow_writes=settings.allow_writes)
            made = await build_scenarios(server, scenario_settings(wanted), proposer=proposer, seed=settings.seed, progress=bench.progress)
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


# Cells ----------------------------------------------------------------------------------------------------------------


def _agent(settings: PlateauSettings, pool: ServerPool, scenarios: ScenarioSet, prompt: str, num_shots: int) -> ToolLoop:
    max_tokens = settings.max_tokens or (_PROVIDER_MAX_TOKENS if names_provider(settings.model) else Rollouts().max_tokens)
    bounds = ToolLoopSettings(max_turns=settings.max_turns, max_tokens=max_tokens, temperature=0.0)
    shots = make_shots(scenarios.train, num_shots, seed=settings.seed, max_result_chars=bounds.max_result_chars)
    return ToolLoop(pool, bounds, system_prompt=settings.prompts[prompt], shots=shots)


async def _cell(bench: _Bench, prompt: str, num_shots: int, agent: ToolLoop, heldout: tuple[Scenario, ...]) -> PlateauCell:
    """The cell as it was measured before with the very same prompt and scenarios, else measured now and kept."""
    name = cell_name(prompt, num_shots)
    identity = _identity(bench.settings.model, heldout, agent)
    path = bench.folder / "cells" / f"{_slug(name)}-{identity}.json"
    kept = _read(path)
    if kept is not None:
        bench.progress.note(f"{name}: {kept.result.success.text()} (measured before)")
        return kept
    model = await bench.model()
    result, groups = await _attempt(agent, name, model, heldout, bench.settings, bench.progress)
    tokens = [float(sum(len(turn.prompt_ids) for turn in one.turns)) for group in groups for one in group]
    is_told = all(turn.prompt_ids for group in groups for one in group for turn in one.turns)
    cell = PlateauCell(
        prompt=prompt, num_shots=num_shots, result=result, prompt_tokens=sum(tokens) / len(tokens) if is_told and any(tokens) else None
    )
    _write(path, cell)
    bench.progress.note(f"{name}: {result.success.text()}")
    return cell


async def _attempt(
    agent: ToolLoop, name: str, model: Model, heldout: tuple[Scenario, ...], settings: PlateauSettings, progress: Progress
) -> tuple[VariantResult, list[Group]]:
    evaluation = await evaluate(
        agent,
        heldout,
        {name: model},
        EvidenceJudge(),
        max_concurrent=8 if names_provider(settings.model) else settings.max_concurrent,
        timeout_seconds=settings.timeout_seconds,
        progress=progress,
        seed=settings.seed,
    )
    groups = evaluation.groups[name]
    failures = [one.error for group in groups for one in group if one.error is not None and not is_model_failure(one.error)]
    if len(failures) > _MAX_FAILED_SHARE * len(groups):
        raise LlmError(
            f"{len(failures)} of {len(groups)} attempts failed, which says nothing about {name!r}: "
            f"{failures[0].type}: {failures[0].message[:300]}",
            hint="mend that and run the same command again: finished cells are kept",
        )
    if failures:
        progress.warn(f"{len(failures)} attempts of {name} failed and count as not solved: {failures[0].type}: {failures[0].message[:200]}")
    return evaluation.summary.variants[0], groups


async def _trained(
    settings: PlateauSettings, heldout: tuple[Scenario, ...], *, home: Path, folder: Path, progress: Progress
) -> VariantResult | None:
    """The newest model of the run, on the same scenarios, prompted and bounded as it was trained; None when the run has none."""
    if settings.run is None:
        return None
    with Store.open(home) as store:
        train = McpTrain.model_validate(store.runs.get(settings.run).settings)
        names = [
            adapter.name for model in store.models.list(settings.run) for adapter in store.models.adapters(settings.run, model.name)[-1:]
        ]
    if not names or names[0].endswith("@0"):
        progress.note(f"run {settings.run} has no trained model to compare with")
        return None
    bounds = ToolLoopSettings(max_turns=train.rollouts.max_turns, max_tokens=train.rollouts.max_tokens, temperature=0.0)
    async with AsyncExitStack() as stack:
        agent = ToolLoop(await stack.enter_async_context(_pool(settings, train.rollouts.isolation)), bounds)
        path = folder / "cells" / f"{_slug(names[0])}-{_identity(names[0], heldout, agent)}.json"
        kept = _read(path)
        if kept is None:
            backend = await asyncio.to_thread(open_backend, train.base, home=home, note=progress.note)
            connection = await stack.enter_async_context(serving(backend))
            backend.serve_run(settings.run)
            as_base = settings.model_copy(update={"model": train.base})
            result, _ = await _attempt(agent, names[0], connection.served_model(names[0]), heldout, as_base, progress)
            kept = PlateauCell(prompt=names[0], num_shots=0, result=result)
            _write(path, kept)
    progress.note(f"{names[0]}: {kept.result.success.text()}")
    return kept.result


def training_cost(cells: list[PlateauCell]) -> TrainingCost:
    """What a default run would cost at the pace of the cell that made its attempts the fastest: the prompt without shots, mostly."""
    train = McpTrain(target=McpTarget.parse("any"))
    num_attempts = train.steps * train.rollouts.groups_per_step * train.rollouts.group_size
    seconds = min(cell.result.seconds / len(cell.result.items) for cell in cells) * num_attempts
    return TrainingCost(num_attempts=num_attempts, minutes=(1 + _REST_SHARE) * seconds / 60)


# Files ----------------------------------------------------------------------------------------------------------------


def _identity(model: str, heldout: tuple[Scenario, ...], agent: ToolLoop) -> str:
    """Eight hex digits over all that a cell's numbers depend on."""
    prompt = [message.wire() for message in agent.messages("")], [tool.model_dump() for tool in agent.tools]
    text = json.dumps([model, scenarios_hash(heldout), prompt, asdict(agent.settings)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _slug(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "@." else "-" for sign in name)


def _read(path: Path) -> PlateauCell | None:
    """A kept cell; None when there is none, or one of another version."""
    try:
        return PlateauCell.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _write(path: Path, cell: PlateauCell) -> None:
    """Aside and renamed: a kill never leaves half a cell behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(cell.model_dump_json(indent=2) + "\n", encoding="utf-8")
        aside.rename(path)
    except OSError as error:
        raise StoreError(f"the cell cannot be kept in {path.parent}: {error}", hint="give another folder with --out") from error
