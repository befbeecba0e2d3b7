"""A conversation to imitate: which tokens are trained, with templates of all kinds, and that they are those of a rollout."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from tests.chat.conversation import RESULT, SYSTEM, THINKING, TOOL, USER, call

from journeyman.chat.renderer import Renderer
from journeyman.errors import SettingError
from journeyman.types.messages import Message


@pytest.fixture
def renderer(tiny_tokenizer: Any) -> Renderer:
    return Renderer(tiny_tokenizer, 4096)


def test_an_example_trains_assistant_text_and_its_end_of_turn_only(renderer: Renderer) -> None:
    example = [SYSTEM, USER, call('{"zone": "Asia/Tokyo"}'), RESULT, Message(role="assistant", content="It is noon.")]
    ids, trained = renderer.render_example(example, [TOOL])
    assert len(ids) == len(trained)
    text = renderer.decode([token for token, is_trained in zip(ids, trained, strict=True) if is_trained])
    called = '<tool_call>{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}</tool_call>'
    assert text == f"{called}<|im_end|>It is noon.<|im_end|>"


def test_an_examples_prompt_is_token_identical_to_a_rollouts(renderer: Renderer) -> None:
    example = [SYSTEM, USER, call('{"zone": "Asia/Tokyo"}'), RESULT, Message(role="assistant", content="It is noon.")]
    ids, trained = renderer.render_example(example, [TOOL])
    prompt = renderer.render([SYSTEM, USER], [TOOL])
    assert ids[: len(prompt)] == prompt
    assert trained.index(True) == len(prompt)
    sampled = ids[len(prompt) : trained.index(False, len(prompt))]
    second = renderer.render(example[:4], [TOOL], lambda _: sampled)
    assert ids[: len(second)] == second


def _trained_text(renderer: Renderer, ids: tuple[int, ...], trained: tuple[bool, ...]) -> str:
    return renderer.decode([token for token, is_trained in zip(ids, trained, strict=True) if is_trained])


LLAMA = (
    "{# tools #}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{# tools #}<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
NO_END = (
    "{# tools #}{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
THINKS_FIRST = (
    "{# tools #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "taught", "between"),
    [
        (LLAMA, "hello<|im_end|>bye<|im_end|>", "<|start_header_id|>user<|end_header_id|>\n\nb<|im_end|>"),
        (MISTRAL, " hello<|im_end|> bye<|im_end|>", "[INST] b [/INST]"),
        (NO_END, "hello<|im_end|>bye<|im_end|>", "\n\n### user:\nb\n\n### assistant:\n"),
        (THINKS_FIRST, "hello<|im_end|>bye<|im_end|>", "\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"),
    ],
    ids=["llama", "mistral", "no-end-token", "thinks-first"],
)
def test_a_foreign_template_without_generation_marks_still_gives_an_exact_mask(
    tiny_tokenizer: Any, template: str, taught: str, between: str
) -> None:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = template
    renderer = Renderer(tokenizer, 4096)
    assert renderer.template.is_own
    example = [
        Message(role="user", content="a"),
        Message(role="assistant", content="hello"),
        Message(role="user", content="b"),
        Message(role="assistant", content="bye"),
    ]
    ids, trained = renderer.render_example(example, [])
    assert _trained_text(renderer, ids, trained) == taught
    assert between in renderer.decode(ids)
    ends = [index for index, is_trained in enumerate(trained) if is_trained and not (*trained, False)[index + 1]]
    assert len(ends) == 2
    assert all(ids[end] in renderer.stop_token_ids for end in ends), "each reply ends with its stop token, inside the mask"


def test_an_example_keeps_the_thinking_that_the_template_drops_from_history_as_a_rollout_does(tiny_tokenizer: Any) -> None:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = THINKING
    renderer = Renderer(tokenizer, 4096)
    first = Message(role="assistant", content="hello", reasoning_content="hm")
    second = Message(role="assistant", content="bye", reasoning_content="so")
    ids, trained = renderer.render_example([USER, first, USER, second], [])
    assert _trained_text(renderer, ids, trained) == ("<think>\nhm\n</think>\n\nhello<|im_end|><think>\nso\n</think>\n\nbye<|im_end|>")
    prompt = renderer.render([USER], [])
    sampled = ids[len(prompt) : trained.index(False, len(prompt))]
    grown = renderer.render([USER, first, USER], [], lambda _: sampled)
    assert ids[: len(grown)] == grown


def test_an_examples_thinking_is_written_where_the_template_knows_nothing_of_it(renderer: Renderer) -> None:
    reply = Message(role="assistant", content="It is noon.", reasoning_content="hm")
    ids, trained = renderer.render_example([USER, reply], [])
    sampled = [token for token, is_trained in zip(ids, trained, strict=True) if is_trained]
    parsed = renderer.parse(sampled)
    assert (parsed.reasoning, parsed.content) == ("hm", "It is noon.")


def test_a_template_that_writes_nothing_of_a_call_is_refused(tiny_tokenizer: Any) -> None:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = LLAMA
    with pytest.raises(SettingError) as caught:
        Renderer(tokenizer, 4096).render_example([USER, call("{}")], [])
    assert caught.value.reason == "reply_not_written"


def beginning_with_its_start_token(tokenizer: Any) -> Any:
    """The tokenizer with the post-processor of Llama's and Gemma's: a start token in front of every text."""
    from tokenizers.processors import TemplateProcessing

    beginning = deepcopy(tokenizer)
    start = "<|endoftext|>"
    beginning.bos_token = start
    special = [(start, tokenizer.convert_tokens_to_ids(start))]
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=special
    )
    return beginning


def test_a_text_begins_with_the_start_token_where_the_tokenizer_puts_one(tiny_tokenizer: Any) -> None:
    tokenizer = beginning_with_its_start_token(tiny_tokenizer)
    renderer = Renderer(tokenizer, 4096)
    ids, trained = renderer.render_text(" four", "Two and two is")
    assert list(ids[:-1]) == [*tokenizer.encode("Two and two is"), *tokenizer.encode(" four", add_special_tokens=False)]
    assert trained == tuple(at >= len(tokenizer.encode("Two and two is")) for at in range(len(ids)))
    ids, trained = renderer.render_text("hello")
    assert renderer.decode(ids) == "<|endoftext|>hello<|im_end|>"
    assert trained == (False,) + (True,) * (len(ids) - 1)
    # What is continued begins as what was trained; a text that spells the token has it once; a chat is its template's affair.
    assert renderer.encode_prompt("Two and two is") == tuple(tokenizer.encode("Two and two is"))
    assert renderer.decode(renderer.render_text("<|endoftext|>hello")[0]) == "<|endoftext|>hello<|im_end|>"
    assert renderer.render([USER], []) == Renderer(tiny_tokenizer, 4096).render([USER], [])


def test_a_text_begins_with_no_start_token_where_the_tokenizer_puts_none(tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.bos_token_id is not None
    renderer = Renderer(tiny_tokenizer, 4096)
    assert renderer.decode(renderer.render_text("hello")[0]) == "hello<|im_end|>"
    assert renderer.encode_prompt("hello") == renderer.encode("hello")
