"""Point a small model at an MCP server: find the tools, make tasks, warm start, GRPO, held-out report.

    settings = McpTrain(target=McpTarget.parse("python -m mcp_server_time"))
    report = await train(settings, SilentProgress(), home=Path(".journeyman"))

Every step is kept as it is made: a run that was stopped or killed goes on with `resume=run`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path

from journeyman.client.gather import gather
from journeyman.client.iterate import iterate
from journeyman.client.models import Model, TrainableModel
from journeyman.config import command_line
from journeyman.errors import NotFoundError, NothingToLearnError
from journeyman.evaluation import Evaluation, Report
from journeyman.evaluation import evaluate as evaluate_variants
from journeyman.mcp.client import open_server
from journeyman.mcp.target import McpTarget
from journeyman.observe.progress import Progress
from journeyman.recipes.judged_evaluation import compare_by_judge
from journeyman.recipes.learning import Metrics, Plan, learn, nothing_to_learn
from journeyman.recipes.mcp_report import make_report
from journeyman.recipes.open_run import begin, kept_state, open_model
from journeyman.recipes.places import warm_steps
from journeyman.recipes.resume import attempts_key, run_settings
from journeyman.recipes.schedule import rate_factor
from journeyman.recipes.session import Session, open_session
from journeyman.recipes.settings import McpTrain
from journeyman.recipes.warm_start import executed_share, warm_start
from journeyman.rewards import EvidenceJudge, excluded_text, reward_metrics
from journeyman.scenarios.build import ScenarioSettings, build_scenarios
from journeyman.scenarios.proposals import CompletionProposer, InTurn
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.store import Store
from journeyman.store.checkpoints import clean_leftovers, replaced_folder
from journeyman.types.names import BASE, Version
from journeyman.types.scenarios import Scenario, kind_of
from journeyman.types.secrets import ALL_HIDDEN
from journeyman.types.settings import Grpo
from journeyman.types.shaping import has_spread
from journeyman.types.trajectory import Group

# A step in which fewer of the wanted groups have spread attempts more scenarios.
_ENOUGH_WITH_SPREAD = 0.5


async def train(
    settings: McpTrain,
    progress: Progress,
    *,
    home: Path,
    run: str | None = None,
    resume: str | None = None,
    allow_changed_settings: bool = False,
) -> Report:
    """Train, evaluate, report; the report is also written into the run's folder. `run`: id of a new run, made up when None.

    A run that goes on under other settings than its own is refused unless `allow_changed_settings`; then they are its own from now on.

    Raises:
        McpError: the server cannot be used, or yields no feasible scenarios.
        NothingToLearnError: no group had spread for `settings.stop_without_spread` steps.
        SettingError, ModelNotFoundError, StoreError: as their docstrings say.
    """
    run = resume or run or new_run_id(settings)
    async with open_session(run, settings, home, progress) as session:
        begun = await begin(
            session,
            settings,
            kind="mcp",
            base=settings.base,
            is_resumed=bool(resume),
            allow_changed_settings=allow_changed_settings,
            untold="target",
            rate_of=lambda one, number: step_settings(one, number, one.rollouts.groups_per_step).learning_rate,
        )
        async with kept_state(session):
            scenarios = await prepare_scenarios(session)
            model = await open_model(session, begun, slug(settings), settings.lora, warm_phase="warmup")
            warm_step = await _warm_start_once(session, model, scenarios)
            await _learn(session, model, scenarios, warm_step)
            evaluation = await _evaluate_greedy(session, model, warm_step, scenarios.heldout)
            step, notes = model.step, scenarios.notes
            return await asyncio.to_thread(make_report, session, evaluation, adapter_step=step, model=model.name, notes=notes)


async def evaluate(
    run: str,
    *,
    home: Path,
    progress: Progress,
    attempts: int = 4,
    limit: int | None = None,
    judge: str | None = None,
    target: McpTarget | None = None,
) -> Report:
    """Evaluate a finished or stopped run again on its held-out scenarios: greedy, and `attempts` sampled attempts each. The report has a
    folder of its own under the run's `evaluations/`.

    `target`: its MCP server with the secrets that the run did not keep; the run's own when None.
    With `judge` (a model's name) the greedy attempts of the base and of the newest variant are also compared by that model.
    """
    settings, last = await asyncio.to_thread(_settings_and_step, run, home)
    settings = settings if target is None else settings.model_copy(update={"target": target})
    if last is None:
        raise NotFoundError(
            f"run {run!r} has no trained model yet", hint="go on with it: " + command_line("mcp", "train", "--resume", run, "--home", home)
        )
    async with open_session(run, settings, home, progress) as session:
        (name,) = await asyncio.to_thread(session.backend.serve_run, run)
        scenarios = await asyncio.to_thread(_kept, session)
        heldout = scenarios.heldout[:limit]
        warm = await asyncio.to_thread(warm_steps, session.store, run)
        variants = _variants(session, name, warm, last)
        evaluations = []
        for temperature, word, size in ((0.0, "greedy", 1), (1.0, "sampled", attempts)):
            async with session.costs.phase(f"evaluate, {word}"):
                evaluations.append(await _evaluate(session, variants, heldout, temperature=temperature, word=word, size=size))
        notes = scenarios.notes if judge is None else (*scenarios.notes, *await compare_by_judge(session, evaluations[0], judge, name))
        return await asyncio.to_thread(make_report, session, *evaluations, adapter_step=last, model=name, notes=notes, is_again=True)


def _settings_and_step(run: str, home: Path) -> tuple[McpTrain, int | None]:
    """A run's settings, and its newest version; None where it has none."""
    with Store.open(home) as store:
        settings = run_settings(store, run, McpTrain)
        return settings, max((row.step for model in store.models.list(run) for row in store.models.adapters(run, model.name)), default=None)


def slug(settings: McpTrain) -> str:
    """A model name from the server's command or URL; however a secret is given, it is the same. None that means the base model."""
    target = settings.target.model_dump(mode="json", context=ALL_HIDDEN)
    words = target["url"].partition("?")[0] if target["url"] else " ".join(Path(word).name for word in target["command"])
    name = re.sub(
        r"[^a-z0-9]+",
        "-",
        re.sub(r"\b(https?|python3?|m|uvx|npx|mcp|server|stdio|127 0 0 1|localhost)\b", " ", words.lower().replace("_", " ")),
    )
    name = name.strip("-")[:40]
    return "agent" if name in ("", BASE, settings.base) else name


def new_run_id(settings: McpTrain) -> str:
    return f"{slug(settings)}-{time.strftime('%Y%m%d-%H%M%S')}"


def _kept(session: Session) -> ScenarioSet:
    scenarios = ScenarioSet.load(session.scenarios_folder)
    scenarios.check_offered(session.tools)
    return scenarios


async def prepare_scenarios(session: Session) -> ScenarioSet:
    """The run's scenarios: read back if they were made before, else made and kept."""
    path = session.scenarios_folder
    if path.exists():
        return await asyncio.to_thread(_kept, session)
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


async def _warm_start_once(session: Session, model: TrainableModel, scenarios: ScenarioSet) -> int:
    """Warm start, unless reinforcement learning has begun already."""
    if await session.steps("train"):
        return await asyncio.to_thread(warm_steps, session.store, session.run)
    await session.update(phase="warmup")
    return await warm_start(session, model, scenarios)


async def _learn(session: Session, model: TrainableModel, scenarios: ScenarioSet, warm_step: int) -> None:
    """GRPO steps until `settings.steps` are made."""
    settings = session.settings
    plan = Plan(
        steps=settings.steps,
        begins_at=warm_step,
        note=f"GRPO, {settings.rollouts.groups_per_step} x {settings.rollouts.group_size}",
        attempt=lambda number, position: _attempt(session, model, scenarios.train, number, position),
        settings_of=lambda number, metrics, groups: step_settings(settings, number, metrics.get("reward/with_spread", 0.0) * len(groups)),
        stop_without_spread=settings.stop_without_spread,
        give_up=_nothing_to_learn,
    )
    await learn(session, model, plan)


def step_settings(settings: McpTrain, number: int, num_with_spread: float) -> Grpo:
    """The settings of GRPO step `number` (from 0), in which so many groups have spread: see `McpTrain.grpo`."""
    enough = _ENOUGH_WITH_SPREAD * settings.rollouts.groups_per_step
    share = min(1.0, max(num_with_spread, 1.0) / enough)
    factor = rate_factor(number, settings.steps, decay_to=settings.decay_to) * share
    return settings.grpo.model_copy(update={"learning_rate": settings.grpo.learning_rate * factor})


async def _attempt(
    session: Session, model: Model, train: tuple[Scenario, ...], number: int, position: int
) -> tuple[list[Group], dict[str, float]]:
    """Scored groups for step `number`. When few of them have spread, more scenarios are attempted.

    What was attempted (and judged) before the run was stopped inside this very step is taken as it was.
    """
    settings = session.settings.rollouts
    key = attempts_key("train", number, session.settings)
    kept = {one.trajectory_id for one in await model.kept_attempts(key)}
    if kept:
        session.progress.note(f"step {number + 1} goes on with {len(kept)} attempts that were made before the stop")
    stream = iterate(train, groups_per_step=1, epochs=1_000_000, seed=session.settings.seed, kind=kind_of)
    started = time.perf_counter()
    groups: list[Group] = []
    wanted = settings.groups_per_step
    for _ in range(1 + settings.max_refills):
        first = position + len(groups)
        groups += await gather(
            session.agent(),
            [stream.batch(index)[0] for index in range(first, first + wanted)],
            model=model,
            group_size=settings.group_size,
            max_concurrent=session.pool.max_concurrent,
            timeout_seconds=settings.timeout_seconds,
            score=session.judge.score,
            key=f"{key}/{first}",
            seed=session.settings.seed,
        )
        with_spread = sum(has_spread(group, session.settings.grpo) for group in groups)
        if with_spread >= _ENOUGH_WITH_SPREAD * settings.groups_per_step:
            break
        wanted = settings.groups_per_step - with_spread
    seconds = time.perf_counter() - started
    if excluded := excluded_text(groups):
        session.progress.warn(excluded)
    sampled = sum(one.num_sampled_tokens for group in groups for one in group)
    drawn_now = sum(one.num_sampled_tokens for group in groups for one in group if one.id not in kept)
    metrics = reward_metrics(groups, session.settings.grpo) | {
        "rollout/executed": executed_share(groups),
        "rollout/num_groups": float(len(groups)),
        "rollout/num_sampled_tokens": float(sampled),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": drawn_now / seconds,
    }
    if kept:
        metrics["rollout/num_kept"] = float(sum(one.id in kept for group in groups for one in group))
    return groups, metrics


def _nothing_to_learn(steps: Sequence[Metrics], groups: Sequence[Group]) -> NothingToLearnError:
    executed = steps[-1].get("rollout/executed", 0.0)
    hint = "the model never makes a call that runs: more drills (--set warm_start.max_updates=96), fewer tools (--tools) or a larger base"
    return nothing_to_learn(steps, groups, seen=f", {executed:.0%} of attempts made a call that ran", hint=hint if executed < 0.2 else None)


def _variants(session: Session, name: str, warm: int, last: int) -> dict[str, Model]:
    variants: dict[str, Model] = {BASE: session.connection.base_model()}
    if warm:
        variants["warm"] = session.connection.served_model(str(Version(name, warm)))
    if last > warm:
        variants["trained"] = session.connection.served_model(str(Version(name, last)))
    return variants


async def _evaluate_greedy(session: Session, model: TrainableModel, warm: int, heldout: tuple[Scenario, ...]) -> Evaluation:
    await session.update(phase="evaluate")
    async with session.costs.phase("evaluate, greedy"):
        return await _evaluate(session, _variants(session, model.name, warm, model.step), heldout, temperature=0.0, word="greedy", size=1)


async def _evaluate(
    session: Session, variants: dict[str, Model], heldout: tuple[Scenario, ...], *, temperature: float, word: str, size: int
) -> Evaluation:
    """Success on held-out scenarios is always judged by evidence: it needs no model and cannot be talked round."""
    return await evaluate_variants(
        session.agent(temperature),
        heldout,
        variants,
        EvidenceJudge(),
        group_size=size,
        sampling=word,
        max_concurrent=session.pool.max_concurrent,
        timeout_seconds=session.settings.rollouts.timeout_seconds,
        progress=session.progress,
        seed=session.settings.seed,
    )
