"""Whatever is drawn under a grammar satisfies it, and a grammar that cannot be followed is a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from journeyman.chat.reply import CALL_CLOSE, CALL_OPEN
from journeyman.engine.local.grammar import GrammarCompiler
from journeyman.errors import EngineError, SettingError
from journeyman.service.requests import ChatRequest, grammar_of
from journeyman.types.sampling import Grammar, JsonSchemaGrammar, LarkGrammar

SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "unit": {"enum": ["day", "hour"]}},
    "required": ["x", "unit"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "pick",
            "parameters": {
                "type": "object",
                "properties": {"item": {"$ref": "#/$defs/Item"}},
                "required": ["item"],
                "$defs": {"Item": {"enum": ["p", "q"]}},
            },
        },
    },
    {"type": "function", "function": {"name": "list", "parameters": {}}},
]


@pytest.fixture(scope="module")
def compiler(tiny_tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tiny_tokenizer, 512)


def draw(compiler: GrammarCompiler, tokenizer: Any, grammar: Grammar, seed: int) -> str:
    """Draw uniformly among the allowed tokens until the sample ends."""
    generator = torch.Generator().manual_seed(seed)
    guide = compiler.start(grammar)
    ids: list[int] = []
    for _ in range(300):
        mask = guide.mask()
        assert mask.shape == (512,)
        assert not mask[len(tokenizer) :].any(), "rows beyond the tokenizer's tokens are never allowed"
        token = int(torch.multinomial(mask.float(), 1, generator=generator))
        guide.advance(token)
        if token == tokenizer.eos_token_id:
            return str(tokenizer.decode(ids))
        ids.append(token)
    raise AssertionError(f"the sample did not end: {tokenizer.decode(ids)}")


@pytest.mark.parametrize("seed", range(5))
def test_a_json_schema_is_satisfied(compiler: GrammarCompiler, tiny_tokenizer: Any, seed: int) -> None:
    value = json.loads(draw(compiler, tiny_tokenizer, JsonSchemaGrammar(json.dumps(SCHEMA)), seed))
    assert 0 <= value["x"] <= 99
    assert value["unit"] in ("day", "hour")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "pick"}}])
def test_a_required_call_names_an_offered_tool_with_valid_arguments(
    compiler: GrammarCompiler, tiny_tokenizer: Any, choice: Any, seed: int
) -> None:
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "tool_choice": choice})
    grammar = grammar_of(request)
    assert grammar is not None
    text = draw(compiler, tiny_tokenizer, grammar, seed)
    call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    if call["name"] == "pick":
        assert call["arguments"]["item"] in ("p", "q")
    else:
        assert choice == "required"
        assert call == {"name": "list", "arguments": {}}


@pytest.mark.parametrize(
    "grammar",
    [
        JsonSchemaGrammar('{"type": "nonsense"}'),
        JsonSchemaGrammar("[1]"),
        JsonSchemaGrammar("{"),
        JsonSchemaGrammar('{"$ref": "http://127.0.0.1:9/schema"}'),
        LarkGrammar("start: unknown_rule"),
    ],
)
def test_an_unusable_schema_is_a_clear_error(compiler: GrammarCompiler, grammar: Grammar) -> None:
    with pytest.raises(SettingError):
        compiler.start(grammar)


def test_a_token_that_was_not_allowed_is_refused(compiler: GrammarCompiler, tiny_tokenizer: Any) -> None:
    guide = compiler.start(JsonSchemaGrammar(json.dumps(SCHEMA)))
    with pytest.raises(EngineError):
        guide.advance(tiny_tokenizer.encode("x")[0])


def test_a_finished_sample_may_only_stop(compiler: GrammarCompiler, tiny_tokenizer: Any) -> None:
    guide = compiler.start(LarkGrammar('start: "hi"'), stop_token_ids=(2, 0))
    for token in tiny_tokenizer.encode("hi"):
        guide.advance(token)
    assert guide.is_finished
    assert guide.mask().nonzero().flatten().tolist() == [0, 2]
    guide.advance(2)


def _tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


_DIGIT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 9}
_OWN_ROOTS: dict[str, dict[str, Any]] = {
    "defs": {"properties": {"a": {"$ref": "#/$defs/X"}}, "required": ["a"], "$defs": {"X": _DIGIT}},
    "definitions": {"properties": {"a": {"$ref": "#/definitions/X"}}, "required": ["a"], "definitions": {"X": {"enum": ["u"]}}},
    "same_name": {"properties": {"a": {"$ref": "#/$defs/X"}}, "required": ["a"], "$defs": {"X": {"const": True}}},
    "root": {"properties": {"n": _DIGIT, "a": {"$ref": "#"}}, "required": ["n"]},
    "property": {"properties": {"name": _DIGIT, "b": {"$ref": "#/properties/name"}}, "required": ["name", "b"]},
    "whole": {"$ref": "#/$defs/X", "$defs": {"X": {"properties": {"a": _DIGIT}, "required": ["a"], "additionalProperties": False}}},
    "anchor": {"properties": {"a": {"$ref": "#here"}}, "required": ["a"], "$defs": {"X": {"$anchor": "here", **_DIGIT}}},
    "nested_id": {
        "$id": "https://example.org/root.json",
        "properties": {"a": {"$ref": "inner.json"}, "b": {"$ref": "#/$defs/Y"}},
        "required": ["a", "b"],
        "$defs": {
            "X": {"$id": "inner.json", "$ref": "#/$defs/Y", "$defs": {"Y": {"enum": ["inner"]}}},
            "Y": {"enum": ["outer"]},
        },
    },
    "tree": {
        "properties": {"t": {"$ref": "#/$defs/T"}},
        "required": ["t"],
        "$defs": {
            "T": {
                "type": "object",
                "properties": {"k": {"type": "array", "items": {"$ref": "#/$defs/T"}, "maxItems": 1}},
                "additionalProperties": False,
            }
        },
    },
    "escaped": {"properties": {"a/b": _DIGIT, "c": {"$ref": "#/properties/a~1b"}}, "required": ["c"]},
    "all_of": {
        "properties": {"a": _DIGIT},
        "allOf": [{"properties": {"a": True, "b": {"$ref": "#/properties/a"}}, "required": ["b"], "additionalProperties": False}],
        "required": ["a"],
    },
}


@pytest.mark.parametrize("forced", [*_OWN_ROOTS, "required"])
def test_references_are_resolved_from_the_root_of_the_tools_own_schema(compiler: GrammarCompiler, tiny_tokenizer: Any, forced: str) -> None:
    tools = [_tool(name, schema) for name, schema in _OWN_ROOTS.items()]
    choice = forced if forced == "required" else {"type": "function", "function": {"name": forced}}
    body = {"messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": choice}
    grammar = grammar_of(ChatRequest.model_validate(body))
    assert grammar is not None
    for seed in range(4):
        text = draw(compiler, tiny_tokenizer, grammar, seed)
        call = json.loads(text.removeprefix(CALL_OPEN).removesuffix(CALL_CLOSE))
        assert list(call) == ["name", "arguments"]
        assert forced in ("required", call["name"])
        Draft202012Validator(_OWN_ROOTS[call["name"]]).validate(call["arguments"])


@pytest.mark.parametrize("name", ["get_time", "a.b/c", 'with "quotes"', "back\\slash", "zeit_für_ü", "line\nend"])
def test_a_tools_name_is_written_as_json_has_it(compiler: GrammarCompiler, tiny_tokenizer: Any, name: str) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [_tool(name, {})], "tool_choice": "required"}
    grammar = grammar_of(ChatRequest.model_validate(body))
    assert grammar is not None
    assert (
        draw(compiler, tiny_tokenizer, grammar, 0)
        == f'{CALL_OPEN}{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {{}}}}{CALL_CLOSE}'
    )


@pytest.mark.parametrize("parameters", [{"properties": {"a": _DIGIT}}, {"type": ["object", "null"], "properties": {}}, {"required": ["a"]}])
def test_arguments_are_an_object_whatever_the_schema_leaves_open(
    compiler: GrammarCompiler, tiny_tokenizer: Any, parameters: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [_tool("f", parameters)], "tool_choice": "required"}
    grammar = grammar_of(ChatRequest.model_validate(body))
    assert grammar is not None
    guide = compiler.start(grammar)
    for token in tiny_tokenizer.encode(f'{CALL_OPEN}{{"name": "f", "arguments": ', add_special_tokens=False):
        guide.advance(token)
    allowed = [tiny_tokenizer.decode([token]) for token in guide.mask().nonzero().flatten().tolist()]
    assert allowed
    assert all(text.startswith("{") for text in allowed)


def test_what_a_tool_requires_without_declaring_it_can_be_given(compiler: GrammarCompiler, tiny_tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"a": _DIGIT}, "required": ["a", "b"]}
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [_tool("f", schema)], "tool_choice": "required"}
    grammar = grammar_of(ChatRequest.model_validate(body))
    assert grammar is not None
    guide = compiler.start(grammar)
    for token in tiny_tokenizer.encode(
        f'{CALL_OPEN}{{"name": "f", "arguments": {{"a": 1, "b": "x"}}}}{CALL_CLOSE}', add_special_tokens=False
    ):
        guide.advance(token)


@pytest.mark.parametrize("kind", ["string", "array", ["string", "null"]])
def test_a_tool_whose_arguments_would_be_no_object_cannot_be_forced(kind: object) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [_tool("f", {"type": kind})], "tool_choice": "required"}
    with pytest.raises(SettingError) as caught:
        grammar_of(ChatRequest.model_validate(body))
    assert caught.value.reason == "parameters_no_object"


_UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "endless": (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}},
        },
        '{"a": ',
    ),
    "wide": ({"type": "object", "properties": {f"p{n}": {"type": "string", "pattern": f"^x{n}.*y$"} for n in range(2000)}}, '{"p1'),
    "long": ({"type": "array", "minItems": 10**7, "items": {"type": "null"}}, "[null"),
}


@pytest.mark.parametrize("kind", _UNUSABLE)
def test_a_schema_without_an_end_or_too_large_is_the_callers_error(compiler: GrammarCompiler, tiny_tokenizer: Any, kind: str) -> None:
    schema, text = _UNUSABLE[kind]
    guide = compiler.start(JsonSchemaGrammar(json.dumps(schema)))

    def follow() -> None:
        for token in tiny_tokenizer.encode(text, add_special_tokens=False):
            guide.mask()
            guide.advance(token)
        guide.mask()

    with pytest.raises(SettingError) as caught:
        follow()
    assert caught.value.reason == "grammar_dead_end"
    assert len(caught.value.message) < 200
