"""Where values come from: schemas, proposals, recombination; and which side of the split they are on."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from journeyman.mcp.tools import McpTool, describe_tool
from journeyman.scenarios.build import split_values
from journeyman.scenarios.explore import make_pools
from journeyman.scenarios.proposals import CompletionProposer, recombine, vary_numbers
from journeyman.scenarios.values import schema_values, value_maker


def _tool(name: str, **properties: dict[str, Any]) -> McpTool:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return describe_tool(name, "Reads.", schema, (True, False))


def test_a_schema_names_values_by_enum_const_examples_default_and_quotes() -> None:
    assert schema_values({"enum": ["a", "b"]}) == ["a", "b"]
    assert schema_values({"const": 3}) == [3]
    assert schema_values({"type": "integer", "examples": [1, 2], "default": 5}) == [1, 2, 5]
    assert schema_values({"type": "string", "description": "Name (e.g., 'Oslo' or \"Bonn\"). Don't shout"}) == ["Oslo", "Bonn"]
    assert schema_values({"type": "boolean"}) == [True, False]


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ({"type": "string", "description": "Time in 24-hour format (HH:MM)"}, r"\d\d:\d\d"),
        ({"type": "string", "format": "date"}, r"\d{4}-\d\d-\d\d"),
        ({"type": "string", "description": "Day as YYYY-MM-DD"}, r"\d{4}-\d\d-\d\d"),
        ({"type": "string", "format": "date-time"}, r"\d{4}-\d\d-\d\dT\d\d:\d\d:00Z"),
        ({"type": "integer", "minimum": 3, "maximum": 9}, r"[3-9]"),
        ({"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 20}, r"5|10|15|20"),
        ({"type": "number", "minimum": 0, "maximum": 1}, r"[01]\.\d+"),
        ({"type": "array", "items": {"type": "integer"}}, r"\[\d+(, \d+)+\]"),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}, r"\{'a': (True|False)\}"),
    ],
)
def test_values_are_made_for_formats_and_ranges(schema: dict[str, Any], pattern: str) -> None:
    make = value_maker(schema)
    assert make is not None
    rng = random.Random(0)
    assert all(re.fullmatch(pattern, str(make(rng))) for _ in range(50))


def test_free_text_cannot_be_made_up() -> None:
    assert value_maker({"type": "string"}) is None


def test_parameters_of_one_kind_share_a_pool() -> None:
    one = _tool("now", timezone={"type": "string", "description": "such as 'Europe/Oslo'"})
    two = _tool("convert", source_timezone={"type": "string"}, time={"type": "string", "description": "HH:MM"})
    pools = make_pools([one, two], random.Random(0))
    assert [[slot.parameter for slot in pool.slots] for pool in pools] == [["timezone", "source_timezone"], ["time"]]
    assert [pool.needs_proposals for pool in pools] == [True, False]


def test_every_value_of_a_large_pool_has_one_side_everywhere() -> None:
    tool = _tool("f", a={"type": "integer", "minimum": 1, "maximum": 40}, b={"type": "integer", "minimum": 20, "maximum": 60})
    pools = make_pools([tool], random.Random(0))
    for pool in pools:
        pool.good = list(pool.candidates)
    split = split_values(pools, 0, 0.4)
    held = {value for pool in pools for value in split.values(pool, "heldout")}
    trained = {value for pool in pools for value in split.values(pool, "train")}
    assert not held & trained
    assert abs(len(split.values(pools[0], "heldout")) - 0.4 * len(pools[0].good)) <= 1
    assert split.sides == split_values(pools, 0, 0.4).sides
    assert split.sides != split_values(pools, 1, 0.4).sides


def test_parts_of_values_are_joined_anew() -> None:
    good = ["Europe/Oslo", "Asia/Tokyo", "Africa/Lagos"]
    joined = recombine(good, ["Asia/Rome", "nonsense"], 100)
    assert "Europe/Rome" in joined
    assert not set(joined) & set(good)
    assert recombine(["Oslo", "Rome", "Lagos"], [], 100) == []


def test_numbers_in_values_are_varied_but_not_in_powers_of_powers() -> None:
    varied = vary_numbers(["3 + 40", "2**2**2", "Rome"], random.Random(0), 20)
    assert len(varied) == 20
    assert all(re.fullmatch(r"\d{1,2} \+ \d{2,3}", value) for value in varied)


class _Scripted(CompletionProposer):
    """Answers as a model would: first pieces, then endings."""

    def __init__(self) -> None:
        super().__init__("http://unused", "", max_tokens_per_parameter=100)
        self.prompts: list[str] = []

    async def _complete(
        self, memory: Any, prompt: str, *, n: int, max_tokens: int, temperature: float, keep_whole: bool = False
    ) -> list[str]:
        self.prompts.append(prompt)
        memory.tokens += n
        return ["slo", "nn;"][:1] if keep_whole else ["O", "O", "B", '"', "\n"]


async def test_a_round_samples_first_pieces_and_finishes_each_once() -> None:
    proposer = _Scripted()
    tool = _tool("now", city={"type": "string", "description": "A city (e.g. 'Oslo')."})
    found = await proposer.propose(tool, "city", tool.properties["city"], ["Rome"], 8)
    assert found == ["Oslo", "Bslo"]
    assert proposer.prompts[0] == '# A city\ncitys = ["Rome", "'
    again = await proposer.propose(tool, "city", tool.properties["city"], ["Rome", "Oslo"], 8)
    assert len(proposer.prompts) == 4  # the pieces were finished before
    assert again == ["Rome"]  # nothing new this round, and not the end


async def test_the_token_budget_ends_proposing() -> None:
    proposer = _Scripted()
    tool = _tool("now", city={"type": "string"})
    rounds = 0
    while await proposer.propose(tool, "city", {}, ["Rome"], 8):
        rounds += 1
    assert rounds <= 7


Schema = dict[str, Any]

_ENDS = st.one_of(st.integers(-50, 50), st.floats(-20, 20), st.sampled_from([0, 0.1, 1e-320, 1e300, -1e308, 10**30, 2**63]))
_STEPS = st.one_of(st.integers(1, 12), st.sampled_from([0.01, 0.1, 0.5, 2.5, 1 / 3, 1e-300, 1e300, 10**25]))
_COUNTS = st.integers(0, 6)
_TEXTS = st.sampled_from(["", "a", "ORD-123", "2024-01-01", "12:30", "x" * 9])
_PATTERNS = st.sampled_from([r"^ORD-[0-9]{3}$", r"^[a-z]+$", "^$", r"a{3}", r"^\d{2}:\d{2}$", r"(?=x)y", r"[^\s\S]"])


def _some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries({}, optional=members)


_NUMBERS = st.builds(
    lambda kind, bounds: {"type": kind, **bounds},
    st.sampled_from(["integer", "number"]),
    _some(minimum=_ENDS, maximum=_ENDS, exclusiveMinimum=_ENDS, exclusiveMaximum=_ENDS, multipleOf=_STEPS),
)
_STRINGS = st.builds(
    lambda bounds: {"type": "string", **bounds},
    _some(
        minLength=_COUNTS,
        maxLength=_COUNTS,
        pattern=_PATTERNS,
        format=st.sampled_from(["date", "date-time", "time", "email", "uuid", "ipv4", "duration"]),
        description=st.sampled_from(["a time as HH:MM", "such as 'Oslo' or 'Rome'"]),
        enum=st.lists(_TEXTS, min_size=1, max_size=3, unique=True),
        const=_TEXTS,
        examples=st.lists(_TEXTS, max_size=2),
    ),
)


def _larger(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    lists = _some(minItems=_COUNTS, maxItems=_COUNTS, uniqueItems=st.booleans(), contains=inner)
    objects = _some(maxProperties=_COUNTS, minProperties=_COUNTS, additionalProperties=st.booleans())
    return st.one_of(
        st.builds(lambda items, bounds: {"type": "array", "items": items, **bounds}, inner, lists),
        st.builds(lambda one, bounds: {"type": "object", "properties": {"a": one}, "required": ["a"], **bounds}, inner, objects),
        st.builds(lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda one, other: {**one, "not": other}, inner, inner),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.one_of(_NUMBERS, _STRINGS, st.just({"type": "boolean"}), st.just({})), _larger, max_leaves=4))
def test_a_made_value_is_valid_under_its_schema(schema: Schema) -> None:
    validator = Draft202012Validator(schema)
    make = value_maker(schema)
    rng = random.Random(1)
    if make is not None:
        assert all(validator.is_valid(make(rng)) for _ in range(8))
    tool = describe_tool("read_it", "", {"type": "object", "properties": {"value": schema}, "required": ["value"]}, (True, None))
    cleaned = Draft202012Validator(tool.properties["value"])  # where a call needs one of several schemas, two may fit
    for pool in make_pools([tool], random.Random(0)):
        pool.make_up(rng, 4)
        assert all(cleaned.is_valid(value) for value in pool.candidates[:20])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 5},
        {"type": "integer", "minimum": 3, "maximum": 1},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 1},
        {"type": "number", "minimum": 0.05, "maximum": 0.09, "multipleOf": 0.1},
        {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 2}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 2},
        {"type": "string", "format": "date", "maxLength": 4},
        {"type": "string", "enum": []},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 1}}, "required": ["a"]},
        {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 1}]},
        {"not": {}},
    ],
)
def test_a_schema_that_no_value_fits_gives_none(schema: Schema) -> None:
    assert value_maker(schema) is None
    tool = describe_tool("read_it", "", {"type": "object", "properties": {"value": schema}, "required": ["value"]}, (True, None))
    assert [pool.candidates for pool in make_pools([tool], random.Random(0))] == [[]]


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 2}, {2}),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2}, {1}),
        ({"type": "integer", "minimum": 0.5, "maximum": 1.5}, {1}),
        ({"type": "number", "minimum": 0.1, "maximum": 0.3, "multipleOf": 0.1}, {0.1, 0.2, 0.3}),
        ({"type": "integer", "multipleOf": 2.5, "minimum": 1, "maximum": 9}, {5}),
        ({"type": "number", "minimum": 7, "maximum": 7}, {7.0}),
        ({"type": "integer", "minimum": 10**30, "maximum": 10**30}, {10**30}),
        ({"anyOf": [{"type": "integer", "minimum": 3, "maximum": 1}, {"type": "boolean"}]}, {True, False}),
    ],
)
def test_what_a_narrow_schema_leaves_is_made(schema: Schema, values: set[Any]) -> None:
    make = value_maker(schema)
    rng = random.Random(0)
    assert make is not None
    assert {make(rng) for _ in range(60)} <= values


@pytest.mark.parametrize("is_mixed", [False, True])
def test_values_that_grow_with_every_level_are_given_up_and_in_time(is_mixed: bool) -> None:
    below: Schema = {"type": "integer"}
    for _ in range(12):
        member = {"type": "object", "properties": {"a": below}, "required": ["a"]} if is_mixed else below
        below = {"type": "array", "items": member, "minItems": 3}
    assert value_maker(below) is None
