"""What jobs name (conversations, texts, stored trajectories, pairs of two of each) as train samples.

Not for rewards (`samples.py`), nor for what a pair costs (`trainer/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError, InputError, NotFoundError
from journeyman.service.turns import sampled_segments
from journeyman.store.rollouts import RolloutRow
from journeyman.store.store import Store
from journeyman.trainer.base import SamplePair, TrainSample
from journeyman.types.settings import Dpo, WhenTooLong
from journeyman.types.training import (
    DpoJob,
    PairLossJob,
    PreferencePair,
    SftExample,
    StoredExample,
    StoredPair,
    TextExample,
    TextPair,
)
from journeyman.types.trajectory import Trajectory

Load = Callable[[str], Trajectory]
Example = SftExample | TextExample | StoredExample


def no_store(trajectory_id: str) -> Trajectory:
    """For examples that name no trajectory."""
    raise NotFoundError(f"there is no store to find trajectory {trajectory_id!r} in")


def supervised_samples(
    examples: Sequence[Example], renderer: Renderer, load: Load, when_too_long: WhenTooLong = "refuse"
) -> list[TrainSample]:
    """Train samples of examples: what the assistant says is trained, with the token that ends it; everything else is given.

    A stored trajectory gives a sample a segment, of the tokens that were drawn; nothing of it is tokenised again. Its replies must have
    ended by themselves.

    Args:
        load: trajectory id -> stored trajectory; raises NotFoundError.
        when_too_long: "refuse" raises ContextLengthError for an example that does not fit; with "drop" it is left to the trainer,
            which drops and counts it.

    Raises InputError when there is nothing to train. All errors name the example.
    """
    if not examples:
        raise InputError("there are no examples to train on", reason="nothing_to_train")
    return [
        sample
        for number, example in enumerate(examples)
        for sample in example_samples(example, f"example {number}", renderer, load, when_too_long)
    ]


def example_samples(
    example: Example, name: str, renderer: Renderer, load: Load = no_store, when_too_long: WhenTooLong = "refuse"
) -> list[TrainSample]:
    """One example as train samples; `name` says in messages which it is. Arguments and errors as `supervised_samples`."""
    samples = _stored_samples(example, renderer, load, name) if isinstance(example, StoredExample) else [_rendered(example, renderer, name)]
    longest = max(len(sample.token_ids) for sample in samples)
    if longest > renderer.context_length and when_too_long == "refuse":
        raise _too_long(name, longest, renderer.context_length)
    return samples


def _too_long(name: str, num_tokens: int, context_length: int) -> ContextLengthError:
    """The error of an example or a pair that does not fit."""
    return ContextLengthError(
        f"{name} has {num_tokens} tokens and the model's context is {context_length}",
        hint='shorten it, leave it out, or set when_too_long="drop"',
        reason="too_long",
    )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Refusals of the renderer say which example they are about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint, reason=error.reason) from error


def _rendered(example: SftExample | TextExample, renderer: Renderer, name: str) -> TrainSample:
    with _naming(name):
        if isinstance(example, TextExample):
            token_ids, is_trained = renderer.render_text(example.text, example.prompt)
        else:
            token_ids, is_trained = renderer.render_example(example.messages, example.tools, example.num_given)
    if not any(is_trained):
        raise InputError(_nothing_in(example, name), reason="nothing_to_train")
    return _sample(token_ids, is_trained, name)


def _sample(token_ids: tuple[int, ...], is_trained: tuple[bool, ...], name: str) -> TrainSample:
    """Text of others: nobody drew it, so its tokens have no log-probabilities."""
    return TrainSample(token_ids, is_trained, (0.0,) * len(token_ids), 1.0, name)


def _nothing_in(example: SftExample | TextExample, name: str) -> str:
    if isinstance(example, TextExample):
        return f"{name} has no text: there is nothing in it to learn"
    if any(message.role == "assistant" for message in example.messages):
        return f"{name} has no assistant message after its {example.num_given} given ones: there is nothing in it to learn"
    return f"{name} has no assistant message: there is nothing in it to learn"


def _stored_samples(example: StoredExample, renderer: Renderer, load: Load, name: str) -> list[TrainSample]:
    trajectory = load(example.trajectory_id)
    samples = sampled_segments(trajectory)
    if not samples:
        raise InputError(
            f"{name}, trajectory {trajectory.id}, has no sampled token: there is nothing in it to learn", reason="nothing_to_train"
        )
    for turn in trajectory.turns:
        # A reply that a stop string ended has no stop token, and whoever asked for the string wanted it so.
        if turn.finish_reason != "stop" or not (turn.parameters.stop or turn.sampled_ids[-1:] in _ends(renderer)):
            how = "was cut off at the token limit" if turn.finish_reason == "length" else "does not end with a stop token"
            raise InputError(
                f"{name}, trajectory {trajectory.id}: its reply {turn.index} (from 0) {how}, and imitating it would teach not to stop",
                hint="leave it out, as best_trajectories does; more max_tokens let replies end",
                reason="reply_cut_off",
            )
    return samples


def _ends(renderer: Renderer) -> set[tuple[int, ...]]:
    return {(token,) for token in renderer.stop_token_ids}


# Pairs ----------------------------------------------------------------------------------------------------------------


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
        raise InputError("there are no pairs to train on", reason="nothing_to_train")
    pairs = [pair_of_samples(pair, f"pair {number}", renderer, load) for number, pair in enumerate(job.pairs)]
    equal = [pair.name for pair in pairs if has_equal_sides(pair)]
    if equal and job.settings.when_equal == "refuse":
        raise _equal(equal[0], f" ({len(equal)} such pairs)" if len(equal) > 1 else "")
    kept = tuple(pair for pair in pairs if pair.name not in equal)
    if not kept:
        raise InputError(f"no pair to train on: in all {len(pairs)} the chosen tokens equal the rejected ones", reason="equal_sides")
    notes = (f"{len(equal)} pairs were dropped: their chosen tokens equal the rejected ones",) if equal else ()
    return PreferenceBatch(kept, {"num_pairs": float(len(kept)), "num_pairs_equal": float(len(equal))}, notes)


def check_pair(pair: PreferencePair | TextPair, name: str, renderer: Renderer, settings: Dpo) -> None:
    """Raise InputError for a pair that a job with these settings would refuse; `name` says in messages which it is."""
    samples_pair = pair_of_samples(pair, name, renderer)
    longest = max(len(sample.token_ids) for sample in samples_pair.samples)
    if longest > renderer.context_length and settings.when_too_long == "refuse":
        raise _too_long(name, longest, renderer.context_length)
    if has_equal_sides(samples_pair) and settings.when_equal == "refuse":
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
                reason="other_scenario",
            )
        sides = [_stored_side(trajectory, name, side) for trajectory, side in ((chosen, "chosen"), (rejected, "rejected"))]
        return SamplePair(sides[0], sides[1], f"{name} ({chosen.id} over {rejected.id})")
    for side in ("chosen", "rejected"):
        if pair.prompt and isinstance(pair, PreferencePair) and getattr(pair, side)[: len(pair.prompt)] == pair.prompt:
            raise InputError(
                f"{name}: its {side} side begins with the whole prompt, which would be there twice",
                hint="chosen and rejected hold what comes after the prompt",
                reason="prompt_repeated",
            )
    return SamplePair(_rendered_side(pair, "chosen", name, renderer), _rendered_side(pair, "rejected", name, renderer), name)


def _stored_side(trajectory: Trajectory, name: str, side: str) -> tuple[TrainSample, ...]:
    samples = tuple(sampled_segments(trajectory))
    if not samples:
        raise InputError(
            f"{name}: its {side} trajectory {trajectory.id} has no sampled token, so there is nothing to compare", reason="nothing_to_train"
        )
    return samples


def _rendered_side(pair: PreferencePair | TextPair, side: str, name: str, renderer: Renderer) -> tuple[TrainSample, ...]:
    with _naming(f"{name}, {side}"):
        if isinstance(pair, TextPair):
            token_ids, is_trained = renderer.render_text(getattr(pair, side), pair.prompt)
            missing = "text"
        else:
            token_ids, is_trained = renderer.render_example((*pair.prompt, *getattr(pair, side)), pair.tools, len(pair.prompt))
            missing = "assistant message"
    if not any(is_trained):
        raise InputError(f"{name} has no {missing} in its {side} side, so there is nothing to compare", reason="nothing_to_train")
    return (_sample(token_ids, is_trained, f"{name}, {side}"),)


def _equal(name: str, more: str = "") -> InputError:
    hint = 'leave it out, or set when_equal="drop"'
    return InputError(f"the chosen tokens of {name} equal its rejected ones{more}", hint=hint, reason="equal_sides")


def _tokens(samples: tuple[TrainSample, ...]) -> list[tuple[int, ...]]:
    return [sample.token_ids for sample in samples]


# Stored trajectories --------------------------------------------------------------------------------------------------


def readable_trajectories(store: Store, base: str, tokenizer: str) -> Callable[[str], Trajectory]:
    """Loads a trajectory by its id; raises InputError for one of another tokenizer, NotFoundError for an unknown one.

    Args:
        base, tokenizer: name of the base model that is trained, and fingerprint of its vocabulary.
    """

    def load(trajectory_id: str) -> Trajectory:
        row = store.rollouts.get(trajectory_id)
        if not _is_readable(store, row, base, tokenizer):
            origin = "the base model of an earlier server" if row.run is None else f"{row.model} of run {row.run!r}"
            raise InputError(
                f"trajectory {trajectory_id} was sampled by {origin} with another tokenizer than {base} has: its token ids stand for "
                "other text here",
                hint=f"sample it again with a model on {base}; or give its messages, as examples or pairs: they are rendered anew",
                reason="other_tokenizer",
            )
        return store.rollouts.trajectory(trajectory_id)

    return load


def _is_readable(store: Store, row: RolloutRow, base: str, tokenizer: str) -> bool:
    """Rollouts of earlier versions have no fingerprint of their own: then the run's counts, and without one the name of its base."""
    if row.tokenizer is not None or row.run is None:
        return row.tokenizer in (None, tokenizer)
    run = next((info for info in store.runs.list() if info.id == row.run), None)
    if run is None:
        return True
    return run.base == base if run.tokenizer is None else run.tokenizer == tokenizer
