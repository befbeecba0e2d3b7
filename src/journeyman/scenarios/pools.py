"""Candidate values for the arguments of tools, and which parameters draw from the same pool. Executes nothing (see `explore`).

Values come from the schema alone: enumerations, constants, examples, defaults, numeric ranges, dates and times (by `format`, or by a form
such as HH:MM in the description) and values quoted in the description. What the schema cannot give is proposed by a model (`proposals`)
or seen in results (`explore`); where only a pattern or another format is known, texts of that form are the last resort (`made_texts`).
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.scenarios.made_texts import made_texts
from journeyman.scenarios.schemas import argument_faults
from journeyman.scenarios.tools import McpTool
from journeyman.scenarios.words import split_identifier

Draw = Callable[[random.Random], Any]

_QUOTED = re.compile(r"(?<![A-Za-z0-9])(['\"`])([^'\"`\n]{1,60})\1(?![A-Za-z0-9])")
_WIDE = 100
_DRAWS = 240
_MADE_FOR_LISTS = 24


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter of one tool."""

    tool: str
    parameter: str
    schema: dict[str, Any]
    is_required: bool


@dataclass(slots=True)
class Pool:
    """Values that the slots of one kind share, such as every time zone parameter of a server.

    Attributes:
        is_closed: the schema lists every value (enumeration, flag): such values are not split between training and held-out.
        draw: makes a new value; None when the schema says nothing about how values look.
        good: values that were part of a call that succeeded, in the order found.
        candidates: not tried yet.
        failed: tried without success.
    """

    slots: tuple[Slot, ...]
    schema: dict[str, Any]
    is_closed: bool
    draw: Draw | None
    candidates: list[Any] = field(default_factory=list)
    good: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def offer(self, values: Sequence[Any]) -> int:
        """Add untried values that the schema allows; returns how many were new."""
        added = 0
        for value in values:
            key = canonical(value)
            if key not in self.seen and not argument_faults(self.schema, value):
                self.seen.add(key)
                self.candidates.append(value)
                added += 1
        return added

    def make_up(self, rng: random.Random, count: int) -> int:
        """Offer about `count` texts of the form that the schema asks for; returns how many were new.

        None where the schema names values: those say more of what is meant than a form does.
        """
        if not self.is_text or (self.draw is not None and self.seen) or any(schema_values(slot.schema) for slot in self.slots):
            return 0
        return self.offer([text for slot in self.slots for text in made_texts(slot.schema, rng, count)])

    @property
    def is_text(self) -> bool:
        return self.schema.get("type", "string") == "string" and "enum" not in self.schema

    @property
    def needs_proposals(self) -> bool:
        """Text of which the schema only gives examples, or nothing."""
        return self.is_text and not self.is_closed and self.draw is None


def canonical(value: Any) -> str:
    """A key that is equal for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def make_pools(tools: Sequence[McpTool], rng: random.Random) -> list[Pool]:
    """Pools for all parameters of the tools, filled with what the schemas give."""
    pools: list[Pool] = []
    for tool in tools:
        for name, schema in tool.properties.items():
            slot = Slot(tool.name, name, schema, name in tool.required)
            for pool in pools:
                if _is_same_kind(slot, pool):
                    pool.slots = (*pool.slots, slot)
                    pool.offer(schema_values(schema))
                    break
            else:
                pools.append(_new_pool(slot, rng))
    return pools


def _new_pool(slot: Slot, rng: random.Random) -> Pool:
    draw = value_maker(slot.schema)
    pool = Pool(slots=(slot,), schema=slot.schema, is_closed=is_closed(slot.schema), draw=draw)
    pool.offer(schema_values(slot.schema))
    if draw is not None and not pool.is_closed:
        pool.offer([draw(rng) for _ in range(_DRAWS)])
    return pool


def _is_same_kind(slot: Slot, pool: Pool) -> bool:
    other = pool.slots[0]
    if slot.schema.get("type") != other.schema.get("type") or is_closed(slot.schema) or pool.is_closed:
        return slot.parameter == other.parameter and slot.schema == other.schema
    if slot.schema.get("type", "string") != "string":
        return slot.parameter == other.parameter and slot.schema == other.schema
    quoted = {canonical(value) for value in schema_values(slot.schema)}
    shared = quoted & {canonical(value) for value in schema_values(other.schema)}
    return bool(shared) or split_identifier(slot.parameter)[-1:] == split_identifier(other.parameter)[-1:]


def is_closed(schema: dict[str, Any]) -> bool:
    return "enum" in schema or "const" in schema or schema.get("type") == "boolean"


def schema_values(schema: dict[str, Any]) -> list[Any]:
    """Values that the schema names itself."""
    found: list[Any] = []
    if "const" in schema:
        found.append(schema["const"])
    found += schema.get("enum") or []
    if schema.get("type") == "boolean":
        found += [True, False]
    if isinstance(schema.get("examples"), list):
        found += schema["examples"]
    if schema.get("default") is not None:
        found.append(schema["default"])
    if schema.get("type", "string") == "string" and "enum" not in schema:
        found += [match.group(2).strip() for match in _QUOTED.finditer(str(schema.get("description", "")))]
    unique = {canonical(value): value for value in found if value != ""}
    return list(unique.values())


def value_maker(schema: dict[str, Any]) -> Draw | None:
    """How to make values of a schema without knowing what they are for; None for free text."""
    if isinstance(schema.get("anyOf"), list) and schema["anyOf"]:
        return value_maker(schema["anyOf"][0])
    named = [value for key in ("enum", "examples") for value in schema.get(key) or []]
    if "enum" in schema and named:
        return lambda rng: rng.choice(named)
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    makers: dict[str, Callable[[dict[str, Any]], Draw | None]] = {
        "boolean": lambda _: lambda rng: rng.random() < 0.5,
        "integer": _integers,
        "number": _numbers,
        "string": _texts,
        "array": _lists,
        "object": _objects,
    }
    return makers[kind](schema) if kind in makers else None


def _range(schema: dict[str, Any]) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 1 if high is None or high > 1 else high - _WIDE
    return low, (low + _WIDE if high is None else high)


def _integers(schema: dict[str, Any]) -> Draw:
    low, high = (int(end) for end in _range(schema))
    low += schema.get("exclusiveMinimum") == low and "minimum" not in schema
    high -= schema.get("exclusiveMaximum") == high and "maximum" not in schema
    step = int(schema.get("multipleOf") or 1) or 1
    return lambda rng: rng.randrange(low + (-low) % step, max(low, high) + 1, step)


def _numbers(schema: dict[str, Any]) -> Draw:
    low, high = _range(schema)
    digits = 1 if high - low > 5 else 3
    return lambda rng: round(rng.uniform(low, high), rng.choice([0, digits])) + 0.0


def _texts(schema: dict[str, Any]) -> Draw | None:
    hint = f"{schema.get('format', '')} {schema.get('pattern', '')} {schema.get('description', '')}"
    named = schema.get("format")
    clock = re.search(r"\bHH:?MM(:?SS)?\b", hint, re.IGNORECASE)
    day = named == "date" or re.search(r"\bYYYY-MM-DD\b(?!T)", hint)
    if named == "date-time" or (day and clock) or re.search(r"YYYY-MM-DDT", hint):
        return lambda rng: f"{_day(rng)}T{_clock(rng)}:00Z" if named == "date-time" else f"{_day(rng)}T{_clock(rng)}:00"
    if day:
        return _day
    if named == "time" or clock:
        has_seconds = named == "time" or bool(clock and clock.group(1))
        return lambda rng: _clock(rng) + (":00" if has_seconds else "")
    return None


def _clock(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.choice((0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)):02d}"


def _day(rng: random.Random) -> str:
    return (dt.date(2020, 1, 1) + dt.timedelta(days=rng.randrange(365 * 8))).isoformat()


def _forms(schema: dict[str, Any]) -> list[Any]:
    """Texts of a pattern or format inside a list or an object, where nothing is proposed. The same ones each time."""
    return list(made_texts(schema, random.Random(0), _MADE_FOR_LISTS))


def _lists(schema: dict[str, Any]) -> Draw | None:
    items = schema.get("items")
    item = value_maker(items) if isinstance(items, dict) else None
    if item is None:
        named = (schema_values(items) or _forms(items)) if isinstance(items, dict) else []
        if not named:
            return None
        return lambda rng: rng.sample(named, min(len(named), rng.randint(1, 3)))
    low = int(schema.get("minItems", 2))
    high = max(low, min(int(schema.get("maxItems", low + 2)), low + 2))
    return lambda rng: [item(rng) for _ in range(rng.randint(low, high))]


def _objects(schema: dict[str, Any]) -> Draw | None:
    properties = schema.get("properties") or {}
    makers = {name: _member(properties[name]) for name in schema.get("required") or [] if name in properties}
    if not makers or any(maker is None for maker in makers.values()):
        return None
    return lambda rng: {name: maker(rng) for name, maker in makers.items() if maker is not None}


def _member(schema: dict[str, Any]) -> Draw | None:
    """How to make a member of an object: as a value of its own, else one that the schema names or whose form it states."""
    named = schema_values(schema) or _forms(schema)
    return value_maker(schema) or ((lambda rng: rng.choice(named)) if named else None)
