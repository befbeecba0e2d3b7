"""JSON schemas of tools: references resolved, titles dropped, arguments checked. Knows nothing of any server.

A small model reads a schema on every turn, so what only repeats the key ("title") goes; what constrains a value stays.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from re import _parser  # type: ignore[attr-defined]  # the reader of patterns, which has no public name
from typing import Any
from urllib.parse import unquote

_DROPPED = frozenset({"title", "$schema", "$id", "$defs", "definitions", "$comment"})
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})
_LITERAL = frozenset({"enum", "const", "default", "examples"})
_WORDS = frozenset({"description", "default", "examples"})
_MAX_DEPTH = 12
_MAX_NODES = 20_000
_MAX_SCHEMAS = 2_000  # checking one takes a millisecond
_MAX_FAULT_CHARS = 200
_MAX_PLACE_CHARS = 80
_MAX_BITS = 1024  # of a whole number: a longer one is no float either
_MAX_SAFE_CHARS = 20  # of a text that a pattern with choices inside repeats may be held against
_FEW = 8


class SchemaFaultError(ValueError):
    """What is wrong with a tool's schema, in words."""


def clean_schema(schema: Any) -> dict[str, Any]:
    """The schema of a tool's arguments with every local `$ref` replaced by what it names.

    A recursive reference becomes a schema that takes anything below the second level. `oneOf` is kept as `anyOf` (a call needs one that
    fits), and an optional value (`anyOf` or `type` with null) becomes the value's own schema.

    A keyword that is null counts as one that is not there: that is how many programs write one that was not given.

    Raises:
        SchemaFaultError: not an object schema, a reference that leads nowhere, not valid as a JSON schema (of draft 2020-12; a pattern must
            be one that Python can read), or too large or too deep to be one.
    """
    if schema is None:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping):
        raise SchemaFaultError(f"the schema is {type(schema).__name__}, not an object")
    cleaned = resolved(schema)
    if cleaned.get("type", "object") != "object":
        raise SchemaFaultError(f"the arguments have type {schema.get('type')!r}, not 'object'")
    properties = cleaned.get("properties", {})
    missing = [name for name in cleaned.get("required", []) if name not in properties]
    if missing:
        raise SchemaFaultError(f"required arguments without a schema: {', '.join(map(str, missing))}")
    return {"type": "object", "properties": {}} | cleaned


def argument_faults(schema: Mapping[str, Any], arguments: Any) -> list[str]:
    """What is wrong with a call's arguments, one line each; empty when they fit. What cannot be checked does not fit, but for a text that a
    pattern might take for ever to read: what that is worth is left to the server."""
    try:
        faults = sorted(_validator(schema).iter_errors(arguments), key=lambda fault: list(map(str, fault.absolute_path)))
    except _uncheckable() as error:
        return [f"the arguments cannot be checked against the schema: {type(error).__name__}"]
    lines = []
    for fault in faults[:3]:
        where = ".".join(str(part) for part in fault.absolute_path)
        lines.append(f"{where}: {fault.message}" if where else str(fault.message))
    known = schema.get("properties")
    if isinstance(arguments, dict) and isinstance(known, Mapping) and not schema.get("additionalProperties"):
        unknown = [name for name in arguments if name not in known and "patternProperties" not in schema]
        lines += [f"unknown argument {name!r}" for name in unknown[:3] if not any(repr(name) in line for line in lines)]
    return lines


def fits(schema: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Whether a value is one that the schema takes, for many values; never for one that JSON cannot hold or that cannot be checked."""
    validator = _validator(schema)

    def is_fit(value: Any) -> bool:
        try:
            return _is_finite(value) and bool(validator.is_valid(value))
        except _uncheckable():
            return False

    return is_fit


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """As `clean_schema`, for a schema of anything. Raises SchemaFaultError."""
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]

    try:
        if not _is_finite(schema):
            raise SchemaFaultError("it holds a number that no program agrees on (NaN, infinity, or one of hundreds of digits)")
        schema = _given(schema, itertools.count())
        with warnings.catch_warnings():
            # Python tells what a pattern may mean some day.
            warnings.simplefilter("ignore", FutureWarning)
            Draft202012Validator.check_schema(schema)
        whole: dict[str, Any] = _resolve(schema, schema, (), itertools.count(), 0)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the schema"
        raise SchemaFaultError(f"{where[-_MAX_PLACE_CHARS:]}: {error.message[:_MAX_FAULT_CHARS]}") from error
    except SchemaFaultError:
        raise
    except _uncheckable() as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else type(error).__name__
        raise SchemaFaultError(f"the schema cannot be checked: {why}") from error
    return whole


def _given(schema: Any, count: Iterator[int]) -> Any:
    """A schema without the keywords that are null, at every depth. Raises SchemaFaultError for one that is too large."""
    if isinstance(schema, list):
        return [_given(one, count) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    if next(count) > _MAX_SCHEMAS:
        raise SchemaFaultError(f"it holds more than {_MAX_SCHEMAS} schemas")
    out = {}
    for key, value in schema.items():
        if key in _LITERAL:
            out[key] = value
        elif value is not None:
            by_name = (key in _BY_NAME or key in ("$defs", "definitions")) and isinstance(value, Mapping)
            out[key] = {name: _given(one, count) for name, one in value.items()} if by_name else _given(value, count)
    return out


def _validator(schema: Mapping[str, Any]) -> Any:
    return _validator_class()(dict(schema))


@functools.cache
def _validator_class() -> Any:
    """The library's, which holds no text against a pattern that might take for ever: nothing can stop Python's `re` then."""
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(validator: Any, wanted: str, text: Any, schema: Any) -> Iterator[Any]:
        del schema
        is_checked = validator.is_type(text, "string") and (len(text) <= _MAX_SAFE_CHARS or not _may_run_away(wanted))
        if is_checked and not re.search(wanted, text):
            yield ValidationError(f"{text!r} does not match {wanted!r}")

    return validators.extend(Draft202012Validator, {"pattern": pattern})


@functools.lru_cache(maxsize=1000)
def _may_run_away(pattern: str) -> bool:
    """Whether a text may be read in as many ways as two to the power of its length: a choice inside a repeat, as in `(a+)+` or `(a|a)*`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _has_choice_in_repeat(_parser.parse(pattern), is_repeated=False)


def _has_choice_in_repeat(node: Any, *, is_repeated: bool) -> bool:
    """`node`: of the tree that Python reads a pattern as, lists of (kind, what it holds)."""
    if not isinstance(node, list | tuple | _parser.SubPattern):
        return False
    if isinstance(node, tuple) and len(node) == 2 and str(node[0]).isupper():
        kind, held = str(node[0]), node[1]
        is_repeat = kind in ("MAX_REPEAT", "MIN_REPEAT")
        if is_repeated and (kind == "BRANCH" or (is_repeat and held[0] != held[1])):
            return True
        return _has_choice_in_repeat(held, is_repeated=is_repeated or (is_repeat and held[1] > _FEW))
    return any(_has_choice_in_repeat(part, is_repeated=is_repeated) for part in node)


def _uncheckable() -> tuple[type[Exception], ...]:
    """What checking a value raises beside its verdict: a reference into nowhere, a number that no float can be, a nesting too deep."""
    from referencing.exceptions import Unresolvable

    return (Unresolvable, ArithmeticError, ValueError, RecursionError, re.error)


def _is_finite(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _MAX_BITS
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_is_finite(part) for part in value.values())
    return not isinstance(value, list) or all(_is_finite(part) for part in value)


def _resolve(node: Any, root: Mapping[str, Any], trail: tuple[str, ...], count: Iterator[int], depth: int) -> Any:
    if next(count) > _MAX_NODES:
        raise SchemaFaultError(f"the schema has more than {_MAX_NODES} parts when its references are resolved")
    if isinstance(node, list):
        return [_resolve(item, root, trail, count, depth + 1) for item in node]
    if not isinstance(node, Mapping):
        return node
    if depth > _MAX_DEPTH:
        return {}
    reference = node.get("$ref", node.get("$dynamicRef"))
    if reference is not None:
        if reference in trail:
            return {}
        named = _look_up(reference, root)
        rest = {key: value for key, value in node.items() if key not in ("$ref", "$dynamicRef")}
        both = _merged(named, rest)
        return _resolve({"allOf": [named, rest]} if both is None else both, root, (*trail, reference), count, depth + 1)
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            out[key] = {name: _resolve(schema, root, trail, count, depth + 1) for name, schema in value.items()}
        elif key not in _DROPPED:
            out[key] = value if key in _LITERAL else _resolve(value, root, trail, count, depth + 1)
    return _simplify(out)


def _look_up(reference: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    if reference == "#":
        return root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise SchemaFaultError(f"reference {reference!r} is not inside the schema")
    node: Any = root
    for part in unquote(reference[2:]).split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            raise SchemaFaultError(f"reference {reference!r} leads nowhere")
    if not isinstance(node, Mapping):
        raise SchemaFaultError(f"reference {reference!r} does not name a schema")
    return node


def _simplify(schema: dict[str, Any]) -> dict[str, Any]:
    """`oneOf` -> `anyOf`, one-branch unions and `value or null` -> the branch itself."""
    schema = _without_null(schema)
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1 and isinstance(schema["allOf"][0], dict):
        schema = _merged(schema["allOf"][0], {key: value for key, value in schema.items() if key != "allOf"}) or schema
    if "oneOf" in schema and "anyOf" in schema:
        return schema
    branches = schema.pop("oneOf", None) or schema.get("anyOf")
    if not isinstance(branches, list):
        return schema
    schema.pop("anyOf", None)
    kept = [branch for branch in branches if not (isinstance(branch, dict) and branch.get("type") == "null")]
    if len(kept) == 1 and isinstance(kept[0], dict):
        inner = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
        merged = _merged(kept[0], inner)
        if merged is not None:
            return merged
    return {**schema, "anyOf": kept}


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema that asks for what both ask for; None where each asks for something else under the same name."""
    asked = (one.keys() & other.keys()) - _WORDS - _DROPPED
    return None if any(one[key] != other[key] for key in asked) else {**one, **other}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """`["string", "null"]` -> `"string"`: a call that means nothing leaves the argument out, or gives a value."""
    kinds = schema.get("type")
    kept = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else []
    if not kept:
        return schema
    out = schema | {"type": kept[0] if len(kept) == 1 else kept}
    if isinstance(out.get("enum"), list):
        out["enum"] = [value for value in out["enum"] if value is not None]
    return {key: value for key, value in out.items() if not (key == "default" and value is None)}
