"""Where values come from: schemas, proposals, recombination; and which side of the split they are on."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

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
