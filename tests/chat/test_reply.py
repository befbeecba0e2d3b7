"""What is said of an unfinished reply never has to be taken back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.chat.reply import ChatFormat, RawFormat, ReplyFormat, cut_at_stop

PIECES = ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "f", "arguments": {"a": 1}}', "END", "ENE", "call>x"]
PIECES += ["hello", " ", "\n", "<", "<t", "/", "é", "�", "<|python_tag|>", "E", "N"]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(alphabet="<>/tolcaEND {\n", max_size=3)), max_size=12).map("".join)
STOPS = st.sampled_from([(), ("END",), ("END", "ENDE"), ("call>x", "NEN"), ("\n",), (">",), ("k>", "<t")])
FORMATS = st.one_of(
    st.builds(ChatFormat, STOPS, st.booleans(), st.booleans(), st.booleans()),
    st.builds(RawFormat, STOPS),
)


@settings(max_examples=600)
@given(TEXTS, FORMATS)
def test_what_is_settled_of_a_beginning_stays_whatever_follows(text: str, reply_format: ReplyFormat) -> None:
    whole = reply_format.parse(text.rstrip("�"))
    reasoning_before = content_before = ""
    for length in range(len(text) + 1):
        reasoning, content = reply_format.settled(text[:length])
        assert (whole.reasoning or "").startswith(reasoning)
        assert (whole.content or "").startswith(content)
        assert reasoning.startswith(reasoning_before)
        assert content.startswith(content_before)
        reasoning_before, content_before = reasoning, content


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("hello", ("", "hello")),
        ("hello ", ("", "hello")),
        ("hello <tool", ("", "hello")),
        ('hello <tool_call>{"na', ("", "hello")),
        ("hello <tools>", ("", "hello <tools>")),
        ("hello <thi", ("", "hello")),
        ("<think>one two ", ("one two", "")),
        ("<think>one</thi", ("one", "")),
        ("<think>one</think>\n\ntwo", ("one", "two")),
        ("one EN", ("", "one")),
        ("one END two", ("", "one")),
        ("caf�", ("", "caf")),
    ],
)
def test_what_could_begin_a_tag_or_a_stop_string_or_a_character_is_held_back(text: str, settled: tuple[str, str]) -> None:
    assert ChatFormat(stop=("END",)).settled(text) == settled


def test_a_reply_that_may_be_one_bare_call_is_held_back_to_its_end() -> None:
    bare = ChatFormat(allow_bare_call=True)
    assert bare.settled('{"name": "f"') == ("", "")
    assert bare.settled("<|python_tag|>{") == ("", "")
    assert bare.settled("It is") == ("", "It is")


def test_thinking_that_the_prompt_opened_is_settled_as_thinking() -> None:
    assert ChatFormat(is_thinking=True).settled("one") == ("one", "")
    assert ChatFormat(is_thinking=True).settled("one</think>two") == ("one", "two")


def test_text_is_cut_at_the_first_stop_string() -> None:
    assert cut_at_stop("one END two STOP", ("STOP", "END")) == "one "
    assert cut_at_stop("one", ("STOP",)) == "one"
