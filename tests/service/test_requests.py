"""Every field of a model call is honoured, refused by name, or known to change nothing; docs/server.md says which."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from journeyman.service.requests import IGNORED, UNSUPPORTED, ChatRequest, CompletionRequest

KINDS: list[tuple[type[ChatRequest] | type[CompletionRequest], dict[str, Any]]] = [
    (ChatRequest, {"messages": [{"role": "user", "content": "x"}]}),
    (CompletionRequest, {"prompt": "x"}),
]
HONOURED = {"max_completion_tokens", *ChatRequest.model_fields, *CompletionRequest.model_fields}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "server.md"


def refusal(kind: type[ChatRequest] | type[CompletionRequest], body: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    found: Any = caught.value.errors()[0]
    return dict(found)


@pytest.mark.parametrize(("kind", "body"), KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("repetition_penalty", 1.1), ("min_p", 0.1), ("guided_json", {}), ("guided_json", "{}"), ("guided_regex", "a+")],
        *[("guided_choice", ["a"]), ("stop_token_ids", [2]), ("min_tokens", 5), ("best_of", 2), ("echo", True), ("ignore_eos", True)],
        *[("logit_bias", {"5": 1}), ("presence_penalty", -0.5), ("frequency_penalty", 2), ("chat_template_kwargs", {"a": 1})],
        *[("typical_p", 0.9), ("bad_words", ["a"]), ("reasoning_effort", "low"), ("structured_outputs", {"regex": "a"})],
    ],
)
def test_what_would_change_the_text_is_refused_by_name(kind: Any, body: dict[str, Any], name: str, value: object) -> None:
    found = refusal(kind, {**body, name: value})
    assert (found["type"], found["ctx"]["path"]) == ("unsupported_parameter", (name,))


@pytest.mark.parametrize(("kind", "body"), KINDS)
@given(st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), st.one_of(st.integers(), st.text(), st.lists(st.integers()), st.booleans()))
def test_a_field_that_nobody_has_heard_of_is_refused_by_name(kind: Any, body: dict[str, Any], name: str, value: object) -> None:
    if name not in {*HONOURED, *IGNORED, *UNSUPPORTED}:
        found = refusal(kind, {**body, name: value})
        assert (found["type"], found["ctx"]["path"]) == ("unknown_parameter", (name,))


@pytest.mark.parametrize(("kind", "body"), KINDS)
def test_neutral_values_null_and_what_changes_nothing_pass(kind: Any, body: dict[str, Any]) -> None:
    plain = kind.model_validate(body)
    neutral = [(name, value) for name, values in UNSUPPORTED.items() for value in (*values, None)]
    floats = [(name, float(value)) for name, value in neutral if type(value) is int]
    for name, value in [*neutral, *floats, *((name, "anything") for name in IGNORED), ("frobnicate", None)]:
        assert kind.model_validate({**body, name: value}) == plain, name


def test_all_refused_fields_of_a_request_are_told_at_once() -> None:
    kind, body = KINDS[0]
    shown = refusal(kind, {**body, "min_p": 0.5, "ignore_eos": True, "frob": 1})["ctx"]["shown"]
    assert all(name in shown for name in ("min_p=0.5", "ignore_eos=True", "frob=1"))


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "regex", "regex": "a"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_object", "schema": {"type": "object"}},
        {"type": "json_object", "json_schema": {"schema": {}}},
        {"type": "text", "json_schema": {"schema": {}}},
    ],
)
def test_forms_of_a_reply_that_cannot_be_held_are_refused(response_format: dict[str, Any]) -> None:
    kind, body = KINDS[0]
    assert refusal(kind, {**body, "response_format": response_format})["loc"][0] == "response_format"


@pytest.mark.parametrize(
    "choice",
    [
        *[{"type": "function", "function": function} for function in ("x", 3, [], ["name"], None, {}, {"name": 3}, {"name": ["f"]})],
        *[{"type": kind, "function": {"name": "f"}} for kind in ("custom", "allowed_tools", 3, True)],
        *["f", 3, [], {}, {"type": "function"}, {"name": "f"}],
    ],
)
def test_a_choice_of_a_tool_that_cannot_be_read_is_refused(choice: object) -> None:
    request, body = KINDS[0]
    found = refusal(request, {**body, "tools": [{"function": {"name": "f"}}], "tool_choice": choice})
    assert (found["loc"], found["type"]) == (("tool_choice",), "value_error")


def test_options_of_a_stream_are_held_to_the_same() -> None:
    kind, body = KINDS[0]
    assert kind.model_validate({**body, "stream_options": {"include_usage": True, "include_obfuscation": False}}).include_usage
    found = refusal(kind, {**body, "stream_options": {"continuous_usage_stats": True}})
    assert (found["type"], found["loc"], found["ctx"]["path"]) == (
        "unsupported_parameter",
        ("stream_options",),
        ("continuous_usage_stats",),
    )


@pytest.mark.parametrize(
    ("fields", "place", "error"),
    [
        ({"n": 0}, ("n",), "greater_than_equal"),
        ({"n": 129}, ("n",), "less_than_equal"),
        ({"top_k": -2}, ("top_k",), "greater_than_equal"),
        ({"top_p": 0.0}, ("top_p",), "greater_than"),
        ({"temperature": -0.1}, ("temperature",), "greater_than_equal"),
        ({"max_tokens": 0}, ("max_tokens",), "greater_than_equal"),
        ({"stop": ["a"] * 17}, ("stop",), "too_long"),
        ({"prompt": "lost"}, (), "unknown_parameter"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, (), "value_error"),
        ({"tool_choice": "required"}, (), "value_error"),
    ],
)
def test_settings_that_contradict_or_are_out_of_range_are_refused(fields: dict[str, Any], place: tuple[str, ...], error: str) -> None:
    kind, body = KINDS[0]
    found = refusal(kind, {**body, **fields})
    assert (found["loc"], found["type"]) == (place, error)


@pytest.mark.parametrize(
    "fields",
    [{"api_key": "planted-value"}, {"extra_headers": {"X": "planted-value"}}, {"auth": {"password": "planted-value"}}],
)
def test_a_secret_that_was_sent_as_a_field_is_not_quoted(fields: dict[str, Any]) -> None:
    kind, body = KINDS[0]
    found = refusal(kind, {**body, **fields})
    assert found["type"] == "unknown_parameter"
    assert "planted-value" not in found["msg"]


def test_the_documented_table_is_the_one_of_the_code() -> None:
    told: dict[str, dict[str, set[str]]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").partition("## Fields")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] in ("honoured", "ignored", "refused"):
            kind = told.setdefault(cells[0], {})
            neutral = set(re.findall(r"`([^`]*)`", cells[2]))
            kind.update({name: neutral for name in re.findall(r"`([^`]*)`", cells[1])})
    assert set(told["honoured"]) == HONOURED
    assert set(told["ignored"]) == IGNORED
    assert told["refused"] == {name: {json.dumps(value) for value in values} for name, values in UNSUPPORTED.items()}
