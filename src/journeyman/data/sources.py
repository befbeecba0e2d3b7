"""Rows from files: JSON lines, JSON, CSV, Parquet, a folder of them; and from the `datasets` library, which is imported when asked for:
data sets of the Hugging Face hub, and folders that the library wrote.

Whatever is wrong with one row is a fault of that row, so that it can be counted and left out; what is wrong with the file is an
InputError. Files are read a row at a time, but for `.json`. Not for what a row means: see `examples.py` and `preferences.py`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.config import check_hub_token, environment, path_of
from journeyman.data.rows import Row
from journeyman.errors import InputError
from journeyman.http_clients import HUB_URL, proxy_of
from journeyman.types.json_text import parse_json
from journeyman.types.text_files import json_lines, read_text, text_stream

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_SAVED_MARKS = ("dataset_dict.json", "state.json")  # what `Dataset.save_to_disk` writes
_LONGEST_FIELD = 1 << 30  # characters of one CSV field


def read_rows(source: str | Path, split: str | None = None) -> Iterator[Row]:
    """The rows of a source, one after the other.

    Args:
        source: a file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`), a folder of such files, a folder written by the `datasets`
            library, or the id of a data set on the Hugging Face hub, `ORG/NAME` or `ORG/NAME:SUBSET`.
        split: which part of a folder or data set (`train`, `test`, ...). None takes the only one, or `train`. A file has none.

    Raises InputError when there is no such source, it cannot be read, or it has no rows. A row that cannot be read is no error here:
    its `values` are.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "colours.jsonl"
        >>> _ = path.write_text('{"text": "red"}\\n{"text": "blue"}\\n')
        >>> [row.values["text"] for row in read_rows(path)]
        ['red', 'blue']
    """
    rows = _open(str(source), split)
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        raise InputError(
            f"{source} is empty: there is no row in it", hint="give a file or data set with rows, e.g. a JSON object a line", reason="empty"
        )


def _open(source: str, split: str | None) -> Iterator[Row]:
    path = path_of(source)
    if path.is_dir():
        return _read_saved(path, split) if _is_saved_dataset(path) else _read_folder(path, split)
    if path.is_file():
        if split is not None:
            raise InputError(
                f"{source} is one file and has no split {split!r}",
                hint="leave split out, or name a folder or a data set",
                reason="no_split",
            )
        return _read_file(path)
    if _HUB_NAME.fullmatch(source) and path.suffix.lower() not in _READERS:
        return _read_hub(source, split)
    raise InputError(
        f"there is no file or folder {source}", hint="a data set of the Hugging Face hub is named ORG/NAME", reason="no_source"
    )


def _read_file(path: Path) -> Iterator[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} has the ending {path.suffix or '(none)'!r}; read are {', '.join(sorted(_READERS))}",
            hint="give the file the ending of what is in it",
            reason="unknown_ending",
        )
    return reader(path)


def _read_folder(folder: Path, split: str | None) -> Iterator[Row]:
    """The data files of a folder, told apart by split when their names begin with one (`train.jsonl`, `test-00000-of-00002.parquet`)."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _READERS and not path.name.startswith("."))
    if not files:
        raise InputError(f"the folder {folder} has no data file in it; read are {', '.join(sorted(_READERS))}", reason="no_source")
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(re.split(r"[-_.]", path.stem)[0], []).append(path)
    chosen = splits.get(split or "train")
    if split is None and len(splits) == 1:
        chosen = files
    if chosen is None:
        asked = "and none of them is named train" if split is None else f"and none of them begins with {split}"
        raise InputError(
            f"the folder {folder} has {', '.join(str(path.relative_to(folder)) for path in files[:8])}, {asked}",
            hint=f"name a file, or a split: {', '.join(sorted(splits)[:8])}",
            reason="no_split",
        )
    for path in chosen:
        yield from _read_file(path)


def _read_lines(path: Path) -> Iterator[Row]:
    for number, line in json_lines(path):
        try:
            data, fault, reason = _object(parse_json(line))
        except InputError as error:
            data, fault, reason = None, error.message, error.reason
        yield Row(number, data, path.name, fault, "line", reason)


def _read_json(path: Path) -> Iterator[Row]:
    first = next(json_lines(path), (0, b""))[1]
    if not first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        # JSON lines under another name are common.
        yield from _read_lines(path)
        return
    text = read_text(path)
    try:
        values = parse_json(text)
    except InputError as error:
        raise error.at(str(path)) from error
    for number, value in enumerate(values, start=1):
        data, fault, reason = _object(value)
        yield Row(number, data, path.name, fault, reason=reason)


def _object(value: Any) -> tuple[dict[str, Any] | None, str, str | None]:
    if isinstance(value, dict):
        return value, "", None
    return None, f"a JSON object is needed, this is {_KIND.get(type(value), 'null')}", "no_object"


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)  # of the whole process; the default refuses long conversations
    number = 0
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with text_stream(path) as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _refuse_repeated_columns(path, reader.fieldnames or ())
            for values in reader:
                number = reader.line_num
                fault = _csv_fault(values, len(reader.fieldnames or ()))
                yield Row(number, None if fault else values, path.name, fault, "line", "wrong_columns" if fault else None)
    except UnicodeDecodeError as error:
        read_text(path)  # as a whole it tells the line and the column
        raise InputError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} after line {number}", hint=_RECODE, reason="not_utf8"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path} is no CSV after line {number}: {error}", reason="no_csv") from error


def _refuse_repeated_columns(path: Path, names: Sequence[str]) -> None:
    """Of two columns of one name the first would be lost."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the column {name!r} is there twice", hint="rename one of them", reason="repeated_key")


def _csv_fault(values: dict[str | Any, Any], num_columns: int) -> str:
    if None in values:
        return f"{num_columns + len(values[None])} fields, but the header has {num_columns} columns"
    missing = [name for name, value in values.items() if value is None]
    return f"{num_columns - len(missing)} fields, but the header has {num_columns} columns" if missing else ""


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"reading {path.name} needs pyarrow, which is not installed", hint='pip install "journeyman[data]"', reason="missing_library"
        ) from error

    number = 0
    try:
        with ParquetFile(path) as file:
            _refuse_repeated_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, _without_nulls(values), path.name)
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # also of texts that are no UTF-8, and dates beyond Python's
        raise InputError(f"{path} is no Parquet file, or it is damaged after row {number}: {error}", reason="no_parquet") from error


_KIND = {str: "a text", int: "a number", float: "a number", bool: "true or false", list: "a list"}
_RECODE = "convert it: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW"
_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}


def _is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote this folder."""
    return any((folder / mark).is_file() for mark in _SAVED_MARKS)


def _read_saved(folder: Path, split: str | None) -> Iterator[Row]:
    """The rows of a folder that `Dataset.save_to_disk` wrote."""
    datasets = _library(str(folder))
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be read as a saved data set: {error}", reason="unreadable") from error
    yield from _rows(_split_of(saved, split, str(folder)), folder.name)


def _read_hub(name: str, split: str | None) -> Iterator[Row]:
    """The rows of `ORG/NAME` or `ORG/NAME:SUBSET`, from the cache of the `datasets` library or downloaded into it."""
    if environment("HF_HUB_OFFLINE") is None:
        check_hub_token()
        proxy_of(environment("HF_ENDPOINT") or HUB_URL)  # refuses one that cannot be used
    datasets = _library(name)
    repository, _, subset = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, subset or None, split=None)
    # A data set that cannot be reached is an OSError, an unknown subset a ValueError.
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"there is no file or folder {name}, and the data set {repository} could not be had from the Hugging Face hub: {error}",
            hint="check the name and the network; offline (HF_HUB_OFFLINE=1) only data sets that are in the cache can be read",
            reason="no_source",
        ) from error
    except ValueError as error:
        raise InputError(
            f"the data set {name} cannot be read: {error}", hint="a subset is named ORG/NAME:SUBSET", reason="unreadable"
        ) from error
    yield from _rows(_split_of(loaded, split, name), name)


def _without_nulls(value: Any) -> Any:
    """`value` without the keys whose value is None: Arrow gives every record the keys of all others."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _rows(table: Dataset, source: str) -> Iterator[Row]:
    for number, values in enumerate(table, start=1):
        yield Row(number, _without_nulls(values), source)


def _split_of(table: Dataset | DatasetDict, split: str | None, source: str) -> Dataset:
    if not isinstance(table, dict):
        if split is None:
            return table
        raise InputError(f"{source} has no splits, and the split {split!r} was asked for", hint="leave split out", reason="no_split")
    chosen = split or ("train" if "train" in table else next(iter(table)) if len(table) == 1 else None)
    if chosen not in table:
        asked = "none of them is named train" if split is None else f"{split!r} was asked for"
        raise InputError(
            f"{source} has the splits {', '.join(map(str, table))}; {asked}", hint="name one of them: split", reason="no_split"
        )
    return table[chosen]


def _library(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"there is no data file {source}, and reading data sets needs the `datasets` library, which is not installed",
            hint='check the path, or: pip install "journeyman[data]"',
            reason="missing_library",
        ) from error
    return datasets
