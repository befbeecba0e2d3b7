"""What a supervised job names (conversations, texts, stored trajectories) as train samples. Not for rewards: see `samples.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError, InputError
from journeyman.service.segments import sampled_segments
from journeyman.types.samples import TrainSample
from journeyman.types.settings import WhenTooLong
from journeyman.types.training import SftExample, StoredExample, TextExample
from journeyman.types.trajectory import Trajectory

Load = Callable[[str], Trajectory]
Example = SftExample | TextExample | StoredExample


def supervised_samples(
    examples: Sequence[Example], renderer: Renderer, load: Load, when_too_long: WhenTooLong = "refuse"
) -> list[TrainSample]:
    """Train samples of examples: what the assistant says is trained, with the token that ends it; everything else is given.

    A stored trajectory gives a sample a segment, of the tokens that were drawn; nothing of it is tokenised again.

    Args:
        load: trajectory id -> stored trajectory; raises NotFoundError.
        when_too_long: "refuse" raises ContextLengthError for an example that does not fit; with "drop" it is left to the trainer,
            which drops and counts it.

    Raises InputError when there is nothing to train. All errors name the example.
    """
    if not examples:
        raise InputError("there are no examples to train on")
    samples: list[TrainSample] = []
    for number, example in enumerate(examples):
        found = _stored_samples(example, load, number) if isinstance(example, StoredExample) else [_rendered(example, renderer, number)]
        longest = max(len(sample.token_ids) for sample in found)
        if longest > renderer.context_length and when_too_long == "refuse":
            raise ContextLengthError(
                f"example {number} has {longest} tokens and the model's context is {renderer.context_length}",
                hint='shorten it, leave it out, or set when_too_long="drop"',
            )
        samples += found
    return samples


def _rendered(example: SftExample | TextExample, renderer: Renderer, number: int) -> TrainSample:
    if isinstance(example, TextExample):
        token_ids, is_trained = renderer.render_text(example.text, example.prompt)
    else:
        token_ids, is_trained = renderer.render_example(example.messages, example.tools, example.num_given)
    if not any(is_trained):
        raise InputError(_nothing_in(example, number))
    return TrainSample(token_ids, is_trained, (0.0,) * len(token_ids), 1.0, f"example {number}")


def _nothing_in(example: SftExample | TextExample, number: int) -> str:
    if isinstance(example, TextExample):
        return f"example {number} has no text: there is nothing in it to learn"
    if any(message.role == "assistant" for message in example.messages):
        return f"example {number} has no assistant message after its {example.num_given} given ones: there is nothing in it to learn"
    return f"example {number} has no assistant message: there is nothing in it to learn"


def _stored_samples(example: StoredExample, load: Load, number: int) -> list[TrainSample]:
    found = sampled_segments(load(example.trajectory_id))
    if not found:
        raise InputError(f"example {number}, trajectory {example.trajectory_id}, has no sampled token: there is nothing in it to learn")
    return found
