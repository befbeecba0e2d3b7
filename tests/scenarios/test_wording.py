"""Tasks in plain words, and what may be asked of results."""

from __future__ import annotations

import json
import random

import pytest

from journeyman.mcp.results import leaves, looks_like_error, texts_in
from journeyman.mcp.tools import describe_tool, split_identifier
from journeyman.scenarios.explore import ExecutedCall
from journeyman.scenarios.generate import askable_leaves, drop_uniform, is_echo
from journeyman.scenarios.wording import gives_away, humanise_path, intent, join_words, make_wording

ROUTE = describe_tool(
    "plan_route_v2",
    "Plans a route between two towns. Uses roads.",
    {
        "type": "object",
        "properties": {"source_town": {"type": "string"}, "departure": {"type": "string"}, "targetTown": {"type": "string"}},
        "required": ["source_town", "departure", "targetTown"],
    },
    (True, False),
)
CALL = {"source_town": "Ulm", "departure": "09:15", "targetTown": "Bonn"}


def test_a_task_states_every_value_and_no_identifier_in_at_least_six_ways() -> None:
    wording = make_wording([ROUTE], {ROUTE.name: [("arrival_time",)]})
    rng = random.Random(0)
    tasks = {wording.task(ROUTE, CALL, ("arrival_time",), rng) for _ in range(200)}
    assert len(tasks) >= 6
    for task in tasks:
        assert all(value in task for value in CALL.values())
        assert "arrival time" in task
        assert gives_away(task, [ROUTE], CALL) is None
        assert len(task) < 140
    assert any("from Ulm to Bonn" in task for task in tasks)
    assert any("plan a route between two towns" in task.casefold() for task in tasks)


def test_a_request_for_two_calls_states_the_values_of_both() -> None:
    wording = make_wording([ROUTE], {})
    other = {"source_town": "Kiel", "departure": "10:20", "targetTown": "Hof"}
    task = wording.task_of_two(ROUTE, CALL, other, ("arrival_time",), random.Random(1))
    assert all(value in task for value in (*CALL.values(), *other.values()))


def test_tools_that_look_alike_are_told_apart_by_what_they_do() -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    one = describe_tool("count_words", "Count the words of a text.", schema, (True, False))
    two = describe_tool("count_letters", "Count the letters of a text.", schema, (True, False))
    wording = make_wording([one, two], {"count_words": [()], "count_letters": [()]})
    rng = random.Random(0)
    assert all("words" in wording.task(one, {"text": "so it is"}, (), rng).casefold() for _ in range(40))


def test_identifiers_give_a_task_away_unless_they_are_plain_words_or_values() -> None:
    assert gives_away("use plan_route_v2 now", [ROUTE], {}) == "plan_route_v2"
    assert gives_away("the targetTown is Bonn", [ROUTE], {}) == "targetTown"
    assert gives_away("what is the departure", [ROUTE], {}) is None
    assert gives_away("look at source_town", [ROUTE], {"departure": "source_town"}) is None
    assert gives_away("source_town or targetTown", [ROUTE], {"departure": "source_town"}, {"departure": "targetTown"}) is None


def test_words_from_identifiers_and_descriptions() -> None:
    assert split_identifier("getHTTPCode_v2") == ["get", "httpcode", "v2"]
    assert humanise_path(("target", "dayOfWeek", 0)) == "target day of week first"
    assert intent("Returns the sum (fast). More.", "x") == "return the sum"
    assert intent("", "list_tables") == "list tables"
    assert intent("Runs get_thing now", "get_thing") == "get thing"
    assert join_words(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(
    "text", ["", "Error: no", "error executing tool", "Traceback (most recent", '{"error": "x"}', '{"success": false}', "No such table"]
)
def test_failures_that_come_as_text_are_recognised(text: str) -> None:
    assert looks_like_error(text)


@pytest.mark.parametrize("text", ["0", "Errors are human", '{"error": null, "a": 1}', "north"])
def test_ordinary_results_are_no_failures(text: str) -> None:
    assert not looks_like_error(text)


def test_leaves_are_short_scalars_with_their_path() -> None:
    text = json.dumps({"a": {"b": 1}, "c": ["x", "y"], "long": "z" * 100, "none": None})
    assert dict(leaves(text)) == {("a", "b"): 1, ("c", 0): "x", ("c", 1): "y"}
    assert list(leaves("42")) == [((), "42")]
    assert list(leaves("twelve")) == [((), "twelve")]


def test_echoes_are_recognised() -> None:
    assert is_echo("Ulm", CALL)
    assert is_echo("2026-01-01T09:15:00", CALL)
    assert not is_echo("11:40", CALL)


def _calls(*results: dict[str, object]) -> list[ExecutedCall]:
    return [ExecutedCall("t", {"city": f"city {index}"}, json.dumps(result)) for index, result in enumerate(results)]


def test_what_can_be_guessed_is_not_asked() -> None:
    calls = _calls(*({"city": f"city {n}", "size": n * 7, "kind": "town", "old": n % 2 == 0} for n in range(8)))
    assert askable_leaves(calls) == (("size",),)


def test_a_flag_is_asked_for_when_there_is_nothing_else() -> None:
    calls = _calls(*({"city": f"city {n}", "old": n % 2 == 0} for n in range(8)))
    assert askable_leaves(calls) == (("old",),)


def test_a_text_that_most_calls_return_is_dropped() -> None:
    calls = [ExecutedCall("t", {"n": n}, "no data" if n < 5 else str(n)) for n in range(8)]
    assert [call.result for call in drop_uniform(calls)] == ["5", "6", "7"]


def test_texts_in_results_keep_their_key() -> None:
    assert texts_in('[{"name": "orders"}, {"name": "items"}]') == [("name", "orders"), ("name", "items")]
    assert texts_in("[{'name': 'orders'}]") == [("name", "orders")]
    assert texts_in("orders\n- items") == [("", "orders"), ("", "items")]
