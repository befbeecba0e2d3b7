"""The rows of a study, one a finished run, and which run a row is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from benchmarks.studies.cells import Cell
from benchmarks.studies.lines import LineFile
from journeyman.errors import JourneymanError
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


class RowFile(LineFile[Row]):
    """The file of one study's rows. Raises StoreError when it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Row)

    def find(self, cell: Cell) -> Row | None:
        """The newest finished run of a cell under the settings that it has now; None when it is still to be made."""
        return newest(self.read(), cell)


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
