"""Drills and shots: what is asked for stands among things that look like it; shots are made of training scenarios alone."""

from __future__ import annotations

import json
import random

import pytest

from journeyman.errors import SettingError
from journeyman.scenarios.drills import invent_answer, invent_question, invent_result, make_shots
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Split, Witness, WitnessCall, WorkedExample

DRAWS = 200


def test_the_value_stands_where_the_task_asks_for_it():
    for number in range(DRAWS):
        rng = random.Random(number)
        path, draw = invent_question([("target", "when"), ("gap",)], rng)
        value = draw(rng)
        found = json.loads(invent_result({"city": "Oslo"}, path, value, rng, [("target", "when"), ("gap",)]))
        for part in path:
            found = found[part]
        assert found == value


def test_other_leaves_that_tasks_ask_for_mostly_stand_beside_it():
    results = [json.loads(invent_result({}, ("gap",), 1, random.Random(number), [("target", "when"), ("gap",)])) for number in range(DRAWS)]
    share = sum("when" in result.get("target", {}) for result in results if isinstance(result.get("target", {}), dict)) / DRAWS
    assert 0.6 < share < 0.8


def test_a_nested_value_mostly_has_a_rival_of_the_same_name_under_another_key():
    results = [json.loads(invent_result({}, ("target", "when"), 1, random.Random(number))) for number in range(DRAWS)]
    rivals = [
        [key for key, inner in result.items() if key != "target" and isinstance(inner, dict) and "when" in inner] for result in results
    ]
    assert 0.7 < sum(map(bool, rivals)) / DRAWS < 0.9
    mirrored = [(result["target"].keys(), result[names[0]].keys()) for result, names in zip(results, rivals, strict=True) if names]
    assert all(target <= rival or rival <= target for target, rival in mirrored)


def test_the_value_is_neither_always_first_nor_always_last_of_its_object():
    places = set()
    for number in range(DRAWS):
        names = list(json.loads(invent_result({}, ("target", "when"), 1, random.Random(number)))["target"])
        if len(names) > 2:
            places.add("first" if names[0] == "when" else "last" if names[-1] == "when" else "between")
    assert places == {"first", "last", "between"}


def test_a_leaf_that_leads_through_the_value_is_left_out():
    for number in range(DRAWS):
        result = json.loads(invent_result({}, ("target",), 7, random.Random(number), [("target", "when"), ("target",)]))
        assert result["target"] == 7


def test_an_answer_says_what_was_asked_for_before_its_value():
    text = invent_answer(("target", "when"), ("09:30",), random.Random(0))
    assert text.index("target when") < text.index("09:30")


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
