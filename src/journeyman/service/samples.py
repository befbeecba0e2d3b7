"""What a GRPO job names (trajectory ids and rewards) as train samples. Pure, but for the loading it is given; see also `examples.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from journeyman.errors import InputError, SettingError
from journeyman.service.turns import sampled_segments, segments
from journeyman.shaping import overlong_penalties, penalised
from journeyman.trainer.advantages import BatchAdvantages, batch_advantages
from journeyman.trainer.base import TrainSample
from journeyman.types.names import Version
from journeyman.types.runs import MAX_REWARD, NOT_FINITE
from journeyman.types.settings import MAX_SKIPPED_IN_A_ROW, Grpo
from journeyman.types.training import GrpoJob, ScoredTrajectory
from journeyman.types.trajectory import Trajectory, Turn

Load = Callable[[str], Trajectory]


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """Groups of train samples with advantages; groups without spread are left out. `metrics` have no prefix."""

    groups: tuple[tuple[TrainSample, ...], ...]
    metrics: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """The model that is trained: its run, its name, its step now, and the fingerprint of each of its versions, by step."""

    run: str
    model: str
    step: int
    fingerprints: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Counts:
    """What was seen while the batch was built."""

    rewards: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    num_trajectories: int = 0
    penalties: list[float] = field(default_factory=list)
    num_excluded: int = 0
    num_truncated: int = 0
    num_masked: int = 0
    num_segments: int = 0
    num_altered_turns: int = 0


def policy_batch(job: GrpoJob, load: Load, policy: Policy) -> PolicyBatch:
    """Train samples of a GRPO job.

    A reward of None (or one that is no finite number) excludes its trajectory (counted). The overlong penalty is added first.
    Advantages are computed within a group over the rewards that are there; all segments of a trajectory share its advantage and its
    id. Trajectories of older versions of the model are used, and counted as stale.

    Args:
        load: trajectory id -> stored trajectory; raises NotFoundError.
        policy: what is trained; trajectories of other models, of other runs and of versions that were undone are refused (SettingError).
    """
    _refuse_twice(job)
    settings, counts = job.settings, _Counts()
    loaded: list[list[Trajectory]] = []
    rewards: list[list[float | None]] = []
    for group in job.groups:
        trajectories = [load(scored.trajectory_id) for scored in group.trajectories]
        for trajectory in trajectories:
            _check_policy(trajectory, policy)
            _inspect(trajectory, counts, policy.step)
        loaded.append(trajectories)
        own = [_sound_reward(scored) for scored in group.trajectories]
        rewards.append(_shaped(own, trajectories, settings, counts))
    advantages = batch_advantages(rewards, settings.advantage, min_spread=settings.min_spread, tie_width=settings.tie_width)
    groups = []
    for trajectories, own_rewards, own_advantages in zip(loaded, rewards, advantages.groups, strict=True):
        samples: list[TrainSample] = []
        for trajectory, reward, advantage in zip(trajectories, own_rewards, own_advantages or (), strict=own_advantages is not None):
            if reward is not None:
                samples += _trajectory_samples(trajectory, advantage, settings, counts)
        if samples:
            groups.append(tuple(samples))
    return PolicyBatch(tuple(groups), _metrics(job, counts, advantages), _notes(counts))


def step_notes(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """What the trainer left out in a step, in words; `metrics` with the `train/` prefix."""
    notes = []
    skipped, in_a_row = metrics.get("train/num_updates_skipped", 0.0), metrics.get("train/num_skipped_in_a_row", 0.0)
    if in_a_row:
        notes.append(
            f"the gradient was not finite: the step was skipped ({in_a_row:.0f} in a row; training stops at {MAX_SKIPPED_IN_A_ROW}); "
            "the log names what it was computed from; lower the learning rate"
        )
    elif skipped:
        notes.append(f"{skipped:.0f} updates were skipped: their gradient was not finite")
    if (num_not_finite := metrics.get(f"train/{NOT_FINITE}", 0.0)) and not in_a_row:
        notes.append(f"{num_not_finite:.0f} metrics of this step were not finite and are left out")
    dropped = {name: metrics.get(f"train/num_{name}_too_long", 0.0) for name in ("trajectories", "examples", "pairs")}
    notes += [f"{count:.0f} {name} were longer than the model's context and were dropped" for name, count in dropped.items() if count]
    return tuple(notes)


def _refuse_twice(job: GrpoJob) -> None:
    seen: set[str] = set()
    for group in job.groups:
        for scored in group.trajectories:
            if scored.trajectory_id in seen:
                raise InputError(
                    f"trajectory {scored.trajectory_id} is in this job twice",
                    hint="a trajectory counts once: give each group its own",
                    reason="trajectory_twice",
                )
            seen.add(scored.trajectory_id)


def _sound_reward(scored: ScoredTrajectory) -> float | None:
    """Its reward, which float32 must be able to hold the square of: advantages and gradients are made from it."""
    if scored.reward is not None and math.isfinite(scored.reward) and abs(scored.reward) > MAX_REWARD:
        raise InputError(
            f"trajectory {scored.trajectory_id} has the reward {scored.reward:g}, beyond {MAX_REWARD:g}",
            hint="rewards are compared within a group, so any scale teaches the same: bring them near 1",
            reason="reward_too_large",
        )
    return scored.reward


def _shaped(rewards: Sequence[float | None], trajectories: Sequence[Trajectory], settings: Grpo, counts: _Counts) -> list[float | None]:
    """The rewards of a group with the overlong penalty; None where there is none that counts."""
    valid = [reward for reward in rewards if reward is not None and math.isfinite(reward)]
    counts.num_trajectories += len(rewards)
    counts.num_excluded += len(rewards) - len(valid)
    counts.rewards += valid
    if len(valid) > 1:
        counts.spreads.append(pstdev(valid))
    penalties = overlong_penalties(trajectories, settings.overlong)
    counts.penalties += penalties
    return penalised(rewards, penalties)


def _trajectory_samples(trajectory: Trajectory, advantage: float, settings: Grpo, counts: _Counts) -> list[TrainSample]:
    counts.num_segments += len(segments(trajectory))
    if settings.mask_truncated and trajectory.is_truncated:
        counts.num_masked += 1
        return []
    return sampled_segments(trajectory, advantage)


def _check_policy(trajectory: Trajectory, policy: Policy) -> None:
    """Raises SettingError unless every reply was drawn by a version of the policy: names come again, runs and weights do not."""
    for turn in trajectory.turns:
        version = Version.parse(turn.adapter)
        if version is None or version.model != policy.model:
            raise SettingError(
                f"trajectory {trajectory.id} was sampled by {turn.adapter or 'the base model'}, not by {policy.model}",
                hint=f"gather with the model that is trained: {policy.model}",
                reason="other_model",
            )
        if trajectory.run != policy.run:
            raise SettingError(
                f"trajectory {trajectory.id} was sampled by {turn.adapter} of run {trajectory.run!r}, not of run {policy.run!r}",
                hint=f"gather with the model of run {policy.run!r}; what others made can be imitated (train_sft) or compared (train_dpo)",
                reason="other_run",
            )
        known = policy.fingerprints.get(version.step)
        if version.step > policy.step or (turn.fingerprint is not None and known not in (None, turn.fingerprint)):
            raise SettingError(
                f"trajectory {trajectory.id} was sampled by a {turn.adapter} that was undone: the run went back before step {version.step}",
                hint="gather again with the version that is there now",
                reason="undone_version",
            )


def _inspect(trajectory: Trajectory, counts: _Counts, step: int) -> None:
    for turn in trajectory.turns:
        if (version := Version.parse(turn.adapter)) is not None:
            counts.staleness.append(step - version.step)
        counts.num_altered_turns += _is_altered(turn)
    counts.lengths.append(trajectory.num_sampled_tokens)
    counts.num_truncated += trajectory.is_truncated


def _is_altered(turn: Turn) -> bool:
    """Whether tokens were drawn from another distribution than the policy's own."""
    parameters = turn.parameters
    return parameters.temperature != 1.0 or parameters.top_p != 1.0 or parameters.top_k != 0


def _metrics(job: GrpoJob, counts: _Counts, advantages: BatchAdvantages) -> dict[str, float]:
    num_groups = len(job.groups)
    metrics = {
        "num_groups": float(num_groups),
        "num_groups_without_spread": float(advantages.num_without_spread),
        "groups_without_spread_fraction": advantages.num_without_spread / max(num_groups, 1),
        "tied_fraction": advantages.num_tied / max(advantages.num_rewards, 1),
        "num_trajectories": float(counts.num_trajectories),
        "num_trajectories_excluded": float(counts.num_excluded),
        "num_segments": float(counts.num_segments),
        "num_trajectories_masked": float(counts.num_masked),
        "truncated_fraction": counts.num_truncated / max(counts.num_trajectories, 1),
        "staleness": fmean(counts.staleness) if counts.staleness else 0.0,
        "staleness_0": float(sum(steps <= 0 for steps in counts.staleness)),
        "staleness_1": float(sum(steps == 1 for steps in counts.staleness)),
        "staleness_2_or_more": float(sum(steps >= 2 for steps in counts.staleness)),
        "num_turns_off_policy": float(counts.num_altered_turns),
        "sampled_tokens_mean": fmean(counts.lengths) if counts.lengths else 0.0,
    }
    if counts.rewards:
        metrics["reward_mean"] = fmean(counts.rewards)
    if counts.penalties:
        metrics["overlong_penalty_mean"] = fmean(counts.penalties)
    if counts.spreads:
        metrics["reward_spread"] = fmean(counts.spreads)
    return metrics


def _notes(counts: _Counts) -> tuple[str, ...]:
    notes = []
    if counts.num_altered_turns:
        notes.append(
            f"{counts.num_altered_turns} turns were sampled with a temperature other than 1, top_p or top_k: they are trained as "
            "if drawn from the model's own distribution; leave those settings alone in rollouts that are trained on"
        )
    if counts.num_excluded:
        notes.append(f"{counts.num_excluded} of {counts.num_trajectories} trajectories have no reward and were left out")
    return tuple(notes)
