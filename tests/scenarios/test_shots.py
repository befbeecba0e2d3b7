"""Worked examples: made of what ran, from training scenarios only, each in words."""

from __future__ import annotations

import json

import pytest

from journeyman.errors import SettingError
from journeyman.scenarios.drills import make_shots
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Split, Witness, WitnessCall, WorkedExample


def scenario(number: int, tool: str = "look", *, split: Split = "train", num_calls: int = 1, compared: str | None = None) -> Scenario:
    calls = tuple(
        WitnessCall(tool=tool, arguments={"n": number + place}, result=json.dumps({"out": {"size": number + place}}, indent=1))
        for place in range(num_calls)
    )
    answers = tuple(ExpectedAnswer(call=place, path=("out", "size"), value=number + place) for place in range(num_calls))
    if compared is not None:
        answers = (ExpectedAnswer(call=0, path=("out", "size"), value=compared),)
    return Scenario(id=f"{split}-{number}", task=f"What of {number}?", split=split, witness=Witness(calls=calls, answers=answers))


def test_a_shot_is_task_call_result_and_an_answer_that_states_the_value() -> None:
    user, call, result, answer = make_shots([scenario(41)], 1)
    assert (user.role, user.content) == ("user", "What of 41?")
    assert json.loads(call.tool_calls[0].function.arguments) == {"n": 41}
    assert (result.tool_call_id, result.content) == (call.tool_calls[0].id, '{"out":{"size":41}}')
    assert answer.content is not None
    assert "41" in answer.content
    assert not answer.content.startswith("{")


def test_two_calls_and_comparisons_are_put_into_words() -> None:
    both = make_shots([scenario(7, num_calls=2)], 1)[-1].content or ""
    assert "7" in both
    assert "8" in both
    assert "same" in (make_shots([scenario(7, num_calls=2, compared="same")], 1)[-1].content or "")
    assert "different" in (make_shots([scenario(7, num_calls=2, compared="different")], 1)[-1].content or "")


def test_held_out_scenarios_are_never_shown() -> None:
    mixed = [scenario(number, split="heldout" if number % 2 else "train") for number in range(20)]
    shown = [message.content for message in make_shots(mixed, 10) if message.role == "user"]
    assert all(int(str(text).split()[-1].strip("?")) % 2 == 0 for text in shown)
    with pytest.raises(SettingError, match="yield 10"):
        make_shots(mixed, 11)


def test_fewer_shots_are_the_beginning_of_more_and_the_tools_take_turns() -> None:
    many = [scenario(number, "a") for number in range(8)] + [scenario(number, "b") for number in range(8, 12)]
    four = make_shots(many, 4, seed=3)
    assert make_shots(many, 2, seed=3) == four[: len(make_shots(many, 2, seed=3))]
    assert [message.tool_calls[0].function.name for message in four if message.tool_calls] == ["a", "b", "a", "b"]


def test_results_that_would_fill_the_prompt_are_passed_over() -> None:
    with pytest.raises(SettingError):
        make_shots([scenario(1)], 1, max_result_chars=5)


def test_call_ids_of_several_shots_differ() -> None:
    ids = [call.id for message in make_shots([scenario(number) for number in range(4)], 4) for call in message.tool_calls]
    assert len(set(ids)) == 4


def test_an_example_without_an_answer_ends_with_its_calls() -> None:
    messages = WorkedExample("Do it.", (("look", {"n": 1}), ("look", {"n": 2}))).messages()
    assert [message.role for message in messages] == ["user", "assistant"]
    assert [call.id for call in messages[1].tool_calls] == ["call_0", "call_1"]
