"""Rows of every format become the examples they mean; what a row lacks is said with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.data import Loaded, read_rows, sft_examples
from journeyman.errors import InputError, SettingError
from journeyman.types.training import SftExample, TextExample

TOOL = {"name": "get_time", "description": "The time.", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
USER = {"role": "user", "content": "hi"}
CALL = {"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}


def one(row: dict[str, Any], **choices: Any) -> SftExample:
    (example,) = sft_examples([row], **choices).examples
    assert isinstance(example, SftExample)
    return example


def text(row: dict[str, Any], **choices: Any) -> TextExample:
    (example,) = sft_examples([row], **choices).examples
    assert isinstance(example, TextExample)
    return example


def spoken(example: SftExample) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in example.messages]


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in (turn.split(":", 1) for turn in turns)]


def test_messages_are_read_as_they_are() -> None:
    example = one({"messages": chat("system:Be brief.", "user:hi", "assistant:hello"), "id": 7})
    assert spoken(example) == [("system", "Be brief."), ("user", "hi"), ("assistant", "hello")]
    assert (example.num_given, example.tools) == (0, ())


@pytest.mark.parametrize("tools", [[TOOL], [{"type": "function", "function": TOOL}], json.dumps([TOOL]), [json.dumps(TOOL)]])
def test_tools_come_as_a_list_or_as_json_text_with_and_without_a_wrapper(tools: Any) -> None:
    example = one({"messages": chat("user:hi", "assistant:hello"), "tools": tools})
    assert [tool.function.name for tool in example.tools] == ["get_time"]
    assert example.tools[0].function.parameters == TOOL["parameters"]


@pytest.mark.parametrize("empty", [None, [], "", "[]"])
def test_no_tools_come_in_several_ways(empty: Any) -> None:
    assert one({"messages": chat("user:hi", "assistant:hello"), "tools": empty}).tools == ()


@pytest.mark.parametrize(
    "call",
    [
        {"id": "abc", "type": "function", "function": CALL},
        {"id": "abc", "function": {**CALL, "arguments": json.dumps(CALL["arguments"])}},
        {"id": "abc", **CALL},
    ],
    ids=["arguments-as-object", "arguments-as-text", "bare"],
)
def test_tool_arguments_come_as_an_object_or_as_json_text(call: dict[str, Any]) -> None:
    turns = [*chat("user:When?"), {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "noon"}]
    example = one({"messages": [*turns, *chat("assistant:Noon.")]})
    asked, answered = example.messages[1], example.messages[2]
    assert json.loads(asked.tool_calls[0].function.arguments) == CALL["arguments"]
    assert asked.tool_calls[0].id == answered.tool_call_id == "abc"


def test_messages_may_be_json_text() -> None:
    assert spoken(one({"messages": json.dumps(chat("user:hi", "assistant:hello"))})) == [("user", "hi"), ("assistant", "hello")]


def test_sharegpt_with_calls_results_and_a_system_column() -> None:
    turns = [
        {"from": "human", "value": "When?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "noon"},
        {"from": "gpt", "value": "Noon."},
    ]
    example = one({"conversations": turns, "system": "Be brief.", "tools": json.dumps([TOOL])})
    assert [message.role for message in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[2].tool_calls[0].function.name == "get_time"
    assert example.messages[2].tool_calls[0].id == example.messages[3].tool_call_id
    assert [tool.function.name for tool in example.tools] == ["get_time"]


def test_results_of_several_calls_are_matched_in_order() -> None:
    turns = [
        {"from": "user", "value": "When?"},
        {"from": "tool_call", "value": json.dumps([CALL, CALL])},
        {"from": "tool", "value": "noon"},
        {"from": "tool", "value": "one"},
        {"from": "gpt", "value": "Noon."},
    ]
    _, asked, first, second, _ = one({"conversations": turns}).messages
    assert [call.id for call in asked.tool_calls] == [first.tool_call_id, second.tool_call_id]
    assert first.tool_call_id != second.tool_call_id


def test_prompt_and_completion_texts_are_taken_without_a_template() -> None:
    assert text({"prompt": "2+2=", "completion": "4"}) == TextExample(text="4", prompt="2+2=")


def test_prompt_and_completion_of_messages_train_the_completion_only() -> None:
    row = {"prompt": chat("user:a", "assistant:b", "user:c"), "completion": chat("assistant:d"), "tools": [TOOL]}
    example = one(row)
    assert example.num_given == 3
    assert [content for _, content in spoken(example)] == ["a", "b", "c", "d"]
    assert len(example.tools) == 1


def test_alpaca_with_input_system_and_history() -> None:
    row = {"instruction": "Add.", "input": "2, 2", "output": "4", "system": "Be brief.", "history": [["hi", "hello"]]}
    assert spoken(one(row)) == [
        ("system", "Be brief."), ("user", "hi"), ("assistant", "hello"), ("user", "Add.\n2, 2"), ("assistant", "4"),
    ]  # fmt: skip
    assert spoken(one({"instruction": "Add.", "input": "", "output": "4"})) == [("user", "Add."), ("assistant", "4")]


def test_a_plain_text_is_an_example() -> None:
    assert text({"text": "red"}) == TextExample(text="red")


def test_other_column_names_are_told() -> None:
    assert text({"q": "2+2=", "a": "4"}, columns={"prompt": "q", "completion": "a"}) == TextExample(text="4", prompt="2+2=")
    row = {"q": "2+2=", "a": "4"}
    assert spoken(one(row, columns={"instruction": "q", "output": "a"})) == [("user", "2+2="), ("assistant", "4")]


def test_a_renamed_column_goes_before_one_of_that_name() -> None:
    assert text({"text": "raw", "clean": "neat"}, columns={"text": "clean"}) == TextExample(text="neat")


def test_the_format_is_told_by_the_columns_and_said_aloud() -> None:
    loaded = sft_examples([{"messages": chat("user:hi", "assistant:hello"), "text": "both", "id": 3}])
    assert (loaded.format, loaded.used, loaded.unused) == ("messages", ("messages",), ("text", "id"))
    assert loaded.note == "1 row read as messages (messages); not used: text, id"


def test_an_explicit_format_goes_before_what_the_columns_say() -> None:
    assert text({"messages": chat("user:hi", "assistant:hello"), "text": "both"}, format="text").text == "both"


def test_replies_that_are_switched_off_are_context() -> None:
    turns = chat("user:a", "assistant:b", "user:c", "assistant:d", "user:e", "assistant:f")
    turns[1]["weight"] = 0  # type: ignore[assignment]
    example = one({"messages": turns})
    assert (example.num_given, len(example.messages)) == (2, 6)


def test_a_reply_that_is_switched_off_in_the_middle_gives_two_examples() -> None:
    turns: list[dict[str, Any]] = list(chat("user:a", "assistant:b", "user:c", "assistant:d", "user:e", "assistant:f"))
    turns[3]["train"] = False
    loaded = sft_examples([{"messages": turns}])
    assert [(example.num_given, len(example.messages)) for example in loaded.examples if isinstance(example, SftExample)] == [
        (0, 2),
        (4, 6),
    ]
    assert loaded.num_rows == 1


def test_thinking_is_kept_apart_from_what_is_said() -> None:
    example = one({"messages": [*chat("user:a"), {"role": "assistant", "content": "b", "thinking": "hm"}]})
    assert example.messages[1].reasoning_content == "hm"


_HI = {"role": "user", "content": "hi"}
_HELLO = {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize(
    ("row", "reason", "place"),
    [
        ({"messages": [_HI]}, "nothing_to_learn", ""),
        ({"messages": []}, "nothing_to_learn", ""),
        ({"messages": [_HI, {**_HELLO, "weight": 0}]}, "nothing_to_learn", ""),
        ({"messages": [_HI, {**_HELLO, "weight": 0.5}]}, "wrong_flag", "message 2: "),
        ({"messages": [{**_HI, "train": True}, _HELLO]}, "wrong_flag", "message 1: "),
        ({"messages": [_HI, {"role": "narrator", "content": "x"}]}, "unknown_role", "message 2: "),
        ({"messages": [_HI, {"content": "x"}]}, "unknown_role", "message 2: "),
        ({"messages": [_HI, {"role": "assistant", "content": ""}]}, "says_nothing", "message 2: "),
        ({"messages": [_HI, {"role": "assistant", "content": {"a": 1}}]}, "wrong_message", "message 2: "),
        ({"messages": [_HI, "hello"]}, "no_object", "message 2: "),
        ({"messages": "hi"}, "no_json", "messages: "),
        ({"messages": 3}, "no_messages", "messages: "),
        ({"messages": None}, "missing_column", ""),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, _HELLO]}, "unsupported_part", "message 1: "),
        ({"messages": [_HI, {**_HELLO, "tool_calls": [{"function": {"arguments": {}}}]}]}, "no_calls", "message 2: call 1"),
        ({"messages": [_HI, {**_HELLO, "tool_calls": [{"name": "f", "arguments": "{"}]}]}, "no_json", "message 2: call 1"),
        ({"messages": [_HI, {**_HELLO, "tool_calls": [{"name": "f", "arguments": [1]}]}]}, "no_arguments", "message 2: call 1"),
        ({"messages": [_HI, {**_HELLO, "tool_calls": [{"name": "f", "arguments": "[1]"}]}]}, "no_arguments", "message 2: call 1"),
        ({"messages": [_HI, _HELLO], "tools": "{"}, "no_json", "tools: "),
        ({"messages": [_HI, _HELLO], "tools": 3}, "no_tools", "tools: "),
        ({"messages": [_HI, _HELLO], "tools": [{"description": "x"}]}, "no_tools", "tool 1: "),
        ({"prompt": "a", "completion": ""}, "no_text", "completion: "),
        ({"prompt": "a", "completion": [_HELLO]}, "mixed_kinds", ""),
        ({"prompt": "a", "completion": "b", "tools": [TOOL]}, "tools_with_texts", ""),
        ({"prompt": [_HI], "completion": [_HI]}, "nothing_to_learn", ""),
        ({"instruction": "a", "output": ""}, "no_text", "output: "),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "no_history", "history, entry 1: "),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "nothing_to_learn", ""),
        ({"text": ""}, "no_text", "text: "),
        ({"text": 3}, "no_text", "text: "),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_says_why(row: dict[str, Any], reason: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        sft_examples([row])
    assert (caught.value.reason, "row 1: " in caught.value.message, place in caught.value.message) == (reason, True, True)


def write(folder: Path, *rows: str) -> Path:
    path = folder / "a.jsonl"
    path.write_text("\n".join(rows))
    return path


def test_bad_rows_are_named_by_their_lines_or_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, '{"text": "red"}', '{"text": ', "", '{"words": "x"}', '{"text": "blue"}')
    with pytest.raises(InputError) as caught:
        sft_examples(read_rows(path))
    assert (caught.value.reason, "--skip-bad" in str(caught.value.hint)) == ("no_json", True)
    assert [line.partition(":")[0] for line in caught.value.message.splitlines()[1:]] == ["  a.jsonl, line 2", "  a.jsonl, line 4"]
    loaded = sft_examples(read_rows(path), skip_bad=True)
    assert loaded.examples == (TextExample(text="red"), TextExample(text="blue"))
    assert (loaded.num_rows, loaded.num_bad, len(loaded.faults)) == (4, 2, 2)
    assert loaded.note.endswith("2 bad rows left out")


def test_only_the_first_of_many_bad_rows_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, '{"text": "red"}', *["{"] * 9)
    with pytest.raises(InputError, match="9 rows of 10") as caught:
        sft_examples(read_rows(path))
    assert (caught.value.message.count("no JSON"), caught.value.message.endswith("and 4 more")) == (5, True)


def test_nothing_but_bad_rows_is_an_error_even_if_they_may_be_left_out(tmp_path: Path) -> None:
    for rows, reason in (([{"text": ""}, {"text": ""}], "no_text"), (read_rows(write(tmp_path, "red")), "no_json"), ([], "empty")):
        with pytest.raises(InputError) as caught:
            sft_examples(rows, skip_bad=True)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("row", "choices", "kind", "reason", "hint"),
    [
        ({"q": "a", "a": "b"}, {}, InputError, "unknown_format", "--column"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {}, InputError, "unknown_format", "preference pairs: train them with DPO"),
        ({"text": "a"}, {"format": "messages"}, InputError, "missing_column", "messages=NAME"),
        ({"text": "a"}, {"format": "chatml"}, SettingError, "unknown_format", "auto, messages, sharegpt"),
        ({"text": "a"}, {"columns": {"text": "body"}}, InputError, "missing_column", None),
        ({"text": "a"}, {"columns": {"words": "text"}}, SettingError, "unknown_column", "one of messages, tools"),
        ({"text": "a", "b": "c"}, {"columns": {"system": "b"}}, SettingError, "unknown_column", "columns are text"),
        ({}, {}, InputError, "no_columns", None),
    ],
)  # fmt: skip
def test_columns_that_make_no_format_are_told_with_what_is_needed(
    row: dict[str, Any], choices: dict[str, Any], kind: type[InputError], reason: str, hint: str | None
) -> None:
    with pytest.raises(kind) as caught:
        sft_examples([row], **choices)
    assert caught.value.reason == reason
    assert (hint or "") in (caught.value.hint or "")


def test_one_odd_row_at_the_start_does_not_decide_the_format() -> None:
    loaded: Loaded[Any] = sft_examples([{"comment": "made by hand"}, {"text": "red"}], skip_bad=True)
    assert (loaded.format, len(loaded.examples), loaded.num_bad) == ("text", 1, 1)


_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": [_IMAGE]}, _HELLO]}, "unsupported_part"),
        ({"messages": [{"role": "system", "content": [{"type": "file", "file": {}}]}, _HI, _HELLO]}, "unsupported_part"),
        ({"messages": [_HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]}, "unsupported_part"),
        ({"conversations": [{"from": "human", "value": [{"type": "hologram"}]}, {"from": "gpt", "value": "x"}]}, "unsupported_part"),
        ({"messages": [_HI, {**_HELLO, "refusal": "No."}]}, "unsupported_field"),
        ({"messages": [_HI, {**_HELLO, "audio": {"id": "a"}}]}, "unsupported_field"),
        ({"messages": [_HI, {**_HELLO, "function_call": {"name": "f"}}]}, "unsupported_field"),
        ({"messages": [_HI, _HELLO], "images": ["a.png"]}, "unsupported_field"),
    ],
)
def test_what_is_no_text_is_refused_by_row(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        sft_examples([{"messages": [_HI, _HELLO]} if "messages" in row else {"conversations": [_HI, _HELLO]}, row])
    assert caught.value.reason == reason
    assert "row 2" in caught.value.message


def test_a_mark_stands_for_an_image_in_a_tools_result_and_empty_columns_do_not_count() -> None:
    called = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {}}]}
    result = {"role": "tool", "content": [{"type": "text", "text": "seen"}, _IMAGE]}
    (example,) = sft_examples([{"messages": [_HI, called, result, _HELLO], "images": [], "audio": None}]).examples
    assert isinstance(example, SftExample)
    assert example.messages[2].content == "seen[image left out: image/png, 3 bytes]"


def test_a_turn_whose_first_name_for_its_text_is_null_keeps_its_text() -> None:
    row = {"conversations": [{"from": "human", "role": None, "content": None, "value": "hi"}, {"from": "gpt", "value": "hello"}]}
    (example,) = sft_examples([row]).examples
    assert isinstance(example, SftExample)
    assert example.messages[0].content == "hi"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER, {"role": "assistant", "tool_calls": 5}]}, "no_calls"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": True}]}, "no_calls"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": "7"}]}, "no_calls"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "5"}]}, "no_calls"),
        ({"instruction": "a", "output": "b", "history": 5}, "no_history"),
        ({"instruction": "a", "output": "b", "input": ["c"]}, "no_text"),
        ({"instruction": "a", "output": "b", "input": 5}, "no_text"),
    ],
)
def test_a_value_of_another_kind_is_the_fault_of_its_row(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        sft_examples([row])
    assert caught.value.reason == reason
    good = {"messages": [USER, {"role": "assistant", "content": "yes"}], "conversations": chat("user:x", "assistant:y"), "instruction": "a"}
    good = {name: value for name, value in good.items() if name in row} | ({"output": "b"} if "output" in row else {})
    assert sft_examples([row, good], skip_bad=True).num_bad == 1


def test_calls_in_json_text_keep_their_ids() -> None:
    calls = json.dumps([{"id": "real", "function": {"name": "f", "arguments": "{}"}}])
    turns = [USER, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "real", "content": "1"}]
    [example] = sft_examples([{"messages": turns}]).examples
    assert example.messages[1].tool_calls[0].id == "real"
