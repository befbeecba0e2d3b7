"""What prompts are tried on, and the prompts with their worked examples. Either the scenarios of an MCP server, or of a run that trained on
one, judged by evidence; or the tasks of a run of `method: grpo`, scored by its own rewards. Not for measuring: `plateau.py`.

Not for runs with a rollout function: those write the prompt themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from journeyman.agents.server_pool import ServerPool, num_shared_servers
from journeyman.agents.tool_loop import SYSTEM_PROMPT, ToolLoop, ToolLoopSettings
from journeyman.client.attempts import RolloutFunction
from journeyman.client.rollout import Rollout
from journeyman.config import command_line
from journeyman.errors import ContextLengthError, SettingError
from journeyman.llm import names_provider
from journeyman.mcp.client import open_server
from journeyman.mcp.target import McpTarget
from journeyman.mcp.tools import choose_tools
from journeyman.observe.progress import Progress
from journeyman.recipes.data import read_scenarios, scored_groups
from journeyman.recipes.functions import find_function
from journeyman.recipes.loop import reward_functions
from journeyman.recipes.resume import run_settings
from journeyman.recipes.session import scenario_settings
from journeyman.recipes.settings import GrpoTrain, McpTrain
from journeyman.rewards import EvidenceJudge, Rubric
from journeyman.rewards.judge import Judge
from journeyman.scenarios.build import build_scenarios
from journeyman.scenarios.drills import make_shots
from journeyman.scenarios.proposals import CompletionProposer
from journeyman.scenarios.scenario_set import ScenarioSet
from journeyman.store import Store
from journeyman.store.home import HomeFolder
from journeyman.types.messages import Message
from journeyman.types.record import Record
from journeyman.types.sampling import SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Seed
from journeyman.types.trajectory import Group, Trajectory, Turn

OWN = "own"
"""Name of the prompt that a run of tasks trains with: its `rollout.system`, or no system message."""

TOOL_PROMPTS: Mapping[str, str] = {
    "default": SYSTEM_PROMPT,
    "terse": "Answer with the tools, in a few words.",
    "step by step": (
        "You answer questions with tools. Work step by step: choose the tool that fits, call it with arguments taken from the question, "
        "read its result, and when you have every value that is asked for, state it in one short sentence. Never guess a value."
    ),
}
"""Tried on an MCP server by default: the words that runs are trained with, a terse prompt, and one that spells the steps out."""

TASK_PROMPTS: Mapping[str, str] = {
    "think": "Think about what is asked, then answer in the form asked for.",
    "terse": "Answer in as few words as you can, in exactly the form asked for, and add nothing.",
}
"""Tried on the tasks of a run by default, beside its own."""

_DEFAULT_SHOTS = (0, 2, 4)
_PROVIDER_MAX_TOKENS = 1024  # models that think need room for it
_TASK_CONCURRENCY = 32


class PlateauSettings(Record):
    """What to measure.

    Attributes:
        model: PROVIDER/MODEL of any OpenAI-compatible server, or a base model (a known name, a folder, a Hugging Face id).
        run: a run whose held-out scenarios are used, and whose trained model is compared; None: scenarios are made for `target`.
        target: the MCP server; of a run, its own with the secrets given again.
        prompts: system messages by name, instead of `TOOL_PROMPTS` or `TASK_PROMPTS`.
        shots: numbers of worked examples before each task, from training scenarios; None: 0, 2 and 4, as far as a run of tasks has them.
        goal: the success, or the mean reward, that is wanted.
        limit: only the first so many held-out scenarios.
        max_tokens: of one reply; None: as in training for a base model, 1024 for a provider's.
        tools, read_only, allow_writes, seed: for scenarios that are made for `target`.
    """

    model: str
    run: str | None = None
    target: McpTarget | None = None
    prompts: dict[str, str] | None = None
    shots: tuple[int, ...] | None = None
    goal: float = Field(default=0.9, gt=0.0, le=1.0)
    limit: int | None = Field(default=None, ge=2)
    max_tokens: int | None = Field(default=None, ge=1)
    tools: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    allow_writes: bool = False
    seed: Seed = 0

    def tokens_of_reply(self, in_training: int) -> int:
        return self.max_tokens or (_PROVIDER_MAX_TOKENS if names_provider(self.model) else in_training)


@dataclass(frozen=True, slots=True)
class Prompted:
    """One way to prompt. `contents`: all that its outcome depends on beside the model and the scenarios, as JSON can hold it."""

    prompt: str
    num_shots: int
    agent: RolloutFunction
    contents: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The same held-out scenarios and the same judge for every cell, and the ways to prompt.

    Attributes:
        name: for the report.
        as_trained: the way in which `base` was trained by the run; None without a run.
    """

    name: str
    heldout: tuple[Scenario, ...]
    judge: Judge
    ways: Sequence[Prompted]
    as_trained: Prompted | None
    base: str
    max_concurrent: int
    timeout_seconds: float
    seed: int
    uses_tools: bool
    notes: Sequence[str]


def settings_of_run(run: str, home: Path) -> McpTrain | GrpoTrain:
    """The settings of a run whose scenarios or tasks can be prompted. Raises SettingError that says why they cannot, and what
    `run_settings` raises."""
    with Store.open(home) as store:
        info, folder = store.runs.get(run), store.home.run(run)
        if info.kind == "mcp":
            train: McpTrain | GrpoTrain = run_settings(store, run, McpTrain)
        elif info.kind == "grpo":
            train = run_settings(store, run, GrpoTrain)
            _check_tasks(run, train)
        else:
            raise SettingError(
                f"run {run!r} ({info.kind}) has no tasks to prompt a model on",
                hint='give a run of `journeyman mcp train` or of method: grpo, or a server: --server "CMD"',
                reason="no_tasks",
            )
        if not (folder.path / "scenarios" if info.kind == "mcp" else folder.scenarios).exists():
            words = ("mcp", "train") if info.kind == "mcp" else ("train",)
            hint = "go on with it: " + command_line(*words, "--resume", run, "--home", home)
            raise SettingError(f"run {run!r} has no tasks yet", hint=hint, reason="no_tasks_yet")
    return train


def _check_tasks(run: str, train: GrpoTrain) -> None:
    if train.rollout.function is not None:
        raise SettingError(
            f"run {run!r} makes its attempts with {train.rollout.function}, which writes the prompt itself: other prompts cannot be put in",
            hint="change the prompt in that function, and see what the base then reaches: train anew with --set steps=0",
            reason="own_rollout",
        )
    if not train.rewards:
        raise SettingError(
            f"run {run!r} is scored by a model alone, which compares attempts at one task: that gives no number to hold against a goal",
            hint="name a function in `rewards` in a new run; --set steps=0 makes one that trains nothing",
            reason="no_rewards",
        )


@asynccontextmanager
async def subject_of(
    settings: PlateauSettings,
    train: McpTrain | GrpoTrain | None,
    home: Path,
    progress: Progress,
    path: Path,
    proposer: Callable[[], Awaitable[CompletionProposer | None]],
) -> AsyncIterator[Subject]:
    """What `settings` prompt on. All agents are made at once: a prompt that cannot be made is found out before the first attempt.

    `train`: of the run, if there is one. `path`, `proposer`: where scenarios for a server are kept, and what makes values up for them.
    """
    if isinstance(train, GrpoTrain):
        yield await _tasks(settings, train, home)
        return
    if train is None:
        if settings.target is None:
            raise SettingError("no MCP server and no run to prompt a model on", reason="no_target")
        chosen = {name: getattr(settings, name) for name in ("target", "tools", "read_only", "allow_writes", "seed")}
        train = McpTrain.model_validate(chosen)
    elif settings.target is not None:
        train = train.model_copy(update={"target": settings.target})
    progress.phase("start", note=train.target.label)
    async with _pool(train) as pool:
        if settings.run is not None:
            scenarios = ScenarioSet.load(HomeFolder(home).run(settings.run).path / "scenarios")
        else:
            scenarios = await _kept_or_made(train, path, progress, proposer)
        scenarios.check_offered(pool.tools)
        yield _server(settings, train, pool, scenarios)


# Scenarios of a server ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _pool(train: McpTrain) -> AsyncIterator[ServerPool]:
    async with open_server(train.target) as server:
        choice = choose_tools(server.tools, train.target.label, train.tools, read_only=train.read_only, allow_writes=train.allow_writes)
    rollouts = train.rollouts
    servers = ServerPool(
        train.target, choice.tools, rollouts.isolation, num_shared=num_shared_servers(), max_servers=rollouts.max_concurrent
    )
    async with servers as pool:
        yield pool


async def _kept_or_made(
    train: McpTrain, path: Path, progress: Progress, proposer: Callable[[], Awaitable[CompletionProposer | None]]
) -> ScenarioSet:
    if await asyncio.to_thread(path.exists):
        return ScenarioSet.load(path)
    maker = await proposer()
    async with open_server(train.target) as server:
        made = await build_scenarios(server, scenario_settings(train), proposer=maker, seed=train.seed, progress=progress)
    aside = path.with_name("scenarios.part")
    made.save(aside)
    aside.rename(path)
    return made


def _server(settings: PlateauSettings, train: McpTrain, pool: ServerPool, scenarios: ScenarioSet) -> Subject:
    bounds = ToolLoopSettings(max_tokens=settings.tokens_of_reply(train.rollouts.max_tokens), temperature=0.0)
    prompts = TOOL_PROMPTS if settings.prompts is None else settings.prompts
    counts = _DEFAULT_SHOTS if settings.shots is None else settings.shots
    shots = {count: make_shots(scenarios.train, count, seed=train.seed, max_result_chars=bounds.max_result_chars) for count in counts}
    in_training = ToolLoopSettings(max_turns=train.rollouts.max_turns, max_tokens=train.rollouts.max_tokens, temperature=0.0)
    return Subject(
        name=train.target.label,
        heldout=scenarios.heldout[: settings.limit],
        judge=EvidenceJudge(),
        ways=[
            _with_tools(name, count, ToolLoop(pool, bounds, system_prompt=text, shots=shots[count]))
            for name, text in prompts.items()
            for count in counts
        ],
        as_trained=None if settings.run is None else _with_tools("as trained", 0, ToolLoop(pool, in_training)),
        base=train.base,
        max_concurrent=pool.max_concurrent,
        timeout_seconds=train.rollouts.timeout_seconds,
        seed=train.seed,
        uses_tools=True,
        notes=scenarios.notes,
    )


def _with_tools(prompt: str, num_shots: int, agent: ToolLoop) -> Prompted:
    said = ([message.wire() for message in agent.messages("")], [tool.model_dump() for tool in agent.tools])
    return Prompted(prompt, num_shots, agent, (said, asdict(agent.settings)))


# Tasks of a run -------------------------------------------------------------------------------------------------------


async def _tasks(settings: PlateauSettings, train: GrpoTrain, home: Path) -> Subject:
    run = settings.run or ""
    tasks = read_scenarios(HomeFolder(home).run(run).scenarios)
    heldout = tuple(task for task in tasks if task.split == "heldout")[: settings.limit]
    if len(heldout) < 2:
        raise SettingError(
            f"run {run!r} holds {len(heldout)} tasks out: choosing a prompt needs at least two",
            hint="set num_heldout (--set num_heldout=32) in a new run; --set steps=0 makes one that trains nothing",
            reason="too_few_held_out",
        )
    rubric = Rubric(reward_functions(train.rewards))
    examples = await _examples(run, home, train, tasks, rubric)
    counts, notes = _counts(settings, len(examples))
    if train.judge is not None:
        notes.append(f"scored by the run's reward functions alone: {train.judge.model} compares attempts, and here each task has one")
    prompts = {OWN: train.rollout.system, **(TASK_PROMPTS if settings.prompts is None else settings.prompts)}
    max_tokens = settings.tokens_of_reply(train.rollout.max_tokens)
    return Subject(
        name=f"run {run}",
        heldout=heldout,
        judge=rubric,
        ways=[
            _chat(name, count, system, [message for shot in examples[:count] for message in shot], max_tokens, train)
            for name, system in prompts.items()
            for count in counts
        ],
        as_trained=_chat("as trained", 0, train.rollout.system, (), train.rollout.max_tokens, train),
        base=train.base,
        max_concurrent=_TASK_CONCURRENCY,
        timeout_seconds=train.timeout_seconds,
        seed=train.seed,
        uses_tools=False,
        notes=notes,
    )


def _counts(settings: PlateauSettings, num_examples: int) -> tuple[list[int], list[str]]:
    """The numbers of worked examples that can be tried, and a note on those that cannot. Raises SettingError where they were asked for."""
    asked = _DEFAULT_SHOTS if settings.shots is None else settings.shots
    counts = [count for count in asked if count <= num_examples]
    found = f"{num_examples} training tasks have a reply of reward 1 to show (an attempt of run {settings.run}, or data.answer)"
    left_out = " and ".join(str(count) for count in asked if count > num_examples)
    if settings.shots is not None and left_out:
        problem = f"{max(asked)} worked examples were asked for, and {found}"
        raise SettingError(problem, hint="ask for fewer with --shots", reason="too_few_examples")
    return counts, [f"{found}: {left_out} shots were not tried"] if left_out else []


def _chat(prompt: str, num_shots: int, system: str | None, shots: Sequence[Message], max_tokens: int, train: GrpoTrain) -> Prompted:
    """One greedy chat turn, with a system message and worked examples before the task."""
    head = [message.wire() for message in (*([] if system is None else [Message(role="system", content=system)]), *shots)]

    async def chat(scenario: Scenario, run: Rollout) -> None:
        """Raises ContextLengthError for a prompt that does not fit, and what the client raises."""
        import openai

        messages = [*head, {"role": "user", "content": scenario.task}]
        body: dict[str, Any] = {"model": run.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        if run.seed is not None:
            body["seed"] = run.seed
        try:
            await run.openai().chat.completions.create(**body)
        except openai.BadRequestError as error:
            if error.code == "context_length_exceeded":
                raise ContextLengthError(f"the prompt does not fit the model's context: {error.message}") from error
            raise

    # A reward function that was mended scores anew: its file is part of what the numbers depend on.
    rewards = [(path, weight, _source(path)) for path, weight in train.rewards.items()]
    return Prompted(prompt, num_shots, chat, (head, max_tokens, train.seed, rewards))


def _source(path: str) -> str:
    try:
        return hashlib.sha256(Path(inspect.getfile(find_function(path, setting="rewards"))).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""  # written in C, or gone since it was imported


async def _examples(run: str, home: Path, train: GrpoTrain, tasks: Sequence[Scenario], rubric: Rubric) -> list[tuple[Message, ...]]:
    """Training tasks with a reply of reward 1, in an order of the seed: the run's own attempt, else the answer under `data.answer`."""
    unseen = {task.task for task in tasks if task.split == "heldout"}
    known = {task.id: task for task in tasks if task.split == "train" and task.task not in unseen}
    replies = {**await _answers(known, rubric), **_perfect_replies(run, home, train.base)}
    order = random.Random(f"shots/{train.seed}").sample(sorted(known), len(known))
    pairs = [(known[name].task, replies[name]) for name in order if name in replies]
    return [(Message(role="user", content=task), Message(role="assistant", content=reply)) for task, reply in pairs]


def _perfect_replies(run: str, home: Path, base: str) -> dict[str, str]:
    """By training task, the first reply of the run that got reward 1: the untrained model's own, where it had one."""
    replies: dict[str, str] = {}
    for group in scored_groups(home, run, base):
        for attempt in group:
            if (attempt.reward or 0.0) >= 1.0 and attempt.answer and len(attempt.turns) == 1:
                thought = attempt.turns[0].reply.reasoning_content
                replies.setdefault(group.scenario.id, f"<think>{thought}</think>{attempt.answer}" if thought else attempt.answer)
    return replies


async def _answers(tasks: Mapping[str, Scenario], rubric: Rubric) -> dict[str, str]:
    """Answers that tasks carry, as far as the run's rewards give them 1: one that rewards read otherwise is no worked example."""
    answers = {name: str(task.data["answer"]) for name, task in tasks.items() if isinstance(task.data.get("answer"), str | int | float)}
    groups = [Group(scenario=tasks[name], trajectories=(_replied(name, answer),)) for name, answer in answers.items()]
    scored = await rubric.score(groups)
    return {group.scenario.id: answers[group.scenario.id] for group in scored if (group.trajectories[0].reward or 0.0) >= 1.0}


def _replied(scenario_id: str, text: str) -> Trajectory:
    """An attempt that is nothing but this reply."""
    turn = Turn(
        index=0, adapter=None, messages=(), reply=Message(role="assistant", content=text), prompt_ids=(), sampled_ids=(),
        sampled_logprobs=(), finish_reason="stop", parameters=SamplingParameters(), started_at=0.0, seconds=0.0,
    )  # fmt: skip
    return Trajectory(id="reference", scenario_id=scenario_id, model="reference", turns=(turn,))
