"""A reply that comes back is recognised however a framework re-serialised it, and an edited one is not."""

from __future__ import annotations

import pytest

from journeyman.service.turns import is_echo
from journeyman.types.messages import FunctionCall, Message, ToolCall


def calling(arguments: str, content: str | None = None, name: str = "f", call_id: str = "call_1") -> Message:
    call = ToolCall(id=call_id, function=FunctionCall(name=name, arguments=arguments))
    return Message(role="assistant", content=content, tool_calls=(call,))


ORIGINAL = calling('{"city": "Zürich"}', "\n Let me check.  ")


@pytest.mark.parametrize(
    "echoed",
    [
        ORIGINAL,
        calling('{"city":"Zürich"}', "Let me check."),
        calling('{"city": "Z\\u00fcrich"}', None),
        calling('{"city": "Zürich"}', ""),
        calling('{"city": "Zürich"}', "<think>moved here</think>Let me check."),
    ],
)
def test_re_dumped_arguments_and_lost_text_are_still_our_reply(echoed: Message) -> None:
    assert is_echo(echoed, ORIGINAL)


@pytest.mark.parametrize(
    "edited",
    [
        calling('{"city": "Bern"}'),
        calling('{"city": "Zürich"}', name="g"),
        calling('{"city": "Zürich"}', call_id="call_2"),
        calling('{"city": "Zürich"}', "Something else."),
        Message(role="assistant", content="Let me check."),
    ],
)
def test_an_edited_reply_is_another_message(edited: Message) -> None:
    assert not is_echo(edited, ORIGINAL)


@pytest.mark.parametrize("arguments", ['{"city": ', "{}", '{"INVALID_JSON": "{\\"city\\": "}'])
def test_arguments_that_never_parsed_need_only_id_and_name(arguments: str) -> None:
    assert is_echo(calling(arguments), calling('{"city": '))


def test_parallel_calls_match_as_a_set() -> None:
    first, second = ORIGINAL.tool_calls[0], calling("{}", call_id="call_2").tool_calls[0]
    assert is_echo(Message(role="assistant", tool_calls=(second, first)), Message(role="assistant", tool_calls=(first, second)))
    assert not is_echo(Message(role="assistant", tool_calls=(first,)), Message(role="assistant", tool_calls=(first, second)))


def test_text_without_calls_matches_after_whitespace_and_thinking_are_removed() -> None:
    reply = Message(role="assistant", content=" It is\nnoon. ")
    assert is_echo(Message(role="assistant", content="<think>hm</think>\n\nIt is noon."), reply)
    assert not is_echo(Message(role="assistant", content="It is one."), reply)
