"""Tool calls and thinking are read out of replies without ever raising; what is said of an unfinished one never has to be taken back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.chat.reply import (
    ChatFormat,
    RawFormat,
    ReplyFormat,
    cut_at_stop,
    parse_reply,
    parse_tool_calls,
    split_reasoning,
    without_reasoning,
)
from journeyman.types.messages import FunctionCall

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


def test_text_without_calls_is_content_verbatim() -> None:
    assert parse_tool_calls("\n It is noon.  ") == ("\n It is noon.  ", ())


def test_arguments_are_kept_exactly_as_the_model_wrote_them() -> None:
    content, calls = parse_tool_calls('<tool_call>\n{"name":"f", "arguments": {"a" :  1.0}}\n</tool_call>')
    assert content is None
    assert calls == (FunctionCall(name="f", arguments='{"a" :  1.0}'),)


def test_text_around_calls_is_content_and_calls_keep_their_order() -> None:
    text = 'I will look. <tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b"}</tool_call> ok'
    content, calls = parse_tool_calls(text)
    assert content == "I will look.  ok"
    assert [call.name for call in calls] == ["a", "b"]
    assert calls[1].arguments == "{}"


def test_whitespace_before_the_text_beside_a_call_stays_because_a_stream_has_sent_it() -> None:
    assert parse_tool_calls('\nI look. \n<tool_call>{"name": "a"}</tool_call>\n')[0] == "\nI look."
    assert parse_tool_calls('\n<tool_call>{"name": "a"}</tool_call>\n')[0] is None


def test_malformed_json_comes_back_verbatim_with_the_name_as_far_as_readable() -> None:
    inner = '{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}'
    assert parse_tool_calls(f"<tool_call>{inner}</tool_call>")[1] == (FunctionCall(name="get_time", arguments=inner),)
    assert parse_tool_calls("<tool_call>get_time()</tool_call>")[1] == (FunctionCall(name="", arguments="get_time()"),)


def test_a_call_without_its_closing_tag_still_counts() -> None:
    calls = parse_tool_calls('<tool_call>{"name": "a", "arguments": {"x": 1}}')[1]
    assert calls == (FunctionCall(name="a", arguments='{"x": 1}'),)


def test_an_unclosed_call_does_not_swallow_the_next_one() -> None:
    calls = parse_tool_calls('<tool_call>{"name": "a"}<tool_call>{"name": "b"}</tool_call>')[1]
    assert [call.name for call in calls] == ["a", "b"]


def test_arguments_encoded_as_a_string_are_unwrapped() -> None:
    calls = parse_tool_calls('<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>')[1]
    assert calls[0].arguments == '{"x": 1}'


def test_an_argument_that_is_itself_called_arguments_is_not_confused() -> None:
    calls = parse_tool_calls('<tool_call>{"name": "a", "arguments": {"arguments": {"x": 1}}}</tool_call>')[1]
    assert json.loads(calls[0].arguments) == {"arguments": {"x": 1}}


@given(st.text(alphabet=st.sampled_from('<>/tool_call{}"name:arguments,[] 1\\'), max_size=80))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    for reply in (parse_reply(text, allow_bare_call=True), parse_reply(f"<tool_call>{text}")):
        assert all(isinstance(call.arguments, str) for call in reply.tool_calls)


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=9), st.booleans(), st.none())))
def test_well_formed_arguments_survive_for_any_values(arguments: dict[str, object]) -> None:
    written = json.dumps({"name": "f", "arguments": arguments}).replace("</tool_call>", "")
    calls = parse_tool_calls(f"<tool_call>{written}</tool_call>")[1]
    assert json.loads(calls[0].arguments) == arguments


def test_a_bare_json_reply_is_a_call_only_where_the_template_writes_calls_so() -> None:
    text = '{"name": "f", "parameters": {"a": 1}}'
    assert parse_reply(text).tool_calls == ()
    assert parse_reply(text, allow_bare_call=True).tool_calls == (FunctionCall(name="f", arguments='{"a": 1}'),)
    assert parse_reply('{"city": "Paris"}', allow_bare_call=True).content == '{"city": "Paris"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", (None, "plain")),
        ("<think>a b</think>\n\nc", ("a b", "c")),
        ("a b</think>\nc", (None, "a b</think>\nc")),
        ("<think>cut off", ("cut off", "")),
    ],
)
def test_thinking_is_separated(text: str, expected: tuple[str | None, str]) -> None:
    assert split_reasoning(text) == expected


def test_thinking_that_the_prompt_opened_needs_no_opening_tag() -> None:
    assert split_reasoning("a b</think>\nc", is_open=True) == ("a b", "c")
    assert split_reasoning("<think>a b</think>\nc", is_open=True) == ("a b", "c")
    assert split_reasoning("cut off", is_open=True) == ("cut off", "")


def test_thinking_is_removed_wherever_it_stands() -> None:
    assert without_reasoning("<think>x</think>\n\nhello") == "hello"
