"""Point a small model at an MCP server: find the tools, make tasks, warm start, GRPO, held-out report.

    settings = McpTrain(target=McpTarget.parse("python -m mcp_server_time"))
    report = await train(settings, SilentProgress(), home=Path(".journeyman"))

Every step is kept as it is made: a run that was stopped or killed goes on with `resume=run`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from journeyman.client.gather import iterate
from journeyman.client.models import Model
from journeyman.config import command_line
from journeyman.errors import NotFoundError
from journeyman.evaluation import Evaluation, Report
from journeyman.evaluation import evaluate as evaluate_variants
from journeyman.evaluation.pairwise import prefer
from journeyman.mcp.target import McpTarget
from journeyman.observe.progress import Progress
from journeyman.observe.reward_health import Metrics, without_spread_advice
from journeyman.recipes.loop import ENOUGH_WITH_SPREAD, Loop, learn
from journeyman.recipes.report import curl_line, evaluation_numbers, make_report, reward_numbers, write_result
from journeyman.recipes.resume import attempts_shape, run_settings
from journeyman.recipes.run import hold, kept_state, open_model, rate_factor, run_id_of, warm_steps
from journeyman.recipes.session import Session, kept_scenarios, open_session, prepare_scenarios
from journeyman.recipes.settings import McpTrain
from journeyman.recipes.warm_start import executed_share, warm_start
from journeyman.rewards import EvidenceJudge, Ruler
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.store import Store
from journeyman.types.names import BASE, Version
from journeyman.types.scenarios import Scenario, kind_of
from journeyman.types.secrets import ALL_HIDDEN
from journeyman.types.settings import Grpo


async def train(
    settings: McpTrain,
    progress: Progress,
    *,
    home: Path,
    run: str | None = None,
    resume: str | None = None,
    allow_changed_settings: bool = False,
) -> Report:
    """Train, evaluate, report; the report and `result.json` are also written into the run's folder. `run`: id of a new run, made up when
    None.

    A run that goes on under other settings than its own is refused unless `allow_changed_settings`; then they are its own from now on.

    Raises:
        McpError: the server cannot be used, or yields no feasible scenarios.
        NothingToLearnError: no group had spread for `settings.stop_without_spread` steps.
        SettingError, ModelNotFoundError, StoreError: as their docstrings say.
    """
    run = resume or run or run_id_of(slug(settings))
    async with open_session(run, settings, home, progress) as session:
        held = await asyncio.to_thread(
            hold,
            session,
            settings,
            kind="mcp",
            is_resumed=bool(resume),
            allow_changed_settings=allow_changed_settings,
            rate_of=lambda one, number: step_settings(one, number, one.rollouts.groups_per_step).learning_rate,
        )
        async with kept_state(session):
            scenarios = await prepare_scenarios(session)
            model = await open_model(session, held, slug(settings), settings.lora)
            warm_step = await warm_start(session, model, scenarios)
            await learn(session, model, _loop(session, scenarios, warm_step))
            await session.update(phase="evaluate")
            variants = _variants(session, model.name, warm_step, model.step)
            evaluation = await _evaluate(session, variants, scenarios.heldout, temperature=0.0, word="greedy", size=1)
            report = await asyncio.to_thread(_report, session, [evaluation], Version(model.name, model.step), scenarios.notes)
            final = reward_numbers(report) | evaluation_numbers(report)
            await asyncio.to_thread(write_result, report, session, settings, recipe=slug(settings), method="mcp", final=final)
            return report


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
        hint = "go on with it: " + command_line("mcp", "train", "--resume", run, "--home", home)
        raise NotFoundError(f"run {run!r} has no trained model yet", hint=hint, reason="not_trained")
    async with open_session(run, settings, home, progress) as session:
        (name,) = await asyncio.to_thread(session.backend.serve_run, run)
        scenarios = await asyncio.to_thread(kept_scenarios, session)
        heldout = scenarios.heldout[:limit]
        warm = await asyncio.to_thread(warm_steps, session.store, run)
        variants = _variants(session, name, warm, last)
        evaluations = []
        for temperature, word, size in ((0.0, "greedy", 1), (1.0, "sampled", attempts)):
            evaluations.append(await _evaluate(session, variants, heldout, temperature=temperature, word=word, size=size))
        notes = scenarios.notes if judge is None else (*scenarios.notes, *await _compare_by_judge(session, evaluations[0], judge, name))
        return await asyncio.to_thread(_report, session, evaluations, Version(name, last), notes, is_again=True)


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


def _loop(session: Session, scenarios: ScenarioSet, warm_step: int) -> Loop:
    settings = session.settings
    rollouts = settings.rollouts
    return Loop(
        rollout=session.agent(),
        judge=session.judge,
        scenarios=iterate(scenarios.train, groups_per_step=1, epochs=1_000_000, seed=settings.seed, kind=kind_of),
        seed=settings.seed,
        steps=settings.steps,
        begins_at=warm_step,
        num_groups=rollouts.groups_per_step,
        group_size=rollouts.group_size,
        max_refills=rollouts.max_refills,
        max_concurrent=session.pool.max_concurrent,
        timeout_seconds=rollouts.timeout_seconds,
        stop_without_spread=settings.stop_without_spread,
        grpo=settings.grpo,
        settings_of=lambda number, num_with_spread: step_settings(settings, number, num_with_spread),
        shape=attempts_shape(settings),
        measure=lambda groups: {"rollout/executed": executed_share(groups)},
        advice=_advice,
    )


def step_settings(settings: McpTrain, number: int, num_with_spread: int) -> Grpo:
    """The settings of GRPO step `number` (from 0), in which so many groups have spread: see `McpTrain.grpo`."""
    enough = ENOUGH_WITH_SPREAD * settings.rollouts.groups_per_step
    share = min(1.0, max(num_with_spread, 1) / enough)
    factor = rate_factor(number, settings.steps, decay_to=settings.decay_to) * share
    return settings.grpo.model_copy(update={"learning_rate": settings.grpo.learning_rate * factor})


def _advice(steps: Sequence[Metrics]) -> str:
    if steps[-1].get("rollout/executed", 0.0) < 0.2:
        return (
            "the model never makes a call that runs: more drills (--set warm_start.max_updates=96), fewer tools (--tools) or a larger base"
        )
    return without_spread_advice(steps)


def _variants(session: Session, name: str, warm: int, last: int) -> dict[str, Model]:
    variants: dict[str, Model] = {BASE: session.connection.base_model()}
    if warm:
        variants["warm"] = session.connection.served_model(str(Version(name, warm)))
    if last > warm:
        variants["trained"] = session.connection.served_model(str(Version(name, last)))
    return variants


async def _evaluate(
    session: Session, variants: dict[str, Model], heldout: tuple[Scenario, ...], *, temperature: float, word: str, size: int
) -> Evaluation:
    """Success on held-out scenarios is always judged by evidence: it needs no model and cannot be talked round."""
    async with session.costs.phase(f"evaluate, {word}"):
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


async def _compare_by_judge(session: Session, evaluation: Evaluation, judge: str, model: str) -> tuple[str, ...]:
    """A second opinion (`journeyman eval RUN --judge M`) as notes for the report: the win rate of the last variant over the first, and a
    warning when the judge is partial."""
    names = list(evaluation.groups)
    if len(names) < 2:
        return ("nothing to compare with the judge: the run has one variant only",)
    options = session.settings.judge_options
    ruler = Ruler(judge, options.base_url, options=options, home=session.home, run=f"{session.run}:eval", warn=session.progress.warn)
    is_partial = judge == session.settings.judge or judge.rpartition("/")[2].partition("@")[0] == model
    session.costs.watch(ruler)
    session.progress.phase("judge", total=None, note=ruler.name)
    try:
        await ruler.check()
        async with session.costs.phase("compare by judge"):
            first, last = (evaluation.groups[name] for name in (names[0], names[-1]))
            result = await prefer(ruler, (names[0], first), (names[-1], last), is_training_judge=is_partial)
    finally:
        await ruler.close()
    return (result.text(), result.warning) if result.warning else (result.text(),)


def _report(
    session: Session, evaluations: Sequence[Evaluation], version: Version, notes: Sequence[str], *, is_again: bool = False
) -> Report:
    agent = session.agent()
    task = next(iter(evaluations[0].groups.values()))[0].scenario.task
    messages = [message.wire() for message in agent.messages(task)]
    tools = [tool.model_dump() for tool in agent.tools]
    return make_report(
        session,
        session.settings,
        title=f"{session.settings.base} learns {session.settings.target.title}",
        target=session.settings.target.label,
        judge=f"{session.judge.name}: {session.judge.description}",
        evaluations=evaluations,
        adapter=str(version),
        curl=curl_line({"model": version.model, "temperature": 0, "messages": messages, "tools": tools}),
        notes=notes,
        is_again=is_again,
    )
