"""Rows of a data file, and what was made of them. Not for opening files (`sources.py`) nor for what a row means (`examples.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from journeyman.errors import InputError

_T = TypeVar("_T")
_NUM_FAULTS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        number: from 1; of the line in a file of lines, of the row otherwise.
        data: column -> value, None when the row could not be read; see `values`.
        source: what it was read from, for messages.
        fault: why it could not be read, "" when it could.
    """

    number: int
    data: Mapping[str, Any] | None
    source: str = ""
    fault: str = ""
    unit: Literal["line", "row"] = "row"

    @property
    def place(self) -> str:
        """Where it stands: `train.jsonl, line 7`."""
        here = f"{self.unit} {self.number}"
        return f"{self.source}, {here}" if self.source else here

    @property
    def values(self) -> Mapping[str, Any]:
        """Column -> value. Raises InputError, with the place and the reason, when the row could not be read."""
        if self.data is None:
            raise InputError(f"{self.place}: {self.fault}")
        return self.data


@dataclass(frozen=True, slots=True)
class Loaded(Generic[_T]):
    """What rows became.

    Attributes:
        examples: in the order of the rows. A row may give several.
        format: what the rows were read as.
        used, unused: the columns that were read, and those that were there besides.
        num_bad: rows left out because they were faulty (`skip_bad`); `faults` says why, of the first of them.
    """

    examples: tuple[_T, ...]
    format: str
    num_rows: int
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    num_bad: int = 0
    faults: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One line to be shown: what was found, and what was left out.

        Example:
            >>> Loaded((), "messages", 8, ("messages",), ("id",), 1).note
            '8 rows read as messages (messages); not used: id; 1 bad row left out'
        """
        text = f"{_count(self.num_rows, 'row')} read as {self.format} ({', '.join(self.used)})"
        if self.unused:
            text += f"; not used: {', '.join(self.unused)}"
        if self.num_bad:
            text += f"; {_count(self.num_bad, 'bad row')} left out"
        return text


def as_rows(rows: Iterable[Row | Mapping[str, Any]]) -> Iterator[Row]:
    """The rows, and plain mappings as rows."""
    for number, row in enumerate(rows, start=1):
        yield row if isinstance(row, Row) else Row(number, row)


def convert(rows: Iterable[Row], read: Callable[[Mapping[str, Any]], Sequence[_T]], *, skip_bad: bool) -> tuple[list[_T], int, list[str]]:
    """What `read` makes of each row, the number of rows, and why rows were left out, a line each.

    Args:
        read: one row's examples; raises InputError with the reason when it has none.
        skip_bad: leave faulty rows out; otherwise they are an InputError that names the first of them.
    """
    examples: list[_T] = []
    faults: list[str] = []
    num_rows = 0
    for num_rows, row in enumerate(rows, start=1):  # noqa: B007  (the last number is how many there were)
        if row.data is None:
            faults.append(f"{row.place}: {row.fault}")
            continue
        try:
            examples += read(row.data)
        except InputError as error:
            faults.append(f"{row.place}: {error.message}")
    if num_rows == 0:
        raise InputError("there are no rows", hint="give at least one example")
    if faults and not skip_bad:
        raise InputError(
            f"{_count(len(faults), 'row')} of {num_rows} cannot be used:\n{told(faults)}",
            hint="repair them, or leave them out: --skip-bad (data.skip_bad in a settings file, skip_bad=True in Python)",
        )
    if not examples:
        raise InputError(f"none of the {_count(num_rows, 'row')} can be used:\n{told(faults)}")
    return examples, num_rows, faults


def told(faults: Sequence[str]) -> str:
    """The first few faults, a line each, and how many there are besides."""
    lines = [f"  {fault}" for fault in faults[:_NUM_FAULTS_TOLD]]
    if len(faults) > _NUM_FAULTS_TOLD:
        lines.append(f"  and {len(faults) - _NUM_FAULTS_TOLD} more")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
