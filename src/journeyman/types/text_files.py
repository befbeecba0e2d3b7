"""Text files that people hand us, and files of JSON lines: the one reader and the one writer.

A line ends at "\\n" and nowhere else: U+2028, U+2029 and U+0085 may stand inside a JSON text, though `str.splitlines` cuts there. Not for
the rows of a data set, each of which may be at fault for itself: `journeyman.data`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import SEEK_END
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from journeyman.errors import InputError
from journeyman.types.json_text import check_json, decoded, parse_json, refuse_other_encoding

_Kind = TypeVar("_Kind", bound=BaseModel)
# What other programs take for the end of a line is escaped where we write.
_ESCAPES = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_NUM_LOOKED_AT = 4  # bytes: the longest byte order mark


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; its lines end with "\\n". Raises InputError with the path."""
    with _naming(str(path)):
        return decoded(_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def text_stream(path: Path) -> Iterator[TextIO]:
    """As `read_text`, for reading piece by piece; line ends are left as they are. Reading may raise UnicodeDecodeError."""
    try:
        _refuse_other_encoding(path)
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number (from 1) and the bytes of each line that is not blank, for `parse_json`. Raises InputError with the path."""
    try:
        _refuse_other_encoding(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield number, line
    except OSError as error:
        raise _unreadable(path, error) from error


def read_records(path: Path, kind: type[_Kind]) -> list[_Kind]:
    """The records of a file of JSON lines. Raises InputError with the path and the line."""
    records = []
    for number, line in json_lines(path):
        with _naming(f"{path}, line {number}"):
            records.append(kind.model_validate(parse_json(line)))
    return records


def json_line(value: object) -> str:
    """A record, or plain data, as one line. Raises InputError (not_json, half_surrogate, too_deep) when JSON cannot say it.

    Example:
        >>> json_line({"a": "b"})
        '{"a": "b"}\\n'
    """
    try:
        text = value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:  # also pydantic's own errors
        check_json(value.model_dump() if isinstance(value, BaseModel) else value)
        raise InputError(f"it cannot be written as JSON: {error}", reason="not_json") from error
    return text.translate(_ESCAPES) + "\n"


def open_to_append(path: Path) -> TextIO:
    """A file that lines are added to. A last line that was left without its end does not swallow the next. Raises OSError."""
    with path.open("a+b") as before:
        size = before.seek(0, SEEK_END)
        before.seek(max(size - 1, 0))
        if before.read(1) not in (b"", b"\n"):
            before.write(b"\n")
    return path.open("a", encoding="utf-8", newline="")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or error}", hint="check the path", reason="unreadable")


def _refuse_other_encoding(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(_NUM_LOOKED_AT)
    with _naming(str(path)):
        refuse_other_encoding(start)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Errors say where they are from."""
    try:
        yield
    except InputError as error:
        if error.reason == "unreadable":  # says so already
            raise
        raise error.at(place) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        fault = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: {name + ': ' if name else ''}{fault}", reason="wrong_record") from error
