"""Rows from every kind of source, and what is said of files that cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from journeyman.data import Row, read_rows
from journeyman.errors import InputError

ROWS = [{"text": "red"}, {"text": "grün"}]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def refusal(source: str | Path, split: str | None = None) -> InputError:
    """The error that a source is refused with."""
    with pytest.raises(InputError) as caught:
        list(read_rows(source, split))
    return caught.value


def texts(source: str | Path, split: str | None = None) -> list[str]:
    return [row.values["text"] for row in read_rows(source, split)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(ROWS)),
        ("a.ndjson", lines(ROWS)),
        ("a.json", json.dumps(ROWS)),
        ("a.json", lines(ROWS)),
        ("a.csv", "text\nred\ngrün\n"),
        ("a.tsv", "text\tn\nred\t1\ngrün\t2\n"),
        ("a.jsonl", b"\xef\xbb\xbf" + lines(ROWS).encode()),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("a.csv", b"\xef\xbb\xbf" + "text\nred\ngrün\n".encode()),
    ],
    ids=["jsonl", "ndjson", "json", "json-lines-named-json", "csv", "tsv", "jsonl-bom", "json-bom", "csv-bom"],
)
def test_files_of_every_ending_are_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert texts(write(tmp_path, name, content)) == ["red", "grün"]


def test_a_parquet_file_is_read_without_the_nulls_that_arrow_adds(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "name": "f"}]}, {"messages": None, "text": "red"}]
    rows[0]["text"] = None
    first, second = read_rows(write_parquet(tmp_path / "a.parquet", rows))
    assert first.values == {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "name": "f"}]}
    assert second.values == {"text": "red"}


def test_a_csv_field_may_hold_a_long_conversation_with_line_breaks(tmp_path: Path) -> None:
    long = "a line\n" * 40_000
    assert texts(write(tmp_path, "a.csv", f'text\n"{long}"\n')) == [long]


def test_a_folder_that_the_datasets_library_wrote_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    table = Dataset.from_list([{"text": "red", "extra": None}])
    table.save_to_disk(tmp_path / "one")
    DatasetDict({"train": table, "test": Dataset.from_list([{"text": "blue"}])}).save_to_disk(tmp_path / "two")
    assert texts(tmp_path / "one") == ["red"]
    assert texts(tmp_path / "two") == ["red"]
    assert texts(tmp_path / "two", "test") == ["blue"]
    for name in ("one", "two"):
        assert refusal(tmp_path / name, "dev").reason == "no_split"


def test_a_folder_of_files_is_read_split_by_split(tmp_path: Path) -> None:
    write(tmp_path, "data/train-00000-of-00002.jsonl", lines([{"text": "red"}]))
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [{"text": "blue"}])
    write(tmp_path, "data/test.csv", "text\ngreen\n")
    assert texts(tmp_path) == ["red", "blue"]
    assert texts(tmp_path, "test") == ["green"]
    assert refusal(tmp_path, "dev").reason == "no_split"


def test_a_folder_with_files_of_several_names_asks_for_one(tmp_path: Path) -> None:
    write(tmp_path, "apples.jsonl", lines(ROWS))
    assert texts(tmp_path) == ["red", "grün"]
    write(tmp_path, "pears.jsonl", lines(ROWS))
    error = refusal(tmp_path)
    assert (error.reason, "apples, pears" in str(error.hint)) == ("no_split", True)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", "", "empty"),
        ("a.jsonl", "\n\n", "empty"),
        ("a.jsonl", b"\xef\xbb\xbf\n", "empty"),
        ("a.json", "[]", "empty"),
        ("a.csv", "text\n", "empty"),
        ("a.csv", "", "empty"),
        ("a.txt", "red", "unknown_ending"),
        ("a", "red", "unknown_ending"),
        ("a.jsonl", lines(ROWS).encode("utf-16"), "other_encoding"),
        ("a.json", json.dumps(ROWS).encode("utf-32"), "other_encoding"),
        ("a.csv", "text\nred\n".encode("utf-16"), "other_encoding"),
        ("a.json", json.dumps(ROWS, ensure_ascii=False).encode("latin-1"), "not_utf8"),
        ("a.csv", "text\nred\ngrün\n".encode("latin-1"), "not_utf8"),
        ("a.json", '[{"text": "red"},', "no_json"),
        ("a.json", "[" * 10_000, "too_deep"),
        ("a.json", '[{"text": "\\ud800"}]', "half_surrogate"),
        ("a.csv", 'text\n"red" x\n', "no_csv"),
        ("a.csv", "text,text\nred,blue\n", "repeated_key"),
        ("a.parquet", "PAR1 nonsense", "no_parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    path = write(tmp_path, name, content)
    error = refusal(path)
    assert (error.reason, str(path) in error.message) == (reason, True)


def test_an_empty_parquet_file_is_empty(tmp_path: Path) -> None:
    assert refusal(write_parquet(tmp_path / "a.parquet", [])).reason == "empty"


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    for source in (tmp_path / "gone.jsonl", "train.jsonl", tmp_path):
        error = refusal(source)
        assert (error.reason, str(source) in error.message) == ("no_source", True)


def test_a_file_has_no_split(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "a.jsonl", lines(ROWS)), "test").reason == "no_split"


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("a.jsonl", b'{"text": 1}\n\n{"text": \n[1]\n"\xff"\nnull\n{"text": 2}\n',
         {3: "no JSON: Expecting value", 4: "this is a list", 5: "not UTF-8: byte 0xff at column 2", 6: "this is null"}),
        ("a.json", b'[{"text": 1}, 2, {"text": 2}]', {2: "this is a number"}),
        ("a.csv", b"text,n\n1,2\n1,2,3\n1\n2,2\n", {3: "3 fields, but the header has 2 columns", 4: "1 fields, but the header has 2"}),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_keeps_its_line_and_its_reason(tmp_path: Path, name: str, content: bytes, faults: dict[int, str]) -> None:
    rows = list(read_rows(write(tmp_path, name, content)))
    assert [str(row.values["text"]) for row in rows if not row.fault] == ["1", "2"]
    bad = {row.number: row for row in rows if row.fault}
    assert bad.keys() == faults.keys()
    for number, fault in faults.items():
        assert fault in bad[number].fault
        with pytest.raises(InputError, match=f"{name}, (line|row) {number}: "):
            _ = bad[number].values


def test_a_row_says_where_it_stands() -> None:
    assert Row(7, {}, "a.jsonl", unit="line").place == "a.jsonl, line 7"
    assert Row(7, {}).place == "row 7"


_OFFLINE = """
from journeyman.data import read_rows
from journeyman.errors import InputError
try:
    list(read_rows("nobody-here/no-such-data:main", "train"))
except InputError as error:
    print(error)
"""


def test_an_unknown_data_set_offline_is_a_clear_error() -> None:
    import os

    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", _OFFLINE], capture_output=True, text=True, timeout=100, check=True, env=environment)
    assert "there is no file or folder nobody-here/no-such-data:main" in done.stdout
    assert "the data set nobody-here/no-such-data could not be had" in done.stdout
    assert "HF_HUB_OFFLINE=1" in done.stdout


@pytest.mark.parametrize(("library", "source"), [("datasets", "nobody-here/no-such-data"), ("pyarrow", "a.parquet")])
def test_a_missing_library_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "a.parquet", [{"text": "red"}])
    monkeypatch.setitem(sys.modules, library, None)
    error = refusal(source)
    assert (error.reason, "journeyman[data]" in str(error.hint)) == ("missing_library", True)


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table([pa.array(["red"]), pa.array(["blue"])], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        list(read_rows(tmp_path / "a.parquet"))
    assert caught.value.reason == "repeated_key"


def test_a_file_whose_name_is_no_text_is_told_in_signs_that_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.jsonl")).write_text('{"text": "red"}\n')
    [row] = read_rows(tmp_path)
    assert row.place == "a\ufffd.jsonl, line 1"
