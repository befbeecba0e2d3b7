"""Cleaning schemas and checking arguments."""

from __future__ import annotations

import pytest

from journeyman.mcp.schemas import SchemaFaultError, argument_faults, clean_schema


def test_titles_of_schemas_go_and_a_property_called_title_stays() -> None:
    given = {"type": "object", "title": "T", "properties": {"title": {"type": "string", "title": "Title"}}}
    assert clean_schema(given) == {"type": "object", "properties": {"title": {"type": "string"}}}


def test_an_optional_value_is_its_own_schema() -> None:
    given = {"type": "object", "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}}}
    assert clean_schema(given)["properties"]["a"] == {"type": "integer"}


def test_a_type_that_may_be_null_is_the_other_type() -> None:
    given = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "enum": ["x", None], "default": None},
            "b": {"type": ["null", "integer", "string"]},
            "c": {"type": "null"},
        },
    }
    assert clean_schema(given)["properties"] == {
        "a": {"type": "string", "enum": ["x"]},
        "b": {"type": ["integer", "string"]},
        "c": {"type": "null"},
    }


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    cleaned = clean_schema({"type": "object", "properties": {"first": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}})
    assert cleaned["properties"]["first"]["properties"]["next"] == {}


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"type": "string"},
        {"type": "object", "properties": {"a": {"type": "nothing"}}},
        {"type": "object", "properties": {}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "other.json#/x"}}},
    ],
)
def test_what_is_no_object_schema_is_refused(schema: object) -> None:
    with pytest.raises(SchemaFaultError):
        clean_schema(schema)


def test_no_schema_means_no_arguments() -> None:
    assert clean_schema(None)["properties"] == {}


def test_faults_name_the_argument() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert argument_faults(schema, {"a": 1}) == []
    assert "'a'" in argument_faults(schema, {})[0]
    assert argument_faults(schema, {"a": "x"})[0].startswith("a: ")
    assert argument_faults(schema, {"a": 1, "b": 2}) == ["unknown argument 'b'"]
    assert argument_faults(schema, [1])


@pytest.mark.parametrize(
    "pattern", [r"^(a+)+$", r"^(\w+\s?)*$", r"^([a-z0-9]+[-_]?)+$", r"^(a|aa)+$", r"^((a?b?)+c?)*$", r"^(?:x|(ab|a|b)*)$", r"^(.*)*@x$"]
)
def test_a_pattern_that_python_would_read_for_ever_holds_nobody_up(pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert argument_faults(schema, {"a": "a" * 60 + "!"}) == []
    assert len(argument_faults(schema, {"a": "a!"})) == len(argument_faults(schema, {"a": 1})) == 1
    assert argument_faults(schema, {"a": "a" * 60}) == []


@pytest.mark.parametrize(
    "pattern", [r"^[a-z]{3,}$", r"^\d{4}-\d{2}-\d{2}.*$", r"^(foo|bar)-[a-z]+$", r"^[^/]+/[^/]+$", r"^(?:[a-z]{2}){1,5}$"]
)
def test_other_patterns_are_held_against_texts_of_any_length(pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert len(argument_faults(schema, {"a": "!" * 100})) == 1
