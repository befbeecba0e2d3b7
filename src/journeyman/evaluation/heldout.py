"""Held-out evaluation: the same scenarios, attempted by each variant of a model, judged alike and compared pair by pair.

Not for training scenarios, and not for choosing a checkpoint: look once.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from journeyman.client.attempts import RolloutFunction
from journeyman.client.gather import gather
from journeyman.client.models import Model
from journeyman.errors import JudgeError, SettingError
from journeyman.evaluation.statistics import (
    Interval,
    NoiseFloor,
    PairedComparison,
    mean_interval,
    noise_floor,
    paired_comparison,
    pass_at_k,
    pass_hat_k,
)
from journeyman.observe.progress import Progress, SilentProgress
from journeyman.rewards.judge import Judge
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory

_JUDGE_ABSTAINED = "the judge abstained"


class ItemResult(Record):
    """One scenario's attempts by one variant. `successes` are those of `success_of`, `scores` the judge's: None where they are missing."""

    scenario_id: str
    successes: tuple[float | None, ...]
    scores: tuple[float | None, ...]

    @property
    def measured(self) -> tuple[float, ...]:
        """The successes that are known."""
        return tuple(success for success in self.successes if success is not None)

    @property
    def success(self) -> float | None:
        """The mean of those that are known; None when none is."""
        return _mean(self.measured) if self.measured else None

    @property
    def score(self) -> float | None:
        scored = [score for score in self.scores if score is not None]
        return sum(scored) / len(scored) if scored else None


class VariantResult(Record):
    """One variant over all scenarios. `success` is over the scenarios with an attempt whose outcome is known; `missing` counts the
    attempts whose outcome is not, by reason (a judge that abstained, a server that died): they are neither successes nor failures.
    `num_undecidable` answers could be read in two ways; they count as failures.
    `omitted`: parameters of sampling that were asked for and that the model's server does not take: its numbers are for that policy.

    `costs` are means per attempt: `turns`, `tool_calls`, `sampled_tokens`, `seconds`, and `seconds_p50`, `seconds_p95`; shares in [0, 1]:
    `invalid_calls` (of calls), `truncated`, `failed`, `distinct` (different attempts per scenario). `checks`: means of the judge's checks.
    """

    name: str
    model: str
    items: tuple[ItemResult, ...]
    success: Interval
    score: Interval | None
    num_failed: int
    pass_at: dict[int, float]
    pass_hat: dict[int, float]
    noise: NoiseFloor | None
    costs: dict[str, float]
    checks: dict[str, float]
    seconds: float
    missing: dict[str, int] = Field(default_factory=dict)
    num_undecidable: int = 0
    omitted: tuple[str, ...] = ()

    @property
    def omitted_line(self) -> str | None:
        """For a report: what the numbers are for, where that is not what was asked for."""
        names = ", ".join(self.omitted)
        return f"{self.name}: {self.model} does not take {names}, so it was sampled without" if names else None

    @property
    def notes(self) -> tuple[str, ...]:
        """For a report: what was left out, what is missing and how far the success could be off by it, what could not be decided."""
        lines = [self.omitted_line] if self.omitted_line else []
        num_attempts = sum(len(item.successes) for item in self.items)
        if self.missing:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in self.missing.items())
            low, high = (100 * bound for bound in self.bounds)
            lines.append(
                f"{self.name}: {self.num_missing} of {num_attempts} attempts are missing ({reasons}) and count neither way; "
                f"all failed it would be {low:.1f} %, all succeeded {high:.1f} %"
            )
        if self.num_undecidable:
            lines.append(
                f"{self.name}: {self.num_undecidable} of {num_attempts} answers can be read in two ways (their transcripts say how); "
                "they count as failures"
            )
        return tuple(lines)

    @property
    def num_missing(self) -> int:
        return sum(self.missing.values())

    @property
    def bounds(self) -> tuple[float, float]:
        """The success if every missing attempt had failed, and if every one had succeeded."""
        low, high = (_mean([_mean([fill if one is None else one for one in item.successes]) for item in self.items]) for fill in (0.0, 1.0))
        return low, high


class Comparison(Record):
    """Two variants of one evaluation. `score` None where no scenario was scored on both sides."""

    before: str
    after: str
    success: PairedComparison
    score: PairedComparison | None


class EvaluationSummary(Record):
    """What an evaluation found; what goes into a report. `scenarios_hash` tells whether two evaluations used the same scenarios."""

    judge: str
    sampling: str
    group_size: int
    num_scenarios: int
    scenarios_hash: str
    variants: tuple[VariantResult, ...]
    comparisons: tuple[Comparison, ...]

    def variant(self, name: str) -> VariantResult:
        return _named(self.variants, name)

    def comparison(self, before: str, after: str) -> Comparison:
        """Raises SettingError for variants that are not there, or that no scenario was measured of on both sides."""
        for found in self.comparisons:
            if (found.before, found.after) == (before, after):
                return found
        raise SettingError(f"no comparison of {before!r} with {after!r} in this evaluation")

    def has_comparison(self, before: str, after: str) -> bool:
        return any((found.before, found.after) == (before, after) for found in self.comparisons)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation with its trajectories. `groups[variant][i]` are the judged attempts at scenario i."""

    summary: EvaluationSummary
    groups: Mapping[str, list[Group]]


async def evaluate(
    rollout: RolloutFunction | Mapping[str, RolloutFunction],
    scenarios: Sequence[Scenario],
    variants: Mapping[str, Model],
    judge: Judge,
    *,
    group_size: int = 1,
    sampling: str = "greedy",
    max_concurrent: int = 32,
    timeout_seconds: float = 600.0,
    progress: Progress | None = None,
    seed: int | None = None,
) -> Evaluation:
    """Let every variant attempt every scenario `group_size` times and compare the variants, each with every later one.

    Args:
        rollout: the agent; a mapping gives each variant its own (an untrained model may need another prompt).
        variants: name -> model, weakest first (base, warm, trained).
        sampling: a word for the report ("greedy" or "sampled"); how to sample is the rollout's business.
        progress: one phase per variant.
        seed: of the attempts, the same for every variant (see `gather`).

    Variants run one after the other, so that their times can be compared. Raises SettingError for no scenarios or variants, and
    JudgeError (`nothing_measured`) when no attempt of a variant has a known outcome.
    """
    if not scenarios or not variants:
        raise SettingError(f"nothing to evaluate: {len(scenarios)} scenarios, {len(variants)} variants")
    progress = progress or SilentProgress()
    groups: dict[str, list[Group]] = {}
    results = []
    for name, model in variants.items():
        agent = rollout[name] if isinstance(rollout, Mapping) else rollout
        progress.phase(f"evaluate {name}", total=len(scenarios) * group_size, note=sampling)
        started = time.perf_counter()
        # Everything that varies is an argument of this call: no closure that could see a later variant.
        attempted = await gather(
            agent,
            scenarios,
            model=model,
            group_size=group_size,
            max_concurrent=max_concurrent,
            timeout_seconds=timeout_seconds,
            progress=progress,
            seed=seed,
        )
        groups[name] = await judge.score(attempted)
        result = summarise_variant(name, model.name, groups[name], time.perf_counter() - started)
        results.append(result.model_copy(update={"omitted": model.omitted}))
        if results[-1].omitted_line:
            progress.warn(results[-1].omitted_line)
    summary = EvaluationSummary(
        judge=judge.name,
        sampling=sampling,
        group_size=group_size,
        num_scenarios=len(scenarios),
        scenarios_hash=scenarios_hash(scenarios),
        variants=tuple(results),
        comparisons=compare_variants(results),
    )
    return Evaluation(summary, groups)


def summarise_variant(name: str, model: str, groups: Sequence[Group], seconds: float) -> VariantResult:
    """Judged attempts of one variant as numbers. Raises JudgeError when the outcome of none is known."""
    items = tuple(
        ItemResult(
            scenario_id=group.scenario.id,
            successes=tuple(success_of(one) for one in group),
            scores=tuple(None if one.verdict is None or is_lost(one) else one.verdict.score for one in group),
        )
        for group in groups
    )
    attempts = [one for group in groups for one in group]
    missing = Counter(reason for one in attempts if (reason := _why_missing(one)) is not None)
    known = [item.measured for item in items if item.measured]
    if not known:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in missing.most_common())
        first = next((f"; the first: {one.error.message[:300]}" for one in attempts if one.error is not None), "")
        raise JudgeError(
            f"the held-out success of {name!r} was not measured: of {len(attempts)} attempts none has a known outcome ({reasons}){first}",
            hint="mend that and evaluate again; what the run has trained is kept",
            reason="nothing_measured",
        )
    size = min(len(successes) for successes in known)
    is_binary = all(value in (0.0, 1.0) for successes in known for value in successes)
    counts = [(len(successes), int(sum(successes))) for successes in known]
    ks = [k for k in (1, 2, 4, 8, 16) if k <= size] if is_binary else []
    scores = [score for item in items if (score := item.score) is not None]
    return VariantResult(
        name=name,
        model=model,
        items=items,
        success=mean_interval([_mean(successes) for successes in known]),
        score=mean_interval(scores) if scores else None,
        num_failed=sum(one.error is not None for one in attempts),
        pass_at={k: _mean([pass_at_k(n, c, k) for n, c in counts]) for k in ks},
        pass_hat={k: _mean([pass_hat_k(n, c, k) for n, c in counts]) for k in ks},
        noise=noise_floor(known) if size >= 2 else None,
        costs=_costs(groups),
        checks=_checks(attempts),
        seconds=seconds,
        missing=dict(missing.most_common()),
        num_undecidable=sum(_checks_of(one).get("undecidable", 0.0) == 1.0 for one in attempts),
    )


def compare_variants(variants: Sequence[VariantResult]) -> tuple[Comparison, ...]:
    """Each variant with every later one, paired by scenario; pairs of which no scenario was measured on both sides are left out."""
    pairs = ((before, after) for index, before in enumerate(variants) for after in variants[index + 1 :])
    return tuple(found for before, after in pairs if (found := compare_two(before, after)) is not None)


def compare_two(before: VariantResult, after: VariantResult) -> Comparison | None:
    """Paired by scenario id; both must have attempted the same scenarios. None when none of them was measured on both sides."""
    left, right = ({item.scenario_id: item for item in one.items} for one in (before, after))
    if left.keys() != right.keys():
        raise SettingError(f"{before.name} and {after.name} attempted different scenarios: they cannot be paired")
    success = compare_measured([left[name].success for name in left], [right[name].success for name in left])
    score = compare_measured([left[name].score for name in left], [right[name].score for name in left])
    return None if success is None else Comparison(before=before.name, after=after.name, success=success, score=score)


def compare_measured(before: Sequence[float | None], after: Sequence[float | None]) -> PairedComparison | None:
    """As `paired_comparison`; None when no item was measured on both sides."""
    pairs = zip(before, after, strict=True)
    return None if all(None in pair for pair in pairs) else paired_comparison(before, after)


def success_of(trajectory: Trajectory) -> float | None:
    """1 or 0 as the judge says, the score where the judge tells no success; None where the outcome is missing: the judge abstained, or
    the attempt is lost, whatever the judge says of it."""
    verdict = trajectory.verdict
    if is_lost(trajectory):
        return None
    if verdict is not None and verdict.is_success is not None:
        return float(verdict.is_success)
    if trajectory.error is not None:
        return 0.0
    return None if verdict is None else verdict.score


def is_lost(trajectory: Trajectory) -> bool:
    """Whether the attempt failed through no fault of the model's (a server that died, a timeout): it says nothing about the model."""
    return trajectory.error is not None and not trajectory.error.is_of_model


def _why_missing(trajectory: Trajectory) -> str | None:
    """A few words; None where the outcome is known."""
    if success_of(trajectory) is not None:
        return None
    return _JUDGE_ABSTAINED if trajectory.error is None else trajectory.error.type


def scenarios_hash(scenarios: Sequence[Scenario]) -> str:
    """Twelve hex digits over ids and tasks, in order."""
    text = "\n".join(f"{scenario.id}\t{scenario.task}" for scenario in scenarios)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _costs(groups: Sequence[Group]) -> dict[str, float]:
    attempts = [one for group in groups for one in group]
    seconds = sorted(one.seconds for one in attempts)
    events = [event for one in attempts for event in one.tool_events]
    return {
        "turns": _mean([len(one.turns) for one in attempts]),
        "tool_calls": len(events) / len(attempts),
        "sampled_tokens": _mean([one.num_sampled_tokens for one in attempts]),
        "seconds": _mean(seconds),
        "seconds_p50": seconds[(len(seconds) - 1) // 2],
        "seconds_p95": seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))],
        "invalid_calls": _mean([not (event.is_known and event.is_valid) for event in events]) if events else 0.0,
        "truncated": _mean([one.is_truncated for one in attempts]),
        "failed": _mean([one.error is not None for one in attempts]),
        "distinct": _mean([len({_text(one) for one in group}) / len(group) for group in groups]),
    }


def _text(trajectory: Trajectory) -> tuple[str, ...]:
    """All that the model wrote, call ids aside."""
    return tuple(
        f"{turn.reply.content} {[(call.function.name, call.function.arguments) for call in turn.reply.tool_calls]}"
        for turn in trajectory.turns
    )


def _checks(attempts: Sequence[Trajectory]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in attempts:
        for name, value in _checks_of(one).items():
            values.setdefault(name, []).append(value)
    return {name: _mean(found) for name, found in values.items()}


def _checks_of(trajectory: Trajectory) -> Mapping[str, float]:
    return {} if trajectory.verdict is None or is_lost(trajectory) else trajectory.verdict.checks


def _named(variants: Sequence[VariantResult], name: str) -> VariantResult:
    for one in variants:
        if one.name == name:
            return one
    raise SettingError(f"no variant {name!r}", hint=f"there are {', '.join(one.name for one in variants)}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
