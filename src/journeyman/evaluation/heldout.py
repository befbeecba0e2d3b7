"""Held-out evaluation: the same scenarios, attempted by each variant of a model, judged alike and compared pair by pair.

Not for training scenarios, and not for choosing a checkpoint: look once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from journeyman.client.gather import RolloutFunction, gather
from journeyman.client.models import Model
from journeyman.errors import SettingError
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


class ItemResult(Record):
    """One scenario's attempts by one variant. `successes` are 0/1 (the score itself where the judge tells no success; an attempt that
    failed for any reason counts 0: a user would not have got an answer). `scores` None = the judge abstained."""

    scenario_id: str
    successes: tuple[float, ...]
    scores: tuple[float | None, ...]

    @property
    def success(self) -> float:
        return sum(self.successes) / len(self.successes)

    @property
    def score(self) -> float | None:
        scored = [score for score in self.scores if score is not None]
        return sum(scored) / len(scored) if scored else None


class VariantResult(Record):
    """One variant over all scenarios.

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
        for found in self.comparisons:
            if (found.before, found.after) == (before, after):
                return found
        raise SettingError(f"no comparison of {before!r} with {after!r} in this evaluation")


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

    Variants run one after the other, so that their times can be compared. Raises SettingError for no scenarios or variants.
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
        results.append(summarise_variant(name, model.name, groups[name], time.perf_counter() - started))
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
    """Judged attempts of one variant as numbers."""
    items = tuple(
        ItemResult(
            scenario_id=group.scenario.id,
            successes=tuple(success_of(one) for one in group),
            scores=tuple(one.verdict.score if one.verdict else None for one in group),
        )
        for group in groups
    )
    attempts = [one for group in groups for one in group]
    size = min(len(item.successes) for item in items)
    is_binary = all(value in (0.0, 1.0) for item in items for value in item.successes)
    counts = [(len(item.successes), int(sum(item.successes))) for item in items]
    ks = [k for k in (1, 2, 4, 8, 16) if k <= size] if is_binary else []
    scores = [score for item in items if (score := item.score) is not None]
    return VariantResult(
        name=name,
        model=model,
        items=items,
        success=mean_interval([item.success for item in items]),
        score=mean_interval(scores) if scores else None,
        num_failed=sum(one.error is not None for one in attempts),
        pass_at={k: _mean([pass_at_k(n, c, k) for n, c in counts]) for k in ks},
        pass_hat={k: _mean([pass_hat_k(n, c, k) for n, c in counts]) for k in ks},
        noise=noise_floor([item.successes for item in items]) if size >= 2 else None,
        costs=_costs(groups),
        checks=_checks(attempts),
        seconds=seconds,
    )


def compare_variants(variants: Sequence[VariantResult]) -> tuple[Comparison, ...]:
    """Each variant with every later one, paired by scenario."""
    return tuple(compare_two(before, after) for index, before in enumerate(variants) for after in variants[index + 1 :])


def compare_two(before: VariantResult, after: VariantResult) -> Comparison:
    """Paired by scenario id; both must have attempted the same scenarios."""
    left, right = ({item.scenario_id: item for item in one.items} for one in (before, after))
    if left.keys() != right.keys():
        raise SettingError(f"{before.name} and {after.name} attempted different scenarios: they cannot be paired")
    scored = [(one, other) for name in left if (one := left[name].score) is not None and (other := right[name].score) is not None]
    return Comparison(
        before=before.name,
        after=after.name,
        success=paired_comparison([left[name].success for name in left], [right[name].success for name in left]),
        score=paired_comparison([one for one, _ in scored], [other for _, other in scored]) if scored else None,
    )


def success_of(trajectory: Trajectory) -> float:
    """1 or 0 as the judge says; 0 for a failed or unjudged attempt; the score where the judge tells no success."""
    verdict = trajectory.verdict
    if trajectory.error is not None or verdict is None or verdict.score is None:
        return 0.0 if verdict is None or not verdict.is_success else 1.0
    return verdict.score if verdict.is_success is None else float(verdict.is_success)


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
        for name, value in (one.verdict.checks if one.verdict else {}).items():
            values.setdefault(name, []).append(value)
    return {name: _mean(found) for name, found in values.items()}


def _named(variants: Sequence[VariantResult], name: str) -> VariantResult:
    for one in variants:
        if one.name == name:
            return one
    raise SettingError(f"no variant {name!r}", hint=f"there are {', '.join(one.name for one in variants)}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
