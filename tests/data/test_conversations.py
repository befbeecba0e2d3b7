"""A prompt that stands in its own column and again in the answers is trained once, or the row is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from journeyman.data import preference_pairs, sft_examples
from journeyman.errors import InputError

SYSTEM, USER, OTHER = (
    {"role": role, "content": text} for role, text in (("system", "Be brief."), ("user", "Two and two?"), ("user", "Why?"))
)
YES, NO = ({"role": "assistant", "content": text} for text in ("Four.", "Five."))


def roles_and_texts(messages: Any) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in messages]


REPEATED: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "not repeated": ([USER], [YES], [NO]),
    "repeated": ([USER], [USER, YES], [USER, NO]),
    "several turns": ([USER, YES, OTHER], [USER, YES, OTHER, YES], [USER, YES, OTHER, NO]),
    "other blanks": ([USER], [USER | {"content": " Two and two?\n"}, YES], [USER, NO]),
    "system in the prompt alone": ([SYSTEM, USER], [USER, YES], [USER, NO]),
    "system in the answers alone": ([USER], [SYSTEM, USER, YES], [SYSTEM, USER, NO]),
    "system in both": ([SYSTEM, USER], [SYSTEM, USER, YES], [SYSTEM, USER, NO]),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_pair_has_its_prompt_once(name: str) -> None:
    prompt, chosen, rejected = REPEATED[name]
    [pair] = preference_pairs([{"prompt": prompt, "chosen": chosen, "rejected": rejected}]).examples
    has_system = any(SYSTEM in side for side in (prompt, chosen))
    asked = [message for message in prompt if message != SYSTEM]
    expected = [(message["role"], message["content"]) for message in ([SYSTEM] if has_system else []) + asked]
    assert roles_and_texts(pair.prompt) == expected
    assert (roles_and_texts(pair.chosen), roles_and_texts(pair.rejected)) == ([("assistant", "Four.")], [("assistant", "Five.")])


@pytest.mark.parametrize("name", REPEATED)
def test_a_completion_that_repeats_its_prompt_gives_the_same_example_as_one_that_does_not(name: str) -> None:
    prompt, completion, _ = REPEATED[name]
    [example] = sft_examples([{"prompt": prompt, "completion": completion}]).examples
    assert [message.content for message in example.messages].count("Two and two?") == 1
    assert roles_and_texts(example.messages[example.num_given :]) == [("assistant", "Four.")]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([USER, YES], [NO], "prompt_in_some_answers"),
        ([YES], [USER, NO], "prompt_in_some_answers"),
        ([OTHER, YES], [OTHER, NO], "other_prompt"),
        ([USER, YES], [OTHER, NO], "prompt_in_some_answers"),
        ([SYSTEM | {"content": "Be long."}, USER, YES], [SYSTEM, USER, NO], "other_prompt"),
    ],
)
def test_a_prompt_that_is_not_the_same_everywhere_is_refused(chosen: Any, rejected: Any, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        preference_pairs([{"prompt": [USER], "chosen": chosen, "rejected": rejected}])
    assert caught.value.reason == reason


def test_texts_that_begin_with_their_prompt_have_it_once() -> None:
    row = {"prompt": "Human: hi Assistant:", "chosen": "Human: hi Assistant: hello", "rejected": "Human: hi Assistant: what"}
    [pair] = preference_pairs([row]).examples
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Human: hi Assistant:", " hello", " what")
    [example] = sft_examples([{"prompt": row["prompt"], "completion": row["chosen"]}]).examples
    assert (example.prompt, example.text) == ("Human: hi Assistant:", " hello")


def test_a_text_that_begins_with_a_prompt_of_one_word_is_left_alone() -> None:
    [pair] = preference_pairs([{"prompt": "No", "chosen": "No, thanks.", "rejected": "Nothing."}]).examples
    assert (pair.prompt, pair.chosen) == ("No", "No, thanks.")


@pytest.mark.parametrize(
    "row", [{"messages": [YES, USER, NO]}, {"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Yo"}]}]
)
def test_a_conversation_that_begins_with_the_assistant_is_refused_with_advice(row: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        sft_examples([row])
    assert caught.value.reason == "begins_with_assistant"
    assert caught.value.hint is not None


def test_lists_of_messages_that_stand_in_texts_are_lists_of_messages() -> None:
    prompt, chosen, rejected = (json.dumps(turns) for turns in ([USER], [USER, YES], [USER, NO]))
    [pair] = preference_pairs([{"prompt": prompt, "chosen": chosen, "rejected": rejected}]).examples
    assert (roles_and_texts(pair.prompt), roles_and_texts(pair.chosen)) == ([("user", "Two and two?")], [("assistant", "Four.")])
    [example] = sft_examples([{"prompt": prompt, "completion": chosen}]).examples
    assert roles_and_texts(example.messages) == [("user", "Two and two?"), ("assistant", "Four.")]


@pytest.mark.parametrize("text", ['[{"role": "admin"}]', "[{role: user}]", "[]"])
def test_a_text_that_looks_like_messages_and_is_none_stays_a_text(text: str) -> None:
    [example] = sft_examples([{"prompt": "Who is here?", "completion": text}]).examples
    assert example.text == text


@pytest.mark.parametrize(
    ("prompt", "answers", "expected"),
    [
        (
            "\u4f60\u597d\u5417\u8bf7\u56de\u7b54",
            ("\u4f60\u597d\u5417\u8bf7\u56de\u7b54\u662f", "\u4f60\u597d\u5417\u8bf7\u56de\u7b54\u5426"),
            "\u662f",
        ),
        ("https://example.org/?q=", ("https://example.org/?q=a", "https://example.org/?q=b"), "a"),
    ],
)
def test_a_prompt_without_blanks_that_is_no_short_word_is_taken_once(prompt: str, answers: tuple[str, str], expected: str) -> None:
    [pair] = preference_pairs([{"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}]).examples
    assert (pair.prompt, pair.chosen) == (prompt, expected)


@pytest.mark.parametrize("prompt", [" Two and two?", "Two  and\ttwo?", "Two and\r\ntwo?\r\n"])
def test_texts_that_begin_with_their_prompt_in_other_blanks_are_refused(prompt: str) -> None:
    row = {"prompt": prompt, "chosen": "Two and two? Four.", "rejected": "Two and two? Five."}
    for read, given in ((preference_pairs, row), (sft_examples, {"prompt": prompt, "completion": row["chosen"]})):
        with pytest.raises(InputError) as caught:
            read([given])
        assert caught.value.reason == "other_prompt"


def test_a_prompt_that_is_repeated_twice_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        preference_pairs([{"prompt": [USER], "chosen": [USER, USER, YES], "rejected": [USER, USER, NO]}])
    assert caught.value.reason == "other_prompt"


def test_a_system_column_that_stands_in_the_conversation_too_is_taken_once() -> None:
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Two and two?"}]
    row = {"conversations": turns, "system": "Be brief.", "chosen": YES, "rejected": NO}
    assert [one.role for one in preference_pairs([row]).examples[0].prompt] == ["system", "user"]
    with pytest.raises(InputError) as caught:
        preference_pairs([row | {"system": "Be long."}])
    assert caught.value.reason == "other_system"
