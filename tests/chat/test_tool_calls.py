"""Tool calls and thinking are read out of replies without ever raising."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.chat.reasoning import split_reasoning, without_reasoning
from journeyman.chat.reply import parse_reply
from journeyman.chat.tool_calls import parse_tool_calls
from journeyman.types.messages import FunctionCall


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
