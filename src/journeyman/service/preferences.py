"""What a DPO job names (conversations, texts, stored trajectories, two of each) as pairs of train samples. Not for what pairs cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from journeyman.chat.renderer import Renderer
from journeyman.errors import InputError
from journeyman.service.examples import naming, no_store, too_long
from journeyman.service.segments import sampled_segments
from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.types.settings import Dpo
from journeyman.types.training import DpoJob, PairLossJob, PreferencePair, StoredPair, TextPair
from journeyman.types.trajectory import Trajectory

Load = Callable[[str], Trajectory]


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """Pairs of train samples. `metrics` have no prefix."""

    pairs: tuple[SamplePair, ...]
    metrics: dict[str, float]
    notes: tuple[str, ...]


def preference_batch(job: DpoJob | PairLossJob, renderer: Renderer, load: Load) -> PreferenceBatch:
    """The pairs of a job, each named by its number, from 0.

    Stored trajectories give a sample a segment, of the tokens that were drawn; nothing of them is tokenised again. Pairs that are too
    long are left to the trainer, which refuses them, or drops and counts them.

    Args:
        load: trajectory id -> stored trajectory; raises NotFoundError.

    Raises InputError, which names the pair, when a side has nothing to learn from, when two trajectories are of different scenarios,
    and when both sides are equal (with `when_equal="drop"` such pairs are left out and counted).
    """
    if not job.pairs:
        raise InputError("there are no pairs to train on")
    pairs = [pair_of_samples(pair, f"pair {number}", renderer, load) for number, pair in enumerate(job.pairs)]
    equal = [pair.name for pair in pairs if has_equal_sides(pair)]
    if equal and job.settings.when_equal == "refuse":
        raise _equal(equal[0], f" ({len(equal)} such pairs)" if len(equal) > 1 else "")
    kept = tuple(pair for pair in pairs if pair.name not in equal)
    if not kept:
        raise InputError(f"no pair to train on: in all {len(pairs)} the chosen tokens equal the rejected ones")
    notes = (f"{len(equal)} pairs were dropped: their chosen tokens equal the rejected ones",) if equal else ()
    return PreferenceBatch(kept, {"num_pairs": float(len(kept)), "num_pairs_equal": float(len(equal))}, notes)


def check_pair(pair: PreferencePair | TextPair, name: str, renderer: Renderer, settings: Dpo) -> None:
    """Raise InputError for a pair that a job with these settings would refuse; `name` says in messages which it is."""
    found = pair_of_samples(pair, name, renderer)
    longest = max(len(sample.token_ids) for sample in found.samples)
    if longest > renderer.context_length and settings.when_too_long == "refuse":
        raise too_long(name, longest, renderer.context_length)
    if has_equal_sides(found) and settings.when_equal == "refuse":
        raise _equal(name)


def has_equal_sides(pair: SamplePair) -> bool:
    """Whether the chosen tokens are the rejected ones."""
    return _tokens(pair.chosen) == _tokens(pair.rejected)


def pair_of_samples(pair: PreferencePair | TextPair | StoredPair, name: str, renderer: Renderer, load: Load = no_store) -> SamplePair:
    """One pair; `name` says in messages which it is. Arguments and errors as `preference_batch`."""
    if isinstance(pair, StoredPair):
        chosen, rejected = load(pair.chosen), load(pair.rejected)
        if chosen.scenario_id != rejected.scenario_id:
            raise InputError(
                f"{name} compares trajectories of two scenarios, {chosen.scenario_id!r} and {rejected.scenario_id!r}",
                hint="a pair is two attempts at the same task",
            )
        sides = [_stored(trajectory, name, side) for trajectory, side in ((chosen, "chosen"), (rejected, "rejected"))]
        return SamplePair(sides[0], sides[1], f"{name} ({chosen.id} over {rejected.id})")
    for side in ("chosen", "rejected"):
        if pair.prompt and isinstance(pair, PreferencePair) and getattr(pair, side)[: len(pair.prompt)] == pair.prompt:
            raise InputError(
                f"{name}: its {side} side begins with the whole prompt, which would be there twice",
                hint="chosen and rejected hold what comes after the prompt",
                reason="prompt_repeated",
            )
    return SamplePair(_rendered(pair, "chosen", name, renderer), _rendered(pair, "rejected", name, renderer), name)


def _stored(trajectory: Trajectory, name: str, side: str) -> tuple[TrainSample, ...]:
    found = tuple(sampled_segments(trajectory))
    if not found:
        raise InputError(f"{name}: its {side} trajectory {trajectory.id} has no sampled token, so there is nothing to compare")
    return found


def _rendered(pair: PreferencePair | TextPair, side: str, name: str, renderer: Renderer) -> tuple[TrainSample, ...]:
    with naming(f"{name}, {side}"):
        if isinstance(pair, TextPair):
            token_ids, is_trained = renderer.render_text(getattr(pair, side), pair.prompt)
            missing = "text"
        else:
            token_ids, is_trained = renderer.render_example((*pair.prompt, *getattr(pair, side)), pair.tools, len(pair.prompt))
            missing = "assistant message"
    if not any(is_trained):
        raise InputError(f"{name} has no {missing} in its {side} side, so there is nothing to compare")
    return (TrainSample(token_ids, is_trained, (0.0,) * len(token_ids), 1.0, f"{name}, {side}"),)


def _equal(name: str, more: str = "") -> InputError:
    hint = 'leave it out, or set when_equal="drop"'
    return InputError(f"the chosen tokens of {name} equal its rejected ones{more}", hint=hint)


def _tokens(samples: tuple[TrainSample, ...]) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in samples]
