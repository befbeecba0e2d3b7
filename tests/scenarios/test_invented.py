"""Made-up results of drills: what is asked for stands among other things that look like it."""

from __future__ import annotations

import json
import random

from journeyman.scenarios.invented import invent_answer, invent_question, invent_result

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
