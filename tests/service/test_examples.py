"""Examples of every kind become train samples with exact masks; what cannot be learned from is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.reasons import has_reason

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError, InputError, NotFoundError, SettingError
from journeyman.service.examples import Example, supervised_samples
from journeyman.trainer.base import TrainSample
from journeyman.types.messages import Message
from journeyman.types.sampling import SamplingParameters
from journeyman.types.training import SftExample, SftJob, StoredExample, TextExample
from journeyman.types.trajectory import Trajectory, Turn

END = 2  # <|im_end|> of the tiny tokenizer
HI, HELLO = Message(role="user", content="hi"), Message(role="assistant", content="hello")


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer: Any) -> Renderer:
    return Renderer(tiny_tokenizer, 512)


def stored(trajectory_id: str) -> Trajectory:
    """Two turns; the second does not go on from the first, so there are two segments."""
    if trajectory_id == "gone":
        raise NotFoundError("there is no trajectory 'gone'")
    turns = [turn(0, (11, 12), (13, END)), turn(1, (21, 22), (END,))]
    odd = {
        "silent": [],
        "cut": [turns[0], turn(1, (21, 22), (23,), finish_reason="length")],
        "endless": [turn(0, (21, 22), (23,))],
        "cancelled": [turn(0, (21, 22), (23,), finish_reason="cancelled")],
        "by string": [turn(0, (21, 22), (23,), parameters=SamplingParameters(stop=("x",)))],
    }
    return Trajectory(id=trajectory_id, scenario_id="s", model="m", turns=tuple(odd.get(trajectory_id, turns)))


def turn(index: int, prompt_ids: tuple[int, ...], sampled_ids: tuple[int, ...], **others: Any) -> Turn:
    return Turn(
        index=index,
        adapter="m@0",
        messages=(HI,),
        reply=HELLO,
        prompt_ids=prompt_ids,
        sampled_ids=sampled_ids,
        sampled_logprobs=(-1.0,) * len(sampled_ids),
        **{"finish_reason": "stop", "parameters": SamplingParameters(), "started_at": 0.0, "seconds": 0.0, **others},
    )


def samples(renderer: Renderer, *examples: Example, **settings: Any) -> list[TrainSample]:
    return supervised_samples(examples, renderer, stored, **settings)


def trained(renderer: Renderer, sample: TrainSample) -> str:
    return renderer.decode([token for token, is_trained in zip(sample.token_ids, sample.is_sampled, strict=True) if is_trained])


def test_a_conversation_trains_its_replies_with_their_end_token(renderer: Renderer) -> None:
    (sample,) = samples(renderer, SftExample(messages=(HI, HELLO, HI, HELLO)))
    assert trained(renderer, sample) == "hello<|im_end|>hello<|im_end|>"


def test_given_messages_are_context_only_and_change_no_token(renderer: Renderer) -> None:
    (whole,) = samples(renderer, SftExample(messages=(HI, HELLO, HI, HELLO)))
    (part,) = samples(renderer, SftExample(messages=(HI, HELLO, HI, HELLO), num_given=2))
    assert part.token_ids == whole.token_ids
    assert trained(renderer, part) == "hello<|im_end|>"


def test_a_text_is_trained_with_the_end_token_and_its_prompt_is_given(renderer: Renderer) -> None:
    (sample,) = samples(renderer, TextExample(text=" four", prompt="Two and two is"))
    assert renderer.decode(sample.token_ids) == "Two and two is four<|im_end|>"
    assert trained(renderer, sample) == " four<|im_end|>"
    assert sample.token_ids[-1] in renderer.stop_token_ids


def test_a_text_that_spells_its_end_token_gets_no_second_one(renderer: Renderer) -> None:
    (sample,) = samples(renderer, TextExample(text="done<|im_end|>"))
    assert renderer.decode(sample.token_ids) == "done<|im_end|>"


def test_a_stored_trajectory_gives_its_exact_tokens_in_all_segments(renderer: Renderer) -> None:
    first, second = samples(renderer, StoredExample(trajectory_id="t1"))
    assert (first.token_ids, first.is_sampled) == ((11, 12, 13, END), (False, False, True, True))
    assert (second.token_ids, second.is_sampled) == ((21, 22, END), (False, False, True))
    assert {first.trajectory_id, second.trajectory_id} == {"t1"}
    assert END in renderer.stop_token_ids


def test_a_stored_reply_that_a_stop_string_ended_is_imitated_as_it_is(renderer: Renderer) -> None:
    (sample,) = samples(renderer, StoredExample(trajectory_id="by string"))
    assert sample.token_ids == (21, 22, 23)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (SftExample(messages=(HI,)), "example 1 has no assistant message"),
        (SftExample(messages=(HI, HELLO, HI), num_given=2), "example 1 has no assistant message after its 2 given ones"),
        (TextExample(text="", prompt="hi"), "example 1 has no text"),
        (StoredExample(trajectory_id="silent"), "example 1, trajectory silent, has no sampled token"),
        (StoredExample(trajectory_id="cut"), r"example 1, trajectory cut: its reply 1 .* was cut off at the token limit"),
        (StoredExample(trajectory_id="endless"), r"trajectory endless: its reply 0 .* does not end with a stop token"),
        (StoredExample(trajectory_id="cancelled"), "does not end with a stop token"),
    ],
)
def test_an_example_with_nothing_to_learn_is_named(renderer: Renderer, example: Example, message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples(renderer, TextExample(text="fine"), example)


def test_what_the_template_refuses_is_named(tiny_tokenizer: Any) -> None:
    strict = Renderer(tiny_tokenizer, 512)
    strict.template = replace(strict.template, text="{{ raise_exception('never') }}")
    with pytest.raises(SettingError, match=r"example 1: .*never"):
        samples(strict, TextExample(text="fine"), SftExample(messages=(HI, HELLO)))


def test_no_examples_are_refused(renderer: Renderer) -> None:
    with pytest.raises(InputError, check=has_reason("nothing_to_train")):
        samples(renderer)


def test_an_unknown_trajectory_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        samples(renderer, StoredExample(trajectory_id="gone"))


def test_an_example_longer_than_the_context_is_refused_by_its_number_or_left_to_be_dropped(renderer: Renderer) -> None:
    long = TextExample(text="a" * 600)
    with pytest.raises(ContextLengthError, match=r"example 1 .*512"):
        samples(renderer, TextExample(text="fine"), long)
    assert len(samples(renderer, TextExample(text="fine"), long, when_too_long="drop")) == 2


def test_examples_are_told_apart_by_their_fields_on_the_wire() -> None:
    job = SftJob(examples=(SftExample(messages=(HI, HELLO)), TextExample(text="a"), StoredExample(trajectory_id="t1")))
    assert SftJob.model_validate_json(job.model_dump_json()) == job
    with pytest.raises(ValueError, match=r"examples.0.text.extra"):
        SftJob.model_validate({"examples": [{"text": "a", "extra": 1}]})
