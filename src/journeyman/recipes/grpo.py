"""Reinforcement learning on tasks, agents and rewards of your own: `journeyman train FILE.yaml` with `method: grpo`.

    settings = GrpoTrain(scenarios="my_tasks.jsonl", rewards={"my_rewards.is_polite": 1.0})
    report = await train(settings, SilentProgress(), home=Path(".journeyman"))

Every step is kept as it is made: a run that was stopped or killed goes on with `resume=run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from journeyman.client.attempts import RolloutFunction
from journeyman.client.gather import iterate
from journeyman.client.models import Model, TrainableModel
from journeyman.client.rollout import Rollout
from journeyman.config import command_line
from journeyman.errors import NotFoundError
from journeyman.evaluation import Evaluation, Report
from journeyman.evaluation import evaluate as evaluate_variants
from journeyman.observe.progress import Progress
from journeyman.observe.reward_health import without_spread_advice
from journeyman.recipes.data import keep_scenarios, load_scenarios, read_scenarios
from journeyman.recipes.functions import load_function
from journeyman.recipes.loop import KeepingJudge, Loop, learn, make_judge
from journeyman.recipes.report import curl_line, evaluation_numbers, make_report, reward_numbers, write_result
from journeyman.recipes.resume import attempts_shape, run_settings, step_key
from journeyman.recipes.run import OpenRun, hold, kept_state, open_model, open_run, rate_factor, run_id_of
from journeyman.recipes.settings import GrpoTrain
from journeyman.rewards.judge import Judge
from journeyman.store import Store
from journeyman.store.home import HomeFolder
from journeyman.types.names import BASE, Version
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Grpo


async def train(
    settings: GrpoTrain,
    progress: Progress,
    *,
    home: Path,
    run: str | None = None,
    resume: str | None = None,
    allow_changed_settings: bool = False,
) -> Report:
    """Train, evaluate, report; the report and `result.json` are also written into the run's folder.

    Args:
        run: id of the new run; the name and the time when None.
        resume: id of a run to go on with.

    Raises:
        SettingError, InputError: the settings, functions or tasks cannot be used.
        JudgeError: a reward function or a judging model failed; the run goes on with `resume`.
        NothingToLearnError: no group had spread for `settings.stop_without_spread` steps.
    """
    run = resume or run or run_id_of(settings.name)
    scenarios = check(settings, HomeFolder(home).run(run).scenarios)
    async with AsyncExitStack() as stack:
        judge, ruler = make_judge(settings, run=run, home=home, progress=progress)
        if ruler is not None:
            stack.push_async_callback(ruler.close)
            await ruler.check()
        opened = await stack.enter_async_context(open_run(run, settings.base, home, progress, retention=settings.retention))
        held = await asyncio.to_thread(
            hold,
            opened,
            settings,
            kind="grpo",
            is_resumed=bool(resume),
            allow_changed_settings=allow_changed_settings,
            rate_of=lambda one, number: step_settings(one, number).learning_rate,
        )
        if ruler is not None:
            opened.costs.watch(ruler)
        progress.note(f"judge {judge.name}: {judge.description}")
        await asyncio.to_thread(keep_scenarios, scenarios, opened.folder.scenarios)
        async with kept_state(opened):
            model = await open_model(opened, held, settings.name, settings.lora)
            # Reward functions may have been mended in between: they are asked again. A judging model's verdicts are in its own cache.
            await asyncio.to_thread(opened.store.rollouts.forget_verdicts, run, step_key("train", model.step))
            await learn(opened, model, _loop(opened, settings, judge, scenarios))
            return await _report(opened, settings, model, judge, scenarios)


async def evaluate(run: str, *, home: Path, progress: Progress, attempts: int = 4, limit: int | None = None) -> Report:
    """Evaluate a finished or stopped run again on its held-out tasks: greedy (a rollout function samples as it likes, so not with one),
    and `attempts` sampled attempts each. The report has a folder of its own under `evaluations/`.
    Raises NotFoundError for a run that has trained nothing or holds no tasks out."""
    settings, step, scenarios = await asyncio.to_thread(_kept, run, home)
    heldout = [one for one in scenarios if one.split == "heldout"][:limit]
    if not heldout:
        what = "holds no tasks out" if step else "has no trained model yet"
        hint = None if step else "go on with it: " + command_line("train", "--resume", run, "--home", home)
        raise NotFoundError(f"run {run!r} {what}", hint=hint, reason="no_heldout_tasks" if step else "not_trained")
    judge, ruler = make_judge(settings, run=f"{run}:eval", home=home, progress=progress)
    async with AsyncExitStack() as stack:
        if ruler is not None:
            stack.push_async_callback(ruler.close)
        opened = await stack.enter_async_context(open_run(run, settings.base, home, progress))
        if ruler is not None:
            opened.costs.watch(ruler)
        await asyncio.to_thread(opened.backend.serve_run, run)
        variants = _variants(opened, settings.name, step)
        sizes = [attempts] if settings.rollout.function or attempts == 1 else [1, attempts]
        evaluations = [await _evaluate(opened, settings, variants, judge, heldout, size) for size in sizes]
        adapter = str(Version(settings.name, step))
        return await asyncio.to_thread(_written, opened, settings, judge, scenarios, evaluations, adapter=adapter, is_again=True)


def _kept(run: str, home: Path) -> tuple[GrpoTrain, int, list[Scenario]]:
    """A run's settings, the step it is at, and its tasks if it has trained."""
    with Store.open(home) as store:
        settings = run_settings(store, run, GrpoTrain)
        step = max((row.step for row in store.models.adapters(run, settings.name)), default=0)
        return settings, step, read_scenarios(store.home.run(run).scenarios) if step else []


def check(settings: GrpoTrain, kept: Path | None = None) -> tuple[Scenario, ...]:
    """The run's tasks: those kept with it, else from their source. Loads no model; raises SettingError and InputError for tasks and
    functions that cannot be used."""
    make_rollout(settings, temperature=1.0)
    if kept is not None and kept.exists():
        return tuple(read_scenarios(kept))
    source, number, heldout = settings.scenarios, settings.num_train, settings.num_heldout
    return load_scenarios(source, seed=settings.seed, num_train=number, num_heldout=heldout)


def make_rollout(settings: GrpoTrain, *, temperature: float) -> RolloutFunction:
    """The attempt: one chat turn at that temperature, or the user's function, which samples as it likes. Raises SettingError."""
    own = settings.rollout
    if own.function is not None:
        return load_function(own.function, setting="rollout.function", parameters=("scenario", "run"))

    async def chat(scenario: Scenario, run: Rollout) -> None:
        messages: Any = _messages(settings, scenario.task)
        await run.openai().chat.completions.create(
            model=run.model, messages=messages, max_tokens=own.max_tokens, temperature=temperature, seed=run.seed
        )

    return chat


def _messages(settings: GrpoTrain, task: str) -> list[dict[str, str]]:
    system = settings.rollout.system
    return [*([] if system is None else [{"role": "system", "content": system}]), {"role": "user", "content": task}]


def _loop(opened: OpenRun, settings: GrpoTrain, judge: Judge, scenarios: Sequence[Scenario]) -> Loop:
    train_on = [one for one in scenarios if one.split == "train"]
    return Loop(
        rollout=make_rollout(settings, temperature=1.0),
        judge=KeepingJudge(judge, opened.store),
        scenarios=iterate(train_on, groups_per_step=1, epochs=1_000_000, seed=settings.seed),
        seed=settings.seed,
        steps=settings.steps,
        num_groups=settings.groups_per_step,
        group_size=settings.group_size,
        timeout_seconds=settings.timeout_seconds,
        stop_without_spread=settings.stop_without_spread,
        grpo=settings.grpo,
        settings_of=lambda number, _: step_settings(settings, number),
        shape=attempts_shape(settings),
        advice=lambda steps: f"{without_spread_advice(steps)}; stop_without_spread: null goes on regardless",
    )


def step_settings(settings: GrpoTrain, number: int) -> Grpo:
    """The settings of GRPO step `number` (from 0): see `GrpoTrain.grpo`."""
    factor = rate_factor(number, settings.steps, warmup_steps=settings.warmup_steps, decay_to=settings.decay_to)
    return settings.grpo.model_copy(update={"learning_rate": settings.grpo.learning_rate * factor})


async def _report(opened: OpenRun, settings: GrpoTrain, model: TrainableModel, judge: Judge, scenarios: Sequence[Scenario]) -> Report:
    heldout = [one for one in scenarios if one.split == "heldout"]
    await opened.update(phase="evaluate")
    evaluations = []
    if heldout:
        variants = _variants(opened, model.name, model.step)
        evaluations.append(await _evaluate(opened, settings, variants, judge, heldout, settings.heldout_attempts))
    report = await asyncio.to_thread(_written, opened, settings, judge, scenarios, evaluations, adapter=model.adapter)
    final = reward_numbers(report) | evaluation_numbers(report)
    await asyncio.to_thread(write_result, report, opened, settings, recipe=settings.name, method="grpo", final=final)
    return report


def _written(
    opened: OpenRun,
    settings: GrpoTrain,
    judge: Judge,
    scenarios: Sequence[Scenario],
    evaluations: Sequence[Evaluation],
    *,
    adapter: str,
    is_again: bool = False,
) -> Report:
    body = {"model": settings.name, "temperature": 0, "messages": _messages(settings, scenarios[0].task)}
    return make_report(
        opened,
        settings,
        title=f"{settings.base} learns {settings.name}",
        target=settings.scenarios,
        judge=f"{judge.name}: {judge.description}",
        evaluations=evaluations,
        adapter=adapter,
        curl=None if settings.rollout.function else curl_line(body),
        is_again=is_again,
    )


def _variants(opened: OpenRun, name: str, step: int) -> dict[str, Model]:
    trained = {"trained": opened.connection.served_model(str(Version(name, step)))} if step else {}
    return {BASE: opened.connection.base_model(), **trained}


async def _evaluate(
    opened: OpenRun, settings: GrpoTrain, variants: dict[str, Model], judge: Judge, heldout: Sequence[Scenario], attempts: int
) -> Evaluation:
    """The variants at the same held-out tasks, in pairs: one attempt at each is greedy where the recipe decides, more are sampled."""
    is_greedy = settings.rollout.function is None and attempts == 1
    async with opened.costs.phase("evaluate"):
        return await evaluate_variants(
            make_rollout(settings, temperature=0.0 if is_greedy else 1.0),
            heldout,
            variants,
            judge,
            group_size=attempts,
            sampling="greedy" if is_greedy else "sampled",
            timeout_seconds=settings.timeout_seconds,
            progress=opened.progress,
            seed=settings.seed,
        )
