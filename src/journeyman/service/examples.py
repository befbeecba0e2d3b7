"""What a supervised job names (conversations, texts, stored trajectories) as train samples. Not for rewards: see `samples.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError, InputError, NotFoundError
from journeyman.service.segments import sampled_segments
from journeyman.trainer.base import TrainSample
from journeyman.types.settings import WhenTooLong
from journeyman.types.training import SftExample, StoredExample, TextExample
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
        raise InputError("there are no examples to train on")
    return [
        sample
        for number, example in enumerate(examples)
        for sample in example_samples(example, f"example {number}", renderer, load, when_too_long)
    ]


def example_samples(
    example: Example, name: str, renderer: Renderer, load: Load = no_store, when_too_long: WhenTooLong = "refuse"
) -> list[TrainSample]:
    """One example as train samples; `name` says in messages which it is. Arguments and errors as `supervised_samples`."""
    found = _stored_samples(example, renderer, load, name) if isinstance(example, StoredExample) else [_rendered(example, renderer, name)]
    longest = max(len(sample.token_ids) for sample in found)
    if longest > renderer.context_length and when_too_long == "refuse":
        raise too_long(name, longest, renderer.context_length)
    return found


def too_long(name: str, num_tokens: int, context_length: int) -> ContextLengthError:
    """The error of an example or a pair that does not fit."""
    return ContextLengthError(
        f"{name} has {num_tokens} tokens and the model's context is {context_length}",
        hint='shorten it, leave it out, or set when_too_long="drop"',
    )


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Refusals of the renderer say which example they are about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint, reason=error.reason) from error


def _rendered(example: SftExample | TextExample, renderer: Renderer, name: str) -> TrainSample:
    with naming(name):
        if isinstance(example, TextExample):
            token_ids, is_trained = renderer.render_text(example.text, example.prompt)
        else:
            token_ids, is_trained = renderer.render_example(example.messages, example.tools, example.num_given)
    if not any(is_trained):
        raise InputError(_nothing_in(example, name))
    return TrainSample(token_ids, is_trained, (0.0,) * len(token_ids), 1.0, name)


def _nothing_in(example: SftExample | TextExample, name: str) -> str:
    if isinstance(example, TextExample):
        return f"{name} has no text: there is nothing in it to learn"
    if any(message.role == "assistant" for message in example.messages):
        return f"{name} has no assistant message after its {example.num_given} given ones: there is nothing in it to learn"
    return f"{name} has no assistant message: there is nothing in it to learn"


def _stored_samples(example: StoredExample, renderer: Renderer, load: Load, name: str) -> list[TrainSample]:
    trajectory = load(example.trajectory_id)
    found = sampled_segments(trajectory)
    if not found:
        raise InputError(f"{name}, trajectory {trajectory.id}, has no sampled token: there is nothing in it to learn")
    for turn in trajectory.turns:
        # A reply that a stop string ended has no stop token, and whoever asked for the string wanted it so.
        if turn.finish_reason != "stop" or not (turn.parameters.stop or turn.sampled_ids[-1:] in _ends(renderer)):
            how = "was cut off at the token limit" if turn.finish_reason == "length" else "does not end with a stop token"
            raise InputError(
                f"{name}, trajectory {trajectory.id}: its reply {turn.index} (from 0) {how}, and imitating it would teach not to stop",
                hint="leave it out, as best_trajectories does; more max_tokens let replies end",
            )
    return found


def _ends(renderer: Renderer) -> set[tuple[int, ...]]:
    return {(token,) for token in renderer.stop_token_ids}
