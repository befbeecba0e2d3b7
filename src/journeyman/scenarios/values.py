"""Values that a schema takes, made of the schema alone: those it names, numbers in its ranges, dates and times, lists and objects of them.

What the schema cannot give is proposed by a model (`proposals`) or seen in results (`explore`); where only a pattern or another format is
known, texts of that form are the last resort (`texts`). Executes nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from journeyman.mcp.schemas import argument_faults, fits
from journeyman.scenarios.texts import Draw, made_texts, moments

_QUOTED = re.compile(r"(?<![A-Za-z0-9])(['\"`])([^'\"`\n]{1,60})\1(?![A-Za-z0-9])")
_WIDE = 100
_MADE_FOR_LISTS = 24
_TRIES = 60
_MAX_ITEMS = 100
_MAX_NAMED = 1000
_MAX_CHARS = 4000
_RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def canonical(value: Any) -> str:
    """A key that is equal for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def is_closed(schema: Mapping[str, Any]) -> bool:
    return "enum" in schema or "const" in schema or schema.get("type") == "boolean"


def schema_values(schema: Mapping[str, Any]) -> list[Any]:
    """Values that the schema names itself."""
    named: list[Any] = []
    if "const" in schema:
        named.append(schema["const"])
    named += schema.get("enum") or []
    if schema.get("type") == "boolean":
        named += [True, False]
    if isinstance(schema.get("examples"), list):
        named += schema["examples"]
    if schema.get("default") is not None:
        named.append(schema["default"])
    if schema.get("type", "string") == "string" and "enum" not in schema:
        named += [match.group(2).strip() for match in _QUOTED.finditer(str(schema.get("description", "")))]
    unique = {canonical(value): value for value in named[:_MAX_NAMED] if value != ""}
    return list(unique.values())


def value_maker(schema: Mapping[str, Any]) -> Draw | None:
    """How to make values that a schema takes, without knowing what they are for. None for free text, and where none was found: what a
    schema asks for may leave little (a step and a range, a form and a length), or nothing, or only what is too long for a call.

    Example:
        >>> value_maker({"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 5}) is None
        True
    """
    is_fit = fits(schema)
    for draw in _ways(schema):
        rng = random.Random(0)
        drawn = itertools.takewhile(_is_short, (draw(rng) for _ in range(_TRIES)))
        spare = next(([value] for value in drawn if is_fit(value)), None)
        if spare is not None:
            return lambda rng, draw=draw, spare=spare: next(  # type: ignore[misc]
                (value for value in (draw(rng) for _ in range(_TRIES)) if is_fit(value)), spare[0]
            )
    return None


def _is_short(value: Any) -> bool:
    return len(canonical(value)) <= _MAX_CHARS


def _ways(schema: Mapping[str, Any]) -> Iterator[Draw]:
    """Ways to draw values of about the right kind, the likeliest first; whether they fit is for the caller to see."""
    if "const" in schema or "enum" in schema:
        named = list(filter(fits(schema), [schema["const"]] if "const" in schema else schema["enum"][:_MAX_NAMED]))
        if named:
            yield _one_of(named)
        return
    for key in ("anyOf", "oneOf"):
        rest = {name: value for name, value in schema.items() if name != key}
        for branch in schema.get(key) or ():
            draw = value_maker(_joined(rest, branch)) if isinstance(branch, Mapping) else None
            if draw is not None:
                yield draw
            elif isinstance(branch, Mapping) and "string" in _kinds(branch):
                return  # text is the likelier answer, and others propose it
    if schema.get("allOf"):
        rest = {name: value for name, value in schema.items() if name != "allOf"}
        draw = value_maker(_joined(rest, *(part for part in schema["allOf"] if isinstance(part, Mapping))))
        if draw is not None:
            yield draw
    for kind in _kinds(schema):
        yield from _of_kind(kind, schema)


def _of_kind(kind: str, schema: Mapping[str, Any]) -> Iterator[Draw]:
    makers = {"integer": _integers, "number": _numbers, "string": moments, "object": _objects}
    if kind == "boolean":
        yield lambda rng: rng.random() < 0.5
    elif kind == "array":
        yield from _lists(schema)
    elif kind in makers and (draw := makers[kind](schema)) is not None:
        yield draw


def _joined(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One schema of several that hold together; where two speak of the same, the last is taken."""
    out: dict[str, Any] = {}
    for part in parts:
        both = {key: {**out[key], **part[key]} for key in ("properties",) if isinstance(out.get(key), Mapping) and key in part}
        required = [*out.get("required", ()), *part.get("required", ())]
        out |= {**part, **both, **({"required": required} if required else {})}
    return out


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema allows; guessed from what else it says when it does not say."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return [kind]
    if isinstance(kind, list):
        return [name for name in kind if isinstance(name, str)]
    if "properties" in schema:
        return ["object"]
    if "items" in schema:
        return ["array"]
    return ["number"] if any(key in schema for key in _RANGES) else ["string"]


def _end(schema: Mapping[str, Any], choose: Callable[[list[Fraction]], Fraction], *keys: str) -> Fraction | None:
    """The bound that holds, of one that includes its value and one that does not."""
    ends = [end for end in (_exact(schema.get(key)) for key in keys) if end is not None]
    return choose(ends) if ends else None


def _exact(value: object) -> Fraction | None:
    """A number as it is written: 0.1 is a tenth. None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return Fraction(value) if isinstance(value, int) else Fraction(str(value))


def _range(schema: Mapping[str, Any], step: Fraction | int) -> tuple[Fraction, Fraction]:
    """Where to draw numbers: as far as the schema says, and about a hundred steps where it says nothing."""
    low, high = _end(schema, max, "minimum", "exclusiveMinimum"), _end(schema, min, "maximum", "exclusiveMaximum")
    wide = _WIDE * max(step, 1)
    if low is None:
        low = Fraction(1) if high is None or high > 1 else high - wide
    return low, (low + wide if high is None else high)


def _step(schema: Mapping[str, Any]) -> Fraction | None:
    step = _exact(schema.get("multipleOf"))
    return step if step is not None and step > 0 else None


def _multiples(low: Fraction, high: Fraction, step: Fraction) -> range:
    return range(math.ceil(low / step), math.floor(high / step) + 1)


def _integers(schema: Mapping[str, Any]) -> Draw | None:
    # The whole numbers among the multiples of 5/2 are the multiples of 5.
    step = Fraction((_step(schema) or Fraction(1)).numerator)
    low, high = _range(schema, step)
    low += Fraction(1, 2) * (schema.get("exclusiveMinimum") == low)
    high -= Fraction(1, 2) * (schema.get("exclusiveMaximum") == high)
    places = _multiples(low, high, step)
    return (lambda rng: int(step) * (places.start + _below(rng, places))) if places else None


def _below(rng: random.Random, places: range) -> int:
    return rng.randrange(places.stop - places.start)  # a range may be longer than len() can say


def _numbers(schema: Mapping[str, Any]) -> Draw | None:
    step = _step(schema)
    low, high = _range(schema, step or 1)
    if step is not None:
        places = _multiples(low, high, step)
        return (lambda rng: _float(step * (places.start + _below(rng, places)))) if places else None
    width = _float(high - low)
    digits = 1 if width > 5 else 3 if width > 0.05 else 2 - math.floor(math.log10(width)) if width > 0 else 17
    return lambda rng: round(_float(low + (high - low) * Fraction(rng.random())), rng.choice([0, digits])) + 0.0


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _lists(schema: Mapping[str, Any]) -> Iterator[Draw]:
    """A few different ones of the values that the schema names for items, or whose form it states; else as many as it asks for."""
    items = schema.get("items")
    item = value_maker(items) if isinstance(items, Mapping) else None
    if item is None and isinstance(items, Mapping) and (named := _named(items)):
        yield lambda rng: rng.sample(named, min(len(named), rng.randint(1, 3)))
        item = _one_of(named)
    most = _whole(schema.get("maxItems"), _MAX_ITEMS)
    low = _whole(schema.get("minItems"), min(2, most))
    high = min(most, low + 2)
    if item is None or high < low or low > _MAX_ITEMS:
        return

    def draw(rng: random.Random) -> list[Any]:
        count = rng.randint(low, high)
        items_drawn = [item(rng) for _ in range(count)]
        if not schema.get("uniqueItems"):
            return items_drawn
        items_drawn += [item(rng) for _ in range(3 * count)]
        return list({canonical(value): value for value in items_drawn}.values())[:count]

    yield draw


def _whole(value: object, default: int) -> int:
    """A number of items, where the schema gives one (2.0 is one)."""
    count = _exact(value)
    return default if count is None else int(count)


def _objects(schema: Mapping[str, Any]) -> Draw | None:
    """With all members that are required, and no other."""
    properties = schema.get("properties") or {}
    makers = {name: _member(properties.get(name)) for name in dict.fromkeys(schema.get("required") or ())}
    usable = {name: maker for name, maker in makers.items() if maker is not None}
    if not usable or len(usable) < len(makers):
        return None
    return lambda rng: {name: maker(rng) for name, maker in usable.items()}


def _member(schema: object) -> Draw | None:
    """How to make a value inside a list or an object, where nothing is proposed: as a value of its own, else one that the schema names
    or whose form it states (the same ones each time)."""
    if not isinstance(schema, Mapping):
        return None
    draw = value_maker(schema)
    return draw or (_one_of(named) if (named := _named(schema)) else None)


def _one_of(values: Sequence[Any]) -> Draw:
    return lambda rng: rng.choice(values)


def _named(schema: Mapping[str, Any]) -> list[Any]:
    named = [value for value in schema_values(schema) if not argument_faults(schema, value)]
    return named or list(made_texts(schema, random.Random(0), _MADE_FOR_LISTS))
