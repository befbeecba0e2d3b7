"""Files of lines: a line ends at a line feed and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.types.test_json_text import VALUES

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json
from journeyman.types.scenarios import Scenario
from journeyman.types.text_files import json_line, json_lines, open_to_append, read_records, read_text

# What str.splitlines takes for the end of a line, and JSON does not.
SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(VALUES)
def test_any_value_survives_a_file_of_lines(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "values.jsonl"
    path.write_text(json_line(value) + json_line([value]), encoding="utf-8", newline="")
    assert [parse_json(line) for _, line in json_lines(path)] == [value, [value]]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_task_may_hold_any_separator_also_one_that_another_program_wrote(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "tasks.jsonl"
    task = f"before{separator}after"
    # A line feed of JSON's own is always escaped; these are not, where ensure_ascii is off (control characters aside).
    theirs = json.dumps({"id": "a", "task": task}, ensure_ascii=False)
    path.write_bytes(theirs.encode() + b"\n" + json_line(Scenario(id="b", task=task)).encode())
    assert [one.task for one in read_records(path, Scenario)] == [task, task]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n  \n"], ids=repr)
@pytest.mark.parametrize("last", [b"", b"\n"], ids=["torn", "whole"])
def test_marks_line_ends_and_blank_lines_change_nothing(tmp_path: Path, mark: bytes, end: bytes, last: bytes) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(mark + end.join([b'{"id": "a", "task": "x"}', b'{"id": "b", "task": "y"}']) + last)
    assert [one.id for one in read_records(path, Scenario)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"{", "no_json"), (b'{"id": "\\ud800"}', "half_surrogate"), (b'{"id": "a\xff"}', "not_utf8"), (b'{"tusk": "x"}', "wrong_record")],
)
def test_a_faulty_line_is_named_with_file_and_line(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b'{"id": "a", "task": "x"}\n\n' + line + b"\n")
    with pytest.raises(InputError) as caught:
        read_records(path, Scenario)
    assert caught.value.reason == reason
    assert f"{path}, line 3" in caught.value.message


@pytest.mark.parametrize(("raw", "reason"), [("a".encode("utf-16"), "other_encoding"), (b"\xff", "not_utf8"), (None, "unreadable")])
def test_a_text_file_that_cannot_be_read_is_named(tmp_path: Path, raw: bytes | None, reason: str) -> None:
    path = tmp_path / "what? 100%20 #1.txt"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_text(path)
    assert caught.value.reason == reason
    assert str(path) in caught.value.message


def test_a_last_line_without_its_end_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}')
    with open_to_append(path) as file:
        file.write(json_line({"a": 2}))
    assert [parse_json(line) for _, line in json_lines(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("value", ["\ud800", {"a": float("nan")}, {"a": object()}], ids=["surrogate", "nan", "object"])
def test_what_json_cannot_say_is_not_written(value: object) -> None:
    with pytest.raises(InputError) as caught:
        json_line(value)
    assert caught.value.reason in {"half_surrogate", "not_json"}
