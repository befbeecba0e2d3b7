"""A sink for metrics: one JSON object a line, appended and flushed, for people who plot with their own tools.

The store keeps the metrics that the program itself reads; this file is a copy that needs no database.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType

from journeyman.errors import StoreError
from journeyman.types.text_files import json_line, open_to_append


class JsonlMetrics:
    """Appends steps to a JSONL file. A line is `{"time", "phase", "step", "metrics"}`; not-a-number becomes null.

    Raises:
        StoreError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_append(path)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, phase: str, step: int, metrics: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json_line({"time": round(time.time(), 3), "phase": phase, "step": step, "metrics": finite})
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlMetrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write metrics to {self._path}: {error}",
            hint="check the folder's permissions and the disk's free space",
        )
