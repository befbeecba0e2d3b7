"""Whatever is drawn under a grammar satisfies it, and a grammar that cannot be followed is a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from journeyman.engine.local.grammar import GrammarCompiler
from journeyman.errors import EngineError, SettingError
from journeyman.service.constraints import grammar_of
from journeyman.service.requests import ChatRequest
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
