"""Texts of the form that a pattern or a format asks for."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from journeyman.mcp.tools import describe_tool
from journeyman.scenarios.explore import make_pools
from journeyman.scenarios.texts import made_texts, matching_texts
from journeyman.scenarios.values import value_maker


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}$",
        r"^ORD-\d{4,6}$",
        r"^(?:[01]\d|2[0-3]):[0-5]\d$",
        r"^#?([a-f0-9]{6}|[a-f0-9]{3})$",
        r"^v\d+(\.\d+){1,2}?$",
        r"^[\w.+-]+@[a-z]+\.(com|org)$",
        r"^[^\]\s]{2}\/[]x]$",
        r"^(?P<year>\d{4})-(?P<month>0[1-9])$",
        r"^[a-z]{5}$|^[0-9]{5}$",
        r"^(x{0,1000}){0,3}$",
    ],
)
def test_every_text_matches_the_whole_pattern(pattern: str) -> None:
    found = matching_texts(pattern, random.Random(0), 12)
    assert len(set(found)) == len(found) >= 2
    assert all(re.fullmatch(pattern, text) for text in found)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"[A-Z]{3}", "says nothing of the rest of the value"),
        (r"^https://", "only its beginning"),
        (r"^a|b$", "an alternative without both anchors"),
        (r"^(?!x)[a-z]$", "look-around"),
        (r"^(\w)\1$", "a back reference"),
        (r"^\bx$", "a word boundary"),
        (r"^(?i:x)$", "a flag"),
        (r"^(a{50}){50}$", "longer than any value"),
        (r"^((((((((a+)+)+)+)+)+)+)+)$", "quantifiers in quantifiers"),
        (r"^[a-$", "not a pattern"),
        (r"^$", "nothing"),
    ],
)
def test_a_pattern_outside_the_subset_yields_nothing(pattern: str, why: str) -> None:
    assert matching_texts(pattern, random.Random(0), 4) == [], why


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("email", r"[a-z]+\.[a-z]+@example\.(com|org|net)"),
        ("uri", r"https://example\.\w+/[a-z]+/[a-z]+"),
        ("uuid", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("ipv4", r"(192\.0\.2|198\.51\.100|203\.0\.113)\.\d+"),
        ("hostname", r"[a-z]+\.example\.\w+"),
    ],
)
def test_a_format_gives_texts_that_reach_nobody(form: str, pattern: str) -> None:
    found = made_texts({"type": "string", "format": form}, random.Random(0), 8)
    assert len(found) == 8
    assert all(re.fullmatch(pattern, text) for text in found)


def test_texts_obey_the_rest_of_the_schema_too() -> None:
    found = made_texts({"type": "string", "pattern": "^[a-z]{2,6}$", "minLength": 5}, random.Random(0), 6)
    assert found
    assert all(len(text) >= 5 for text in found)
    assert made_texts({"type": "string", "format": "unheard-of"}, random.Random(0), 6) == []
    assert made_texts({"type": "integer", "pattern": "^[a-z]$"}, random.Random(0), 6) == []


def _pool(schema: dict[str, Any]) -> Any:
    tool = describe_tool("f", "", {"type": "object", "properties": {"a": schema}, "required": ["a"]}, (True, False))
    return make_pools([tool], random.Random(0))[0]


def test_only_a_parameter_without_named_values_gets_made_up_ones() -> None:
    assert _pool({"type": "string", "pattern": "^[A-Z]{3}$"}).make_up(random.Random(0), 6) == 6
    named = _pool({"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"]})
    assert named.make_up(random.Random(0), 6) == 0
    assert named.candidates == ["EUR"]


def test_members_of_lists_and_objects_are_made_up_or_taken_from_what_the_schema_names() -> None:
    codes = value_maker({"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}$"}})
    both = {"code": {"type": "string", "pattern": "^[A-Z]{2}$"}, "unit": {"type": "string", "default": "cm"}}
    boxes = value_maker({"type": "object", "properties": both, "required": ["code", "unit"]})
    assert codes is not None
    assert boxes is not None
    rng = random.Random(0)
    assert all(re.fullmatch("[A-Z]{2}", text) for text in codes(rng))
    box = boxes(rng)
    assert re.fullmatch("[A-Z]{2}", box["code"])
    assert box["unit"] == "cm"
