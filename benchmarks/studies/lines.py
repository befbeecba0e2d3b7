"""A file of records, one a line, that only ever grows: a kill while a line is written loses that line alone. Not for what is in them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from journeyman.errors import StoreError
from journeyman.types.record import Record

_Line = TypeVar("_Line", bound=Record)


class LineFile(Generic[_Line]):
    """Records of one kind. Raises StoreError when the file cannot be read or written."""

    def __init__(self, path: Path, kind: type[_Line]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> list[_Line]:
        """All records, oldest first; a line that was cut off by a kill is none."""
        found: list[_Line] = []
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as error:
            raise self._error("read", error) from error
        for number, line in enumerate(lines, start=1):
            try:
                found += [self._kind.model_validate_json(line)] if line else []
            except ValidationError as error:
                if number < len(lines):
                    raise StoreError(
                        f"line {number} of {self.path} is no row of a study: {error.errors()[0]['msg']}",
                        hint="delete that line: its run is made again",
                    ) from error
        return found

    def append(self, record: _Line) -> None:
        """Add a record; it is on disk when this returns."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                _drop_cut_off_line(file.fileno())
                file.write(record.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._error("write", error) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the block runs no other process makes runs of this study: both would make the same ones. Raises StoreError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"another process makes the runs of {self.path}", hint="wait for it, or look with --show") from error
            yield

    def _error(self, action: str, error: OSError) -> StoreError:
        return StoreError(f"cannot {action} {self.path}: {error.strerror or error}", hint="check the folder and the free space")


def _drop_cut_off_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    whole = os.pread(descriptor, size, 0)
    os.ftruncate(descriptor, whole.rfind(b"\n") + 1)
