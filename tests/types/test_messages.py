"""Messages are text: other content is refused by name and place, or marked in the result of a tool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from journeyman.types.messages import Message, has_mark, marked

_TEXT = {"type": "text", "text": "look"}
OTHER_PARTS: list[Any] = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "input_image", "image_url": "https://example.org/a.png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    {"type": "hologram", "text": "a text in a part that is none"},
    {"type": "text", "text": "look", "image_url": {"url": "https://example.org/a.png"}},
    {"type": "text"},
    {"image": "a.png"},
    3,
]


def fault(message: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as caught:
        Message.model_validate(message)
    found: Any = caught.value.errors()[0]
    return dict(found)


@pytest.mark.parametrize("part", [*OTHER_PARTS, {"type": "refusal", "refusal": "No."}])
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_a_part_that_is_no_text_is_refused_with_its_place(role: str, part: Any) -> None:
    found = fault({"role": role, "content": [_TEXT, part]})
    assert (found["type"], found["loc"], found["ctx"]["path"]) == ("unsupported_part", ("content",), (1,))
    assert found["ctx"]["kind"]


@pytest.mark.parametrize("part", OTHER_PARTS)
def test_in_the_result_of_a_tool_a_mark_stands_for_it_and_no_text_is_lost(part: Any) -> None:
    content = Message.model_validate({"role": "tool", "tool_call_id": "a", "content": [_TEXT, part]}).content or ""
    assert content.startswith("look")
    assert has_mark(content)
    assert not isinstance(part, dict) or part.get("text", "") in content


@pytest.mark.parametrize(("besides", "kind"), [({"image": "a.png"}, "image"), ({"video": "b"}, "video")])
def test_a_text_with_something_besides_is_called_after_that(besides: dict[str, str], kind: str) -> None:
    assert fault({"role": "user", "content": [{**_TEXT, **besides}]})["ctx"]["kind"] == kind


def test_what_protocols_add_to_a_text_says_nothing() -> None:
    part = {**_TEXT, "_meta": {"trace": 1}, "annotations": {"audience": ["user"]}, "cache_control": {"type": "ephemeral"}}
    for role in ("user", "tool"):
        assert Message.model_validate({"role": role, "content": [part]}).content == "look"


def test_a_mark_tells_type_and_size() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1648}}
    assert Message.model_validate({"role": "tool", "content": [part]}).content == "[image left out: image/png, 1,236 bytes]"
    assert not has_mark("[1, 2] what was left out: nothing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"id": "audio_1"}),
        ("refusal", "No."),
        ("function_call", {"name": "f", "arguments": "{}"}),
        ("image_url", "a.png"),
        ("reasoning_details", [{"text": "hm"}]),
        ("frobnicate", "x"),
        ("prefix", True),
    ],
)
def test_a_field_that_says_something_and_is_not_known_is_refused(name: str, value: object) -> None:
    found = fault({"role": "assistant", "content": "x", name: value})
    assert (found["type"], found["ctx"]["path"]) == ("unsupported_field", (name,))


def test_what_clients_echo_of_a_reply_passes() -> None:
    echoed = {
        **{"role": "assistant", "content": None, "refusal": None, "audio": None, "function_call": None, "annotations": []},
        **{"reasoning": "hm", "id": "msg_1", "tool_calls": None, "prefix": False},
    }
    assert Message.model_validate(echoed) == Message(role="assistant", reasoning_content="hm")


@given(st.lists(st.text(max_size=8)), st.sampled_from(["user", "tool", "system", "assistant"]))
def test_text_parts_join_to_the_text_in_any_role(texts: list[str], role: str) -> None:
    kinds = ("text", "input_text", "output_text")
    parts: list[Any] = [{"type": kinds[n % 3], "text": text, "cache_control": {"a": 1}} for n, text in enumerate(texts)]
    assert Message.model_validate({"role": role, "content": parts}).content == "".join(texts)


def test_another_models_message_is_kept_for_reading_with_marks() -> None:
    read = marked({"role": "user", "content": [_TEXT, OTHER_PARTS[0]], "audio": {"id": "a"}, "frobnicate": 1})
    assert Message.model_validate(read).content == "look[image left out: image/png, 3 bytes][audio left out]"
    custom = {"type": "custom", "id": "c", "custom": {"name": "sh", "input": "ls"}}
    odd: tuple[tuple[dict[str, Any], str], ...] = (
        ({"role": "assistant", "content": None, "tool_calls": [custom]}, "[custom call left out]"),
        ({"role": "tool", "content": {"total": 21}}, "[total left out]"),
        ({"role": "user", "content": 5}, "[int left out]"),
    )
    assert [Message.model_validate(marked(message)).content for message, _ in odd] == [text for _, text in odd]
    refused = Message.model_validate(marked({"role": "assistant", "content": None, "refusal": "I can't."}))
    assert refused.content == "I can't."
