"""Ruler: a model compares the attempts at a scenario and scores each from 0 to 1; no labels, no reward function.

After RULER (OpenPipe ART), differing where that broke: every attempt is seen at two mirrored places, ids are random labels per call,
bounds and ids are checked, attempts are fenced data, verdicts are kept on disk, ties are ties, and what cannot be scored is left out
of training, never given 0. The parts: what is shown (attempt_text.py), who is compared with whom and what scores become (comparison.py),
the call (judge_model.py), what it costs (judge_store.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import Field

from journeyman.config import environment, home_folder
from journeyman.errors import SettingError, first_error
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.rewards.attempt_text import AttemptText, attempt_text, estimate_tokens, quoted, shared_text
from journeyman.rewards.comparison import RewardKind, fair_rewards, gated, link, order_agreement, plan_calls
from journeyman.rewards.judge_model import JudgeModel, Question, Reading, print_nothing
from journeyman.rewards.judge_store import JudgeBudget, JudgeStore, Price, Spending
from journeyman.types.record import Record
from journeyman.types.secrets import Secret, SecretUrl, hide_in_url
from journeyman.types.settings import Seed
from journeyman.types.trajectory import Group, JudgeCall, Trajectory, Verdict

ORDER_AGREEMENT = "order_agreement"
# Two orders of a judge that guesses agree on half of the pairs.
_NEAR_CHANCE = 0.6
_MIN_GROUPS_FOR_WARNING = 4
_FRAME_TOKENS = 60

DEFAULT_RUBRIC = """\
- Reaching the goal scores well above failing; partial progress earns partial credit.
- Faithful to tool results: a claim they do not support is worse than admitting failure.
- Efficient: fewer steps, no wasted or failed calls, a little higher.
- Format last: the answer is in words for the person who asked, not pasted tool output."""


class Criterion(Record):
    """One thing to look for. `weight` is relative to the others'.

    Example:
        >>> rubric_text([Criterion(text="the answer is right", weight=3), Criterion(text="it is short")])
        'Weigh these criteria:\\n- (75 %) the answer is right\\n- (25 %) it is short'
    """

    text: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)


def rubric_text(rubric: str | Sequence[Criterion] | None) -> str:
    """The rubric as the model reads it; None is the default one. Raises SettingError for an empty one."""
    if rubric is None:
        return DEFAULT_RUBRIC
    if isinstance(rubric, str):
        if not rubric.strip():
            raise SettingError("the rubric is empty", hint="say what makes an attempt good, or leave it out for the default")
        return rubric.strip()
    if not rubric:
        raise SettingError("the rubric has no criteria", hint="give at least one, or leave it out for the default")
    total = sum(one.weight for one in rubric)
    return "Weigh these criteria:\n" + "\n".join(f"- ({100 * one.weight / total:.0f} %) {one.text}" for one in rubric)


class RulerOptions(Record):
    """How a model judges.

    Attributes:
        base_url: where the model is, when its name does not say.
        api_key_env: the variable that holds the key, when the provider's usual one does not.
        rubric: words, or criteria with weights; a general one when None.
        mode: `listwise` (2 calls up to 5 attempts, then 2·ceil(N/5)), or `pairwise` (every pair in both orders, N·(N-1) calls; the
            score is the share of comparisons won).
        reward: the scores themselves, or their ranks from 0 to 1 (steadier with small, noisy or drifting judges).
        tie_width: scores this close are tied.
        min_spread: a group whose scores differ by no more than this teaches nothing.
        gates: what can be seen without a model caps its scores (see `comparison.gate_level`).
        expected_scores: the mean over token probabilities where the endpoint returns them.
        max_tokens_per_attempt: beyond that the middle of tool outputs is cut, then of other messages; never the final answer.
        context_tokens: the judge's context; attempts are cut further to fit it. Unlimited when None.
        price: dollars per million tokens, for `judge/cost_usd` and a budget in dollars.
        budget: "$2.50" or "300k" (tokens), over the whole run.
        cache: verdicts are kept in the home folder and cost nothing a second time.
        patience_seconds: how long an outage is waited out.
        seed: of who is compared with whom.
    """

    base_url: SecretUrl | None = None
    api_key_env: str | None = None
    rubric: str | tuple[Criterion, ...] | None = None
    mode: Literal["listwise", "pairwise"] = "listwise"
    reward: RewardKind = "scores"
    tie_width: float = Field(default=0.02, ge=0.0, lt=1.0)
    min_spread: float = Field(default=0.05, ge=0.0, lt=1.0)
    gates: bool = True
    expected_scores: bool = False
    max_tokens_per_attempt: int = Field(default=4000, ge=64)
    context_tokens: int | None = Field(default=None, ge=512)
    max_concurrent: int = Field(default=8, ge=1)
    price: Price | None = None
    budget: str | None = None
    cache: bool = True
    patience_seconds: float = Field(default=600.0, ge=0.0)
    seed: Seed = 0

    def parsed_budget(self) -> JudgeBudget | None:
        """Raises SettingError for text that is no budget."""
        return None if self.budget is None else JudgeBudget.parse(self.budget)


class Ruler:
    """Scores groups with any OpenAI-compatible model.

    Args:
        model: `provider/model`, or with `base_url` the model's name there (see llm.LlmEndpoint).
        rubric: what makes an attempt good, in words or as weighted criteria; the default one is general.
        options: everything else (see RulerOptions).
        settings: of the calls; the default one is temperature 0, 4096 tokens a reply, 8 calls at a time.
        home: where verdicts are kept (the usual home folder when None).
        run: whose budget is spent.
        warn: called with outages and a judge that guesses.

    Raises LlmError at once when the provider's key is not set, SettingError for settings that cannot work.
    """

    def __init__(
        self,
        model: str,
        base_url: str | Secret | None = None,
        api_key: str | None = None,
        rubric: str | Sequence[Criterion] | None = None,
        *,
        options: RulerOptions | None = None,
        settings: LlmSettings | None = None,
        home: Path | None = None,
        run: str = "",
        warn: Callable[[str], None] = print_nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.options = options or RulerOptions()
        self.rubric = rubric_text(rubric if rubric is not None else self.options.rubric)
        self.warn = warn
        settings = settings or LlmSettings(max_tokens=4096, max_concurrent=self.options.max_concurrent)
        # What a run has spent is kept whether verdicts are or not.
        self._store = JudgeStore(home_folder(home)) if self.options.cache or run else None
        budget = self.options.parsed_budget()
        self.spending = Spending(price=self.options.price, budget=budget, store=self._store, run=run)
        url = base_url.value(environment, what="the judge's base_url") if isinstance(base_url, Secret) else base_url
        endpoint = LlmEndpoint.parse(model, url, api_key_env=self.options.api_key_env)
        self.llm = Llm(endpoint, api_key=api_key, settings=settings, meter=self.spending, sleep=sleep)
        self._model = JudgeModel(
            self.llm,
            store=self._store if self.options.cache else None,
            spending=self.spending,
            with_expected_scores=self.options.expected_scores,
            patience_seconds=self.options.patience_seconds,
            warn=lambda text: self.warn(text),
            sleep=sleep,
        )
        self._agreements: list[float] = []

    @property
    def name(self) -> str:
        return f"ruler:{self.llm.endpoint.model}"

    @property
    def description(self) -> str:
        what = "ranks" if self.options.reward == "ranks" else "scores"
        return (
            f"0 to 1, relative within the attempts at a task ({what}, both orders), as compared by {self.llm.endpoint.model} "
            f"at {hide_in_url(self.llm.endpoint.base_url)}: reaching the goal first, then with fewer steps"
        )

    async def check(self) -> None:
        """Ask for one word. Raises LlmError when the model does not answer: better now than after attempts nobody can score."""
        await self.llm.check()

    async def close(self) -> None:
        await self.llm.close()
        if self._store is not None:
            self._store.close()

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        """Score all groups at once (the limit on concurrent calls applies).

        Raises JudgeError when the judge stays out of service or cannot be used, JudgeBudgetError when its budget is spent; what was
        judged until then is kept on disk and costs nothing again.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self.score_group(group)) for group in groups]
        except BaseExceptionGroup as failed:
            raise first_error(failed) from failed
        self._warn_if_it_guesses()
        return [task.result() for task in running]

    async def score_group(self, group: Group) -> Group:
        """The same group with verdict and reward on every attempt. Attempts that read the same are shown once and share both."""
        verdicts = {at: verdict for at, one in enumerate(group.trajectories) if (verdict := self._unscorable(one)) is not None}
        judged = [at for at in range(len(group.trajectories)) if at not in verdicts]
        distinct: dict[str, list[int]] = {}
        shared, num_messages = shared_text([group.trajectories[at] for at in judged]) if judged else ("", 0)
        texts = {at: attempt_text(group.trajectories[at], num_messages) for at in judged}
        for at in judged:
            distinct.setdefault(texts[at].key, []).append(at)
        budget = self._budget_per_attempt(group, shared, len(distinct))
        for key in [key for key, same in distinct.items() if texts[same[0]].min_tokens > budget]:
            for at in distinct.pop(key):
                verdicts[at] = self._too_long(texts[at], budget)
        firsts = [same[0] for same in distinct.values()]
        found = await self._compare(group, shared, [texts[at] for at in firsts], [group.trajectories[at] for at in firsts], budget)
        for same, verdict in zip(distinct.values(), found, strict=True):
            verdicts |= dict.fromkeys(same, verdict)
        return self._rewarded(group, [verdicts[at] for at in range(len(group.trajectories))])

    async def _compare(
        self, group: Group, shared: str, texts: Sequence[AttemptText], attempts: Sequence[Trajectory], budget: int
    ) -> list[Verdict]:
        """One verdict per attempt, in the same order."""
        if len(texts) < 2:
            return [self._abstain("all attempts read the same: nothing to compare") for _ in texts]
        plan = self._plan(texts)
        shown = [text.fit(budget) for text in texts]
        questions = [
            Question(self.rubric, quoted(group.scenario.task), shared, tuple(shown[at] for at in call), tuple(texts[at].key for at in call))
            for call in plan
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(self._model.ask(question)) for question in questions]
        except BaseExceptionGroup as failed:
            raise first_error(failed) from failed
        readings = [task.result() for task in asked]
        calls = _calls_by_attempt(len(texts), plan, readings)
        if faults := [reading.fault for reading in readings if reading.scores is None]:
            return [self._abstain(f"the judge could not score this group: {faults[0]}", calls[at]) for at in range(len(texts))]
        scores = [reading.scores for reading in readings if reading.scores is not None]
        quality, first, second = self._combine(len(texts), plan, scores)
        agreement = order_agreement(first, second)
        if agreement is not None:
            self._agreements.append(agreement)
        checks = {} if agreement is None else {ORDER_AGREEMENT: agreement}
        final = gated(quality, attempts) if self.options.gates else quality
        return [
            Verdict(
                judge=self.name, score=score, explanation=_explain(calls[at], score, quality[at]), checks=checks, calls=tuple(calls[at])
            )
            for at, score in enumerate(final)
        ]

    def _plan(self, texts: Sequence[AttemptText]) -> list[tuple[int, ...]]:
        """Who is shown with whom. The seed is the content, so that the same group asks the same questions again."""
        if self.options.mode == "pairwise":
            pairs = list(combinations(range(len(texts)), 2))
            return [*pairs, *[(right, left) for left, right in pairs]]
        by_key = sorted(range(len(texts)), key=lambda at: texts[at].key)
        seed = f"{self.options.seed}:" + ",".join(texts[at].key for at in by_key)
        return [tuple(by_key[at] for at in call) for call in plan_calls(len(texts), seed)]

    def _combine(
        self, count: int, plan: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
    ) -> tuple[list[float], list[float], list[float]]:
        if self.options.mode == "listwise":
            return link(count, plan, scores)
        half = len(plan) // 2
        first, second = _win_rates(count, plan[:half], scores[:half]), _win_rates(count, plan[half:], scores[half:])
        return [(one + other) / 2 for one, other in zip(first, second, strict=True)], first, second

    def _rewarded(self, group: Group, verdicts: Sequence[Verdict]) -> Group:
        scored = [at for at, verdict in enumerate(verdicts) if verdict.score is not None]
        fair = fair_rewards(
            [verdicts[at].score or 0.0 for at in scored],
            kind=self.options.reward,
            tie_width=self.options.tie_width,
            min_spread=self.options.min_spread,
        )
        rewards = dict(zip(scored, fair, strict=True))
        return group.model_copy(
            update={
                "trajectories": tuple(
                    one.model_copy(update={"verdict": verdicts[at], "reward": rewards.get(at)}) for at, one in enumerate(group.trajectories)
                )
            }
        )

    def _budget_per_attempt(self, group: Group, shared: str, count: int) -> int:
        """Tokens that one attempt may take in a call. Raises SettingError when the judge's context has no room at all."""
        options = self.options
        if options.context_tokens is None or count == 0:
            return options.max_tokens_per_attempt
        together = 2 if options.mode == "pairwise" else max(len(call) for call in plan_calls(count, 0))
        fixed = estimate_tokens(self.rubric) + estimate_tokens(group.scenario.task) + estimate_tokens(shared) + 250
        room = (options.context_tokens - self.llm.settings.max_tokens - fixed) // together - _FRAME_TOKENS
        if room < 1:
            raise SettingError(
                f"the judge's context of {options.context_tokens:,} tokens is too small for scenario {group.scenario.id!r}: rubric, task "
                f"and shared beginning take {fixed:,}, its reply may take {self.llm.settings.max_tokens:,}",
                hint="use a judge with a larger context, or lower its reply's token limit",
            )
        return min(options.max_tokens_per_attempt, room)

    def _too_long(self, text: AttemptText, budget: int) -> Verdict:
        return self._abstain(
            f"the judge's context is too small for attempt {text.id}: it needs at least {text.min_tokens:,} tokens (its final answer is "
            f"never cut), an attempt may have {budget:,} (judge_options.max_tokens_per_attempt, judge_options.context_tokens)"
        )

    def _unscorable(self, trajectory: Trajectory) -> Verdict | None:
        """The verdict on an attempt that says nothing about the model, None when it can be judged."""
        if trajectory.error is not None and not trajectory.error.is_of_model:
            return self._abstain(f"not the model's doing: {trajectory.error.type}: {trajectory.error.message}")
        return None if trajectory.turns else self._abstain("the rollout made no model call")

    def _abstain(self, reason: str, calls: Sequence[JudgeCall] = ()) -> Verdict:
        return Verdict(judge=self.name, score=None, explanation=reason, calls=tuple(calls))

    def _warn_if_it_guesses(self) -> None:
        """Told once per `score`, over the groups since the last telling."""
        if len(self._agreements) < _MIN_GROUPS_FOR_WARNING:
            return
        mean = sum(self._agreements) / len(self._agreements)
        if mean < _NEAR_CHANCE:
            self.warn(
                f"judge {self.name} nearly guesses: shown the same attempts in two orders it agrees with itself on {mean:.0%} of pairs "
                f"(chance is 50 %, {len(self._agreements)} groups); use a stronger judge"
            )
        self._agreements.clear()


def _calls_by_attempt(count: int, plan: Sequence[Sequence[int]], readings: Sequence[Reading]) -> list[list[JudgeCall]]:
    out: list[list[JudgeCall]] = [[] for _ in range(count)]
    for members, reading in zip(plan, readings, strict=True):
        for at, call in zip(members, reading.calls, strict=True):
            out[at].append(call)
    return out


def _win_rates(count: int, pairs: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> list[float]:
    """The share of its comparisons that each attempt wins, a tie half."""
    points, played = [0.0] * count, [0] * count
    for (left, right), (one, other) in zip(pairs, scores, strict=True):
        won = 0.5 if one == other else float(one > other)
        points[left], points[right] = points[left] + won, points[right] + 1.0 - won
        played[left], played[right] = played[left] + 1, played[right] + 1
    return [value / max(1, games) for value, games in zip(points, played, strict=True)]


def _explain(calls: Sequence[JudgeCall], score: float, ungated: float) -> str:
    said = " / ".join(dict.fromkeys(call.explanation for call in calls if call.explanation))
    return said if score >= ungated else f"{said} (held down: its calls never parsed, or it says nothing)"
