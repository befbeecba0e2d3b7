"""The rows of a study, one a finished run, as JSON lines that only ever grow. A kill while a row is written loses that row alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from benchmarks.studies.cells import Cell
from journeyman.errors import JourneymanError, StoreError
from journeyman.recipes.methods import recipe_settings
from journeyman.types.record import Record


class Row(Record):
    """What came of a run.

    Attributes:
        overrides: what the variant changes in its file.
        settings: all settings of the run, defaults included.
        commit: of the code that ran, with a + when files differed from it.
        started_at: UTC.
        seconds: wall time of the whole run.
        num_beside: other runs of the study on the same machine at the same time: they share its cores.
        curve: metrics by name, a value a step (None: that step has none).
        final: what the run ended with, by name.
        error: of a run that failed.
    """

    study: str
    variant: str
    seed: int
    state: Literal["done", "failed"]
    overrides: tuple[str, ...] = ()
    settings: dict[str, Any]
    commit: str
    started_at: str
    seconds: float
    num_beside: int = 0
    curve: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    final: dict[str, float] = Field(default_factory=dict)
    error: str | None = None


class RowFile:
    """The file of one study's rows. Raises StoreError when it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Row]:
        """All rows, oldest first; a line that was cut off by a kill is none."""
        rows = []
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as error:
            raise self._error("read", error) from error
        for number, line in enumerate(lines, start=1):
            try:
                rows += [Row.model_validate_json(line)] if line else []
            except ValidationError as error:
                if number < len(lines):
                    raise StoreError(
                        f"line {number} of {self.path} is no row of a study: {error.errors()[0]['msg']}",
                        hint="delete that line: its run is made again",
                    ) from error
        return rows

    def append(self, row: Row) -> None:
        """Add a row; it is on disk when this returns."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                _drop_cut_off_line(file.fileno())
                file.write(row.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._error("write", error) from error

    def find(self, cell: Cell) -> Row | None:
        """The newest finished run of a cell under the settings that it has now; None when it is still to be made."""
        return newest(self.read(), cell)

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


def newest(rows: Sequence[Row], cell: Cell) -> Row | None:
    """As `RowFile.find`, in rows that were read."""
    wanted = cell.settings()
    for row in reversed(rows):
        if (row.variant, row.seed, row.state) == (cell.variant.name, cell.seed, "done") and is_same(row.settings, wanted):
            return row
    return None


def is_same(before: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two runs were made alike. A setting that the older one does not have, because its version had none, was at its default."""
    if before == wanted:
        return True
    try:
        return recipe_settings(str(before.get("method")), before).model_dump(mode="json") == wanted
    except JourneymanError:
        return False


def _drop_cut_off_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    whole = os.pread(descriptor, size, 0)
    os.ftruncate(descriptor, whole.rfind(b"\n") + 1)
