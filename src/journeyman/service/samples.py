"""What a training job names (trajectory ids and rewards, or conversations) as train samples. Pure, but for the loading it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError, InputError, SettingError
from journeyman.service.segments import segments
from journeyman.trainer.advantages import compute_advantages
from journeyman.types.samples import TrainSample
from journeyman.types.training import GrpoJob, ScoredGroup, SftExample
from journeyman.types.trajectory import Trajectory, Turn

Load = Callable[[str], Trajectory]


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """Groups of train samples with advantages; groups without spread are left out. `metrics` have no prefix."""

    groups: tuple[tuple[TrainSample, ...], ...]
    metrics: dict[str, float]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Counts:
    """What was seen while the batch was built."""

    rewards: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    num_trajectories: int = 0
    num_excluded: int = 0
    num_truncated: int = 0
    num_without_spread: int = 0
    num_segments: int = 0
    num_altered_turns: int = 0


def policy_batch(job: GrpoJob, load: Load, *, model: str, step: int) -> PolicyBatch:
    """Train samples of a GRPO job.

    A reward of None excludes its trajectory (counted). Advantages are computed within a group over the rewards that are there; all
    segments of a trajectory share its advantage. Trajectories of older versions of the model are used, and counted as stale.

    Args:
        load: trajectory id -> stored trajectory; raises NotFoundError.
        model: the trainable model's name; trajectories of other models are refused (SettingError).
        step: the model's step now.
    """
    counts = _Counts()
    groups = []
    for group in job.groups:
        samples = _group_samples(group, job, load, counts, model=model, step=step)
        if samples:
            groups.append(samples)
    return PolicyBatch(tuple(groups), _metrics(job, counts), _notes(counts))


def supervised_samples(examples: Sequence[SftExample], renderer: Renderer) -> list[TrainSample]:
    """Train samples of conversations: assistant messages are trained, everything else is given.

    Raises ContextLengthError for an example that does not fit, InputError when there is nothing to train; both name the example.
    """
    if not examples:
        raise InputError("there are no examples to train on")
    samples = []
    for number, example in enumerate(examples):
        token_ids, is_trained = renderer.render_example(example.messages, example.tools)
        if len(token_ids) > renderer.context_length:
            raise ContextLengthError(
                f"example {number} has {len(token_ids)} tokens and the model's context is {renderer.context_length}",
                hint="shorten it, or leave it out",
            )
        if not any(is_trained):
            raise InputError(f"example {number} has no assistant message: there is nothing in it to learn")
        samples.append(TrainSample(token_ids, is_trained, (0.0,) * len(token_ids), 1.0, f"example {number}"))
    return samples


def _group_samples(group: ScoredGroup, job: GrpoJob, load: Load, counts: _Counts, *, model: str, step: int) -> tuple[TrainSample, ...]:
    rewards = [scored.reward for scored in group.trajectories]
    valid = [reward for reward in rewards if reward is not None]
    counts.num_trajectories += len(rewards)
    counts.num_excluded += len(rewards) - len(valid)
    counts.rewards += valid
    if len(valid) > 1:
        counts.spreads.append(pstdev(valid))
    trajectories = [load(scored.trajectory_id) for scored in group.trajectories]
    for trajectory in trajectories:
        _inspect(trajectory, counts, model=model, step=step)
    advantages = compute_advantages(rewards, job.settings.advantage, job.settings.min_spread)
    if advantages is None:
        counts.num_without_spread += 1
        return ()
    samples: list[TrainSample] = []
    for trajectory, reward, advantage in zip(trajectories, rewards, advantages, strict=True):
        if reward is not None:
            samples += _trajectory_samples(trajectory, advantage, counts)
    return tuple(samples)


def _trajectory_samples(trajectory: Trajectory, advantage: float, counts: _Counts) -> list[TrainSample]:
    found = segments(trajectory)
    counts.num_segments += len(found)
    return [
        TrainSample(segment.token_ids, segment.is_sampled, segment.logprobs, advantage, trajectory.id)
        for segment in found
        if segment.num_sampled
    ]


def _inspect(trajectory: Trajectory, counts: _Counts, *, model: str, step: int) -> None:
    for turn in trajectory.turns:
        name, _, version = (turn.adapter or "").partition("@")
        if name != model:
            raise SettingError(
                f"trajectory {trajectory.id} was sampled by {turn.adapter or 'the base model'}, not by {model}",
                hint=f"gather with the model that is trained: {model}",
            )
        counts.staleness.append(step - int(version))
        counts.num_altered_turns += _is_altered(turn)
    counts.lengths.append(trajectory.num_sampled_tokens)
    counts.num_truncated += any(turn.finish_reason == "length" for turn in trajectory.turns)


def _is_altered(turn: Turn) -> bool:
    """Whether tokens were drawn from another distribution than the policy's own."""
    parameters = turn.parameters
    return parameters.temperature != 1.0 or parameters.top_p != 1.0 or parameters.top_k != 0


def _metrics(job: GrpoJob, counts: _Counts) -> dict[str, float]:
    num_groups = len(job.groups)
    metrics = {
        "num_groups": float(num_groups),
        "num_groups_without_spread": float(counts.num_without_spread),
        "num_trajectories": float(counts.num_trajectories),
        "num_trajectories_excluded": float(counts.num_excluded),
        "num_segments": float(counts.num_segments),
        "truncated_fraction": counts.num_truncated / max(counts.num_trajectories, 1),
        "staleness": fmean(counts.staleness) if counts.staleness else 0.0,
        "num_turns_off_policy": float(counts.num_altered_turns),
        "sampled_tokens_mean": fmean(counts.lengths) if counts.lengths else 0.0,
    }
    if counts.rewards:
        metrics["reward_mean"] = fmean(counts.rewards)
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
