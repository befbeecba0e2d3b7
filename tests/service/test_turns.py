"""Turns become segments by exact extension, and every sampled token is trained exactly once; a reply that comes back is recognised however
a framework re-serialised it, and an edited one is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.service.turns import is_echo, segments
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.sampling import SamplingParameters
from journeyman.types.trajectory import Trajectory, Turn


def turn(index: int, prompt: list[int], sampled: list[int], adapter: str | None = "m@1") -> Turn:
    return Turn(
        index=index,
        adapter=adapter,
        messages=(Message(role="user", content="hi"),),
        reply=Message(role="assistant", content="x"),
        prompt_ids=tuple(prompt),
        sampled_ids=tuple(sampled),
        sampled_logprobs=tuple(-0.5 for _ in sampled),
        finish_reason="stop",
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
    )


def trajectory(*turns: Turn) -> Trajectory:
    return Trajectory(id="t", scenario_id="s", model="m@1", turns=turns)


def test_turns_that_extend_exactly_are_one_segment_with_provenance() -> None:
    (only,) = segments(trajectory(turn(0, [1, 2], [3, 4]), turn(1, [1, 2, 3, 4, 5], [6])))
    assert only.token_ids == (1, 2, 3, 4, 5, 6)
    assert only.is_sampled == (False, False, True, True, False, True)
    assert only.logprobs == (0.0, 0.0, -0.5, -0.5, 0.0, -0.5)
    assert (only.turns, only.reason, only.shared, only.num_sampled) == ((0, 1), "first", 0, 3)


def test_a_rewritten_history_starts_a_new_segment() -> None:
    _, second = segments(trajectory(turn(0, [1, 2], [3, 4]), turn(1, [1, 2, 9, 4, 5], [6])))
    assert (second.reason, second.shared, second.turns) == ("rewritten", 2, (1,))
    assert second.is_sampled == (False,) * 5 + (True,)


def test_a_second_reply_to_the_same_prompt_is_resampled() -> None:
    _, second = segments(trajectory(turn(0, [1, 2], [3]), turn(1, [1, 2], [4])))
    assert (second.reason, second.shared) == ("resampled", 2)


def test_going_on_from_an_earlier_turn_is_a_branch_whose_shared_reply_counts_as_given() -> None:
    first, second = segments(trajectory(turn(0, [1], [2]), turn(1, [1, 2, 3], [4]), turn(2, [1, 2, 7], [8])))
    assert first.turns == (0, 1)
    assert (second.reason, second.shared) == ("branched", 2)
    assert second.num_sampled == 1


def test_another_version_never_extends_a_segment() -> None:
    first, second = segments(trajectory(turn(0, [1], [2]), turn(1, [1, 2, 3], [4], adapter="m@2")))
    assert (first.adapter, second.adapter) == ("m@1", "m@2")


def test_no_turns_no_segments() -> None:
    assert segments(trajectory()) == ()


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2), max_size=3)), max_size=6))
def test_every_sampled_token_is_trained_exactly_once(calls: list[tuple[list[int], list[int]]]) -> None:
    turns = [turn(index, prompt, sampled) for index, (prompt, sampled) in enumerate(calls)]
    found = segments(trajectory(*turns))
    assert sum(segment.num_sampled for segment in found) == sum(len(sampled) for _, sampled in calls)
    assert sorted(index for segment in found for index in segment.turns) == list(range(len(calls)))
    for segment in found:
        last = turns[segment.turns[-1]]
        assert segment.token_ids == last.prompt_ids + last.sampled_ids


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
