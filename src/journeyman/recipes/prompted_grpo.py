"""How far prompting takes a model on the held-out tasks of a run of `method: grpo`, scored by the run's own rewards.

    settings = PromptedGrpo(model="openai/gpt-5-mini", run="polite-20260301-101500")
    plateau = await measure_prompted(settings, SilentProgress(), home=Path(".journeyman"), folder=Path("plateau"))

One chat turn a task, greedy. Not for runs with an MCP server (`plateau.py`), nor for rollout functions: those write the prompt themselves.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from pydantic import Field

from journeyman.client.rollout import Rollout
from journeyman.config import command_line
from journeyman.errors import ContextLengthError, SettingError
from journeyman.evaluation.heldout import VariantResult, scenarios_hash
from journeyman.evaluation.plateau import Plateau, assess, write_plateau
from journeyman.llm import names_provider
from journeyman.observe.progress import Progress
from journeyman.recipes.data import read_scenarios, scored_groups
from journeyman.recipes.functions import find_function
from journeyman.recipes.loop import reward_functions
from journeyman.recipes.plateau_bench import PROVIDER_MAX_TOKENS, Bench, Prompted, PromptedModel, trained_adapter
from journeyman.recipes.resume import run_settings
from journeyman.recipes.settings import GrpoTrain
from journeyman.rewards import Rubric
from journeyman.store import Store
from journeyman.types.messages import Message
from journeyman.types.record import Record
from journeyman.types.sampling import SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Turn

OWN = "own"
"""Name of the prompt that the run trains with: its `rollout.system`, or no system message."""

PROMPTS: Mapping[str, str] = {
    "think": "Think about what is asked, then answer in the form asked for.",
    "terse": "Answer in as few words as you can, in exactly the form asked for, and add nothing.",
}
"""Tried beside the run's own by default."""

_DEFAULT_SHOTS = (0, 2, 4)


class PromptedGrpo(Record):
    """What to measure.

    Attributes:
        model: PROVIDER/MODEL of any OpenAI-compatible server, or a base model (a known name, a folder, a Hugging Face id).
        run: the run whose held-out tasks and rewards are used, and whose trained model is compared.
        prompts: system messages by name, beside the run's own.
        shots: numbers of worked examples before each task; None: 0, 2 and 4, as far as there are examples.
        goal: the mean reward that is wanted.
        limit: only the first so many held-out tasks.
        max_tokens: of one reply; None: as in the run for a base model, 1024 for a provider's.
    """

    model: str
    run: str
    prompts: dict[str, str] = Field(default_factory=lambda: dict(PROMPTS))
    shots: tuple[int, ...] | None = None
    goal: float = Field(default=0.9, gt=0.0, le=1.0)
    limit: int | None = Field(default=None, ge=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_concurrent: int = Field(default=32, ge=1)


async def measure_prompted(settings: PromptedGrpo, progress: Progress, *, home: Path, folder: Path) -> Plateau:
    """Measure what is missing in `folder`, assess, and write plateau.json, plateau.md and plateau.png there.

    Raises:
        SettingError: a run that cannot be prompted so, fewer than two held-out tasks, more worked examples than there are.
        JudgeError: a reward function failed. LlmError: the provider's model cannot be used; finished cells are kept.
        NotFoundError, ModelNotFoundError, StoreError, InputError: as their docstrings say.
    """
    train = settings_of(settings.run, home)
    with Store.open(home) as store:
        tasks = read_scenarios(store.home.run(settings.run).scenarios)
    heldout = tuple(one for one in tasks if one.split == "heldout")[: settings.limit]
    if len(heldout) < 2:
        raise SettingError(
            f"run {settings.run!r} holds {len(heldout)} tasks out: choosing a prompt needs at least two",
            hint="set num_heldout (--set num_heldout=32) in a new run; --set steps=0 makes one that trains nothing",
        )
    rubric = Rubric(reward_functions(train.rewards))
    examples = await _examples(settings.run, home, train, tasks, rubric)
    ways, notes = _ways(settings, train, examples)
    if train.judge is not None:
        notes.append(f"scored by the run's reward functions alone: {train.judge.model} compares attempts, and here each task has one")
    bench = Bench(folder, progress, heldout, rubric, train.timeout_seconds, settings.max_concurrent, seed=train.seed)
    async with AsyncExitStack() as stack:
        model = PromptedModel(settings.model, home, progress, stack)
        cells = [await bench.cell(model, way) for way in ways]
    trained = await _trained(settings.run, train, bench, home)
    plateau = assess(
        cells,
        model=settings.model,
        server=f"run {settings.run}",
        scenarios_hash=scenarios_hash(heldout),
        goal=settings.goal,
        trained=trained,
        can_be_trained=not names_provider(settings.model),
        uses_tools=False,
        notes=notes,
    )
    write_plateau(plateau, folder)
    return plateau


def settings_of(run: str, home: Path) -> GrpoTrain:
    """The settings of a run of `method: grpo` that can be prompted. Raises SettingError that says why it cannot, and what
    `run_settings` raises."""
    with Store.open(home) as store:
        info = store.runs.get(run)
        has_tasks = store.home.run(run).scenarios.exists()
        train = run_settings(store, run, GrpoTrain) if info.kind == "grpo" else None
    if train is None:
        raise SettingError(
            f"run {run!r} ({info.kind}) has no tasks to prompt a model on",
            hint='give a run of `journeyman mcp train` or of method: grpo, or a server: --server "CMD"',
        )
    if train.rollout.function is not None:
        raise SettingError(
            f"run {run!r} makes its attempts with {train.rollout.function}, which writes the prompt itself: other prompts cannot be put in",
            hint="change the prompt in that function, and see what the base then reaches: train anew with --set steps=0",
        )
    if not train.rewards:
        raise SettingError(
            f"run {run!r} is scored by a model alone, which compares attempts at one task: that gives no number to hold against a goal",
            hint="name a function in `rewards` in a new run; --set steps=0 makes one that trains nothing",
        )
    if not has_tasks:
        raise SettingError(f"run {run!r} has no tasks yet", hint="go on with it: " + command_line("train", "--resume", run, "--home", home))
    return train


class PromptedChat:
    """A rollout function: one greedy chat turn with a system message and worked examples before the task."""

    def __init__(self, system: str | None, shots: Sequence[Message], max_tokens: int) -> None:
        self.head = (*([] if system is None else [Message(role="system", content=system)]), *shots)
        self.max_tokens = max_tokens

    async def __call__(self, scenario: Scenario, run: Rollout) -> None:
        """Raises ContextLengthError for a prompt that does not fit, and what the client raises."""
        import openai

        messages = [one.wire() for one in (*self.head, Message(role="user", content=scenario.task))]
        body: dict[str, Any] = {"model": run.model, "messages": messages, "max_tokens": self.max_tokens, "temperature": 0.0}
        if run.seed is not None:
            body["seed"] = run.seed
        try:
            await run.openai().chat.completions.create(**body)
        except openai.BadRequestError as error:
            if error.code == "context_length_exceeded":
                raise ContextLengthError(f"the prompt does not fit the model's context: {error.message}") from error
            raise


# Ways to prompt -------------------------------------------------------------------------------------------------------


def _ways(settings: PromptedGrpo, train: GrpoTrain, examples: Sequence[tuple[Message, ...]]) -> tuple[list[Prompted], list[str]]:
    """Every prompt with every number of worked examples, and what is to be said about those."""
    asked = _DEFAULT_SHOTS if settings.shots is None else settings.shots
    shots = [count for count in asked if count <= len(examples)]
    found = f"{len(examples)} training tasks have a reply of reward 1 to show (an attempt of run {settings.run}, or data.answer)"
    if settings.shots is not None and len(shots) < len(asked):
        raise SettingError(f"{max(asked)} worked examples were asked for, and {found}", hint="ask for fewer with --shots")
    left_out = [str(count) for count in asked if count not in shots]
    notes = [f"{found}: {' and '.join(left_out)} shots were not tried"] if left_out else []
    max_tokens = settings.max_tokens or (PROVIDER_MAX_TOKENS if names_provider(settings.model) else train.rollout.max_tokens)
    prompts = {OWN: train.rollout.system, **settings.prompts}
    return [
        _way(name, count, PromptedChat(system, [one for shot in examples[:count] for one in shot], max_tokens), train)
        for name, system in prompts.items()
        for count in shots
    ], notes


def _way(name: str, num_shots: int, agent: PromptedChat, train: GrpoTrain) -> Prompted:
    # A reward function that was mended scores anew: its file is part of what the numbers depend on.
    rewards = [(path, weight, _source(path)) for path, weight in train.rewards.items()]
    return Prompted(name, num_shots, agent, ([one.wire() for one in agent.head], agent.max_tokens, train.seed, rewards))


def _source(path: str) -> str:
    try:
        return hashlib.sha256(Path(inspect.getfile(find_function(path, setting="rewards"))).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""  # written in C, or gone since it was imported


async def _trained(run: str, train: GrpoTrain, bench: Bench, home: Path) -> VariantResult | None:
    """The newest version of the run on the same tasks, prompted as it was trained; None when the run has none."""
    adapter = trained_adapter(run, home, bench.progress)
    if adapter is None:
        return None
    way = _way(adapter, 0, PromptedChat(train.rollout.system, (), train.rollout.max_tokens), train)
    return await bench.trained(adapter, way, run=run, base=train.base, home=home)


# Worked examples ------------------------------------------------------------------------------------------------------


async def _examples(run: str, home: Path, train: GrpoTrain, tasks: Sequence[Scenario], rubric: Rubric) -> list[tuple[Message, ...]]:
    """Training tasks with a reply of reward 1, in an order of the seed: the run's own attempt, else the answer under `data.answer`."""
    unseen = {one.task for one in tasks if one.split == "heldout"}
    known = {one.id: one for one in tasks if one.split == "train" and one.task not in unseen}
    replies = {**await _answers(known, rubric), **_attempts(run, home, train.base)}
    order = random.Random(f"shots/{train.seed}").sample(sorted(known), len(known))
    pairs = [(known[name].task, replies[name]) for name in order if name in replies]
    return [(Message(role="user", content=task), Message(role="assistant", content=reply)) for task, reply in pairs]


def _attempts(run: str, home: Path, base: str) -> dict[str, str]:
    """By training task, the first reply of the run that got reward 1: the untrained model's own, where it had one."""
    found: dict[str, str] = {}
    for group in scored_groups(home, run, base):
        for reply in _perfect_replies(group):
            found.setdefault(group.scenario.id, reply)
    return found


def _perfect_replies(group: Group) -> Iterator[str]:
    for one in group:
        if one.reward is not None and one.reward >= 1.0 and one.answer and len(one.turns) == 1:
            thought = one.turns[0].reply.reasoning_content
            yield f"<think>{thought}</think>{one.answer}" if thought else one.answer


async def _answers(tasks: Mapping[str, Scenario], rubric: Rubric) -> dict[str, str]:
    """Answers that tasks carry, as far as the run's rewards give them 1: one that rewards read otherwise is no worked example."""
    told = {name: str(one.data["answer"]) for name, one in tasks.items() if isinstance(one.data.get("answer"), str | int | float)}
    groups = [Group(scenario=tasks[name], trajectories=(_said(name, answer),)) for name, answer in told.items()]
    scored = await rubric.score(groups)
    return {group.scenario.id: told[group.scenario.id] for group in scored if (group.trajectories[0].reward or 0.0) >= 1.0}


def _said(scenario_id: str, text: str) -> Trajectory:
    """An attempt that is nothing but this reply."""
    turn = Turn(
        index=0,
        adapter=None,
        messages=(),
        reply=Message(role="assistant", content=text),
        prompt_ids=(),
        sampled_ids=(),
        sampled_logprobs=(),
        finish_reason="stop",
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
    )
    return Trajectory(id="reference", scenario_id=scenario_id, model="reference", turns=(turn,))
