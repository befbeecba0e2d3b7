"""Rows of every preference format become pairs; a pair that cannot teach anything is said with its line."""

from __future__ import annotations

import doctest
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from journeyman.data import examples_or_pairs, preference_pairs
from journeyman.errors import InputError
from journeyman.types.training import PreferencePair, TextPair

HI = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "hello"}, {"role": "assistant", "content": "go away"}
TOOL = {"name": "get_time"}


def pair(row: dict[str, Any], **choices: Any) -> PreferencePair:
    (found,) = preference_pairs([row], **choices).examples
    assert isinstance(found, PreferencePair)
    return found


def said(found: PreferencePair) -> tuple[list[str | None], list[str | None], list[str | None]]:
    given, chosen, rejected = ([message.content for message in part] for part in (found.prompt, found.chosen, found.rejected))
    return given, chosen, rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [HI], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [HI, GOOD], "rejected": [HI, BAD]},
        {"prompt": "hi", "chosen": [HI, GOOD], "rejected": [HI, BAD]},
        {"prompt": "hi", "chosen": [GOOD], "rejected": [BAD]},
        {"conversations": [{"from": "human", "value": "hi"}], "chosen": {"from": "gpt", "value": "hello"},
         "rejected": {"from": "gpt", "value": "go away"}},
        {"instruction": "hi", "input": "", "chosen": "hello", "rejected": "go away"},
    ],
    ids=["explicit-prompt", "implicit-prompt", "prompt-told-once-more", "prompt-text-and-replies", "sharegpt", "alpaca"],
)  # fmt: skip
def test_conversations_in_every_layout_are_the_same_pair(row: dict[str, Any]) -> None:
    found = pair(row)
    assert said(found) == (["hi"], ["hello"], ["go away"])
    assert [message.role for message in (*found.prompt, *found.chosen)] == ["user", "assistant"]


def test_the_implicit_prompt_is_all_that_both_begin_with() -> None:
    row = {"chosen": [HI, GOOD, HI, GOOD], "rejected": [HI, GOOD, HI, BAD], "tools": [TOOL]}
    found = pair(row)
    assert said(found) == (["hi", "hello", "hi"], ["hello"], ["go away"])
    assert [tool.function.name for tool in found.tools] == ["get_time"]


def test_texts_are_taken_without_a_template() -> None:
    loaded = preference_pairs([{"prompt": "2+2=", "chosen": "4", "rejected": "5"}])
    assert loaded.examples == (TextPair(prompt="2+2=", chosen="4", rejected="5"),)
    assert loaded.format == "preference"


def test_what_two_texts_begin_with_is_their_prompt_and_a_word_keeps_its_space() -> None:
    loaded = preference_pairs([{"chosen": "Human: hi\n\nAssistant: yes", "rejected": "Human: hi\n\nAssistant: no"}])
    assert loaded.examples == (TextPair(prompt="Human: hi\n\nAssistant:", chosen=" yes", rejected=" no"),)


def test_other_column_names_are_told() -> None:
    row = {"question": "hi", "good": "hello", "bad": "go away"}
    found = pair(row, columns={"instruction": "question", "chosen": "good", "rejected": "bad"})
    assert said(found) == (["hi"], ["hello"], ["go away"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "same_answers"),
        ({"prompt": [HI], "chosen": [GOOD], "rejected": [GOOD]}, "same_answers"),
        ({"chosen": [HI, GOOD], "rejected": [HI, GOOD]}, "same_answers"),
        ({"chosen": "b", "rejected": "b"}, "same_answers"),
        ({"prompt": "a", "chosen": "b", "rejected": [BAD]}, "mixed_kinds"),
        ({"prompt": [HI], "chosen": "b", "rejected": "c"}, "mixed_kinds"),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "no_text"),
        ({"chosen": "yes", "rejected": "yes, but"}, "no_text"),
        ({"chosen": [HI, GOOD], "rejected": [HI]}, "nothing_to_learn"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "begins_with_assistant"),
        ({"prompt": "", "chosen": [GOOD], "rejected": [BAD]}, "no_text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "tools": [TOOL]}, "tools_with_texts"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "missing_column"),
        ({"prompt": [{"role": "narrator"}], "chosen": [GOOD], "rejected": [BAD]}, "unknown_role"),
    ],
)
def test_a_pair_that_teaches_nothing_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        preference_pairs([row])
    assert (caught.value.reason, "row 1: " in caught.value.message) == (reason, True)


def test_bad_pairs_are_left_out_and_counted() -> None:
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    loaded = preference_pairs([same, {"prompt": "a", "chosen": "b", "rejected": "c"}, same], skip_bad=True)
    assert (len(loaded.examples), loaded.num_bad) == (1, 2)
    assert loaded.faults[0].startswith("row 1: ")


def test_examples_to_imitate_are_told_from_pairs() -> None:
    with pytest.raises(InputError) as caught:
        preference_pairs([{"messages": [HI, GOOD]}])
    assert (caught.value.reason, "SFT" in str(caught.value.hint)) == ("unknown_format", True)


@pytest.mark.parametrize(
    ("row", "choices", "format"),
    [
        ({"chosen": "a", "rejected": "b", "prompt": "c"}, {}, "preference"),
        ({"text": "a"}, {}, "text"),
        ({"good": "a", "bad": "b", "prompt": "c"}, {"columns": {"chosen": "good", "rejected": "bad"}}, "preference"),
        ({"chosen": "a", "rejected": "b", "text": "c"}, {"format": "text"}, "text"),
        ({"instruction": "a", "chosen": "b", "rejected": "c", "output": "d"}, {"format": "alpaca_preference"}, "alpaca_preference"),
    ],
)
def test_examples_and_pairs_are_told_apart(row: dict[str, Any], choices: dict[str, Any], format: str) -> None:
    assert examples_or_pairs([row], **choices).format == format


@pytest.mark.parametrize("module", ["rows", "sources", "examples", "preferences"])
def test_the_examples_in_the_documentation_are_true(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"journeyman.data.{module}"))
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_an_image_on_any_side_is_refused_by_row(side: str) -> None:
    row = {name: [{"role": "user" if name == "prompt" else "assistant", "content": name}] for name in ("prompt", "chosen", "rejected")}
    bad = {**row, side: [{**row[side][0], "content": [{"type": "text", "text": side}, {"type": "image"}]}]}
    with pytest.raises(InputError) as caught:
        preference_pairs([row, bad])
    assert (caught.value.reason, "row 2" in caught.value.message) == ("unsupported_part", True)


@pytest.mark.parametrize("written", [str, lambda turns: json.dumps(turns)[:-5]], ids=["str", "cut"])
def test_a_cell_that_begins_like_a_list_of_messages_and_is_no_json_is_refused(written: Callable[[object], str]) -> None:
    hi = {"role": "user", "content": "hi"}
    sides = {side: written([hi, {"role": "assistant", "content": side}]) for side in ("chosen", "rejected")}
    with pytest.raises(InputError) as caught:
        preference_pairs([{"prompt": written([hi]), **sides}])
    assert caught.value.reason == "no_json"
