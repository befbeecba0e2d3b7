"""Rows of a data file, the layouts that they come in, and what was made of them.

Not for opening files (`sources.py`), nor for what a layout means (`examples.py`, `preferences.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Generic, Literal, TypeVar

from journeyman.errors import InputError, SettingError
from journeyman.types.json_text import check_json, well_formed

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_Values = Mapping[str, Any]
AUTO = "auto"
_MEDIA = ("image", "images", "audio", "video", "videos")
_MEDIA_HINT = "leave such rows out (skip bad rows), or take the column out of the file if the texts make sense without it"
_NUM_LOOKED_AT = 32  # rows; one row may be odd
NUM_FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        number: from 1; of the line in a file of lines, of the row otherwise.
        data: column -> value, None when the row could not be read; see `values`.
        source: what it was read from, for messages.
        fault: why it could not be read, "" when it could; `reason` is the stable word for it.
    """

    number: int
    data: Mapping[str, Any] | None
    source: str = ""
    fault: str = ""
    unit: Literal["line", "row"] = "row"
    reason: str | None = None

    @property
    def place(self) -> str:
        """Where it stands: `train.jsonl, line 7`."""
        here = f"{self.unit} {self.number}"
        return f"{well_formed(self.source)}, {here}" if self.source else here  # a file's name may be any bytes

    @property
    def values(self) -> Mapping[str, Any]:
        """Column -> value. Raises InputError, with the place and the reason, when the row could not be read."""
        if self.data is None:
            raise InputError(f"{self.place}: {self.fault}", reason=self.reason)
        return self.data


@dataclass(frozen=True, slots=True)
class Loaded(Generic[_T_co]):
    """What rows became.

    Attributes:
        examples: in the order of the rows. A row may give several.
        format: what the rows were read as.
        used, unused: the columns that were read, and those that were there besides.
        num_bad: rows left out because they were faulty (`skip_bad`); `faults` says why, of the first of them.
        places: of each example the row that it is from, for messages: `train.jsonl, line 7`.
    """

    examples: tuple[_T_co, ...]
    format: str
    num_rows: int
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    num_bad: int = 0
    faults: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

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

    def checked(self, look: Callable[[_T_co, str], object], *, skip_bad: bool) -> Loaded[_T_co]:
        """These without the rows that have an example at fault, which are counted and told; without `skip_bad` they are an InputError.

        Args:
            look: takes an example and its place; raises InputError with both when the example cannot be used.
        """
        refused: dict[str, InputError] = {}
        for example, place in zip(self.examples, self.places, strict=True):
            try:
                look(example, place)
            except InputError as error:
                refused.setdefault(place, error)
        if refused and not skip_bad:
            raise refusal(list(refused.values()), self.num_rows)
        faults = [error.message for error in refused.values()]
        kept = [(example, place) for example, place in zip(self.examples, self.places, strict=True) if place not in refused]
        if not kept:
            raise _none_left(list(refused.values()), self.num_rows)
        return replace(
            self,
            examples=tuple(example for example, _ in kept),
            num_bad=self.num_bad + len(faults),
            faults=(*self.faults, *faults)[:NUM_FAULTS_SHOWN],
            places=tuple(place for _, place in kept),
        )


def as_rows(rows: Iterable[Row | Mapping[str, Any]]) -> Iterator[Row]:
    """The rows, and plain mappings as rows."""
    for number, row in enumerate(rows, start=1):
        yield row if isinstance(row, Row) else _of_mapping(number, row)


def _of_mapping(number: int, values: Mapping[str, Any]) -> Row:
    try:
        check_json(values)
    except InputError as error:
        return Row(number, None, fault=error.message, reason=error.reason)
    return Row(number, values)


def convert(
    rows: Iterable[Row], read: Callable[[Mapping[str, Any]], Sequence[_T]], *, skip_bad: bool
) -> tuple[list[tuple[_T, str]], int, list[str]]:
    """What `read` makes of each row with the row's place, the number of rows, and why rows were left out, a line each.

    Args:
        read: one row's examples; raises InputError with the reason when it has none.
        skip_bad: leave faulty rows out; otherwise they are an InputError that names the first of them.
    """
    examples: list[tuple[_T, str]] = []
    errors: list[InputError] = []
    num_rows = 0
    for num_rows, row in enumerate(rows, start=1):  # noqa: B007  (the last number is how many there were)
        try:
            examples += [(example, row.place) for example in read(row.values)]
        except InputError as error:
            errors.append(error if row.data is None else error.at(row.place))
    if num_rows == 0:
        raise InputError("there are no rows", hint="give at least one example", reason="empty")
    if errors and not skip_bad:
        raise refusal(errors, num_rows)
    if not examples:
        raise _none_left(errors, num_rows)
    return examples, num_rows, [error.message for error in errors]


def refusal(errors: Sequence[InputError], num_rows: int) -> InputError:
    """The error of faulty rows that are not to be left out: what is wrong with the first of them, and the first one's advice and reason."""
    way = "--skip-bad (data.skip_bad in a settings file, skip_bad=True in Python)"
    advice = next((error.hint for error in errors if error.hint is not None), None)
    return InputError(
        f"{_count(len(errors), 'row')} of {num_rows} cannot be used:\n{_listed(errors)}",
        hint=f"repair them, or leave them out: {way}" if advice is None else f"{advice}; or leave such rows out: {way}",
        reason=errors[0].reason,
    )


def _none_left(errors: Sequence[InputError], num_rows: int) -> InputError:
    return InputError(
        f"none of the {_count(num_rows, 'row')} can be used:\n{_listed(errors)}", hint=errors[0].hint, reason=errors[0].reason
    )


def _listed(errors: Sequence[InputError]) -> str:
    """The first few faults, a line each, and how many there are besides."""
    lines = [f"  {error.message}" for error in errors[:NUM_FAULTS_SHOWN]]
    if len(errors) > NUM_FAULTS_SHOWN:
        lines.append(f"  and {len(errors) - NUM_FAULTS_SHOWN} more")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@dataclass(frozen=True, slots=True)
class Format(Generic[_T]):
    """A way to lay out examples in columns.

    Attributes:
        needs: columns that every row has.
        takes: columns that it may have besides.
        read: one row's examples; raises InputError with the reason when it has none.
    """

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    read: Callable[[_Values], Sequence[_T]]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needs + self.takes


def load(
    rows: Iterable[Row | _Values],
    formats: Sequence[Format[_T]],
    format: str,
    columns: Mapping[str, str] | None,
    *,
    skip_bad: bool,
    elsewhere: Callable[[Sequence[str]], str | None] = lambda _: None,
) -> Loaded[_T]:
    """Read rows in one of `formats`.

    Args:
        format: its name, or "auto": the first whose columns are all there.
        columns: our name of a column -> its name in the file.
        elsewhere: what these columns are good for when they are none of `formats`, for the message.
    """
    remaining = iter(as_rows(rows))
    head = list(islice(remaining, _NUM_LOOKED_AT))
    renaming = dict(columns or {})
    present = list(dict.fromkeys(name for row in head if row.data is not None for name in row.data))
    if not present:
        convert(head, _refuse_empty, skip_bad=False)  # says what is wrong with them, or that there are none
    _check_renaming(renaming, present, formats)
    names = [*renaming, *(name for name in present if name not in renaming.values() and name not in renaming)]
    chosen = _choose(names, formats, format, elsewhere)
    unusable = sorted(renaming.keys() - set(chosen.columns))
    if unusable:
        raise SettingError(
            f"the format {chosen.name} has no column {', '.join(unusable)}",
            hint=f"its columns are {', '.join(chosen.columns)}",
            reason="unknown_column",
        )
    seen: dict[str, None] = {}

    def read(values: _Values) -> Sequence[_T]:
        own = _renamed(values, renaming)
        seen.update(dict.fromkeys(own))
        missing = [name for name in chosen.needs if own.get(name) is None]
        if missing:
            raise InputError(f"the column {missing[0]} is missing or empty; there are {', '.join(own) or 'none'}", reason="missing_column")
        for name in _MEDIA:
            if own.get(name):
                raise InputError(f"the column {name} holds {name}; only text can be trained", hint=_MEDIA_HINT, reason="unsupported_field")
        return chosen.read(own)

    examples, num_rows, faults = convert(chain(head, remaining), read, skip_bad=skip_bad)
    used = tuple(name for name in chosen.columns if name in seen)
    unused = tuple(name for name in seen if name not in used)
    places = tuple(place for _, place in examples)
    shown = tuple(faults[:NUM_FAULTS_SHOWN])
    return Loaded(tuple(example for example, _ in examples), chosen.name, num_rows, used, unused, len(faults), shown, places)


def _choose(
    names: Sequence[str], formats: Sequence[Format[_T]], format: str, elsewhere: Callable[[Sequence[str]], str | None]
) -> Format[_T]:
    by_name = {layout.name: layout for layout in formats}
    if format != AUTO:
        if format not in by_name:
            raise SettingError(f"there is no format {format!r} here", hint=f"choose {AUTO}, {', '.join(by_name)}", reason="unknown_format")
        missing = [name for name in by_name[format].needs if name not in names]
        if missing:
            raise InputError(
                f"the format {format} needs the column {', '.join(missing)}; there are {', '.join(names)}",
                hint=f'say which column it is: --column {missing[0]}=NAME (columns={{"{missing[0]}": "NAME"}})',
                reason="missing_column",
            )
        return by_name[format]
    for layout in formats:
        if all(name in names for name in layout.needs):
            return layout
    other = elsewhere(names)
    known = "; ".join(f"{layout.name}: {' + '.join(layout.needs)}" for layout in formats)
    raise InputError(
        f"the columns {', '.join(names)} are no format that is known here ({known})",
        hint=other
        or 'say which column is which, for example --column prompt=NAME --column completion=NAME (columns={"prompt": "NAME", ...})',
        reason="unknown_format",
    )


def _refuse_empty(values: _Values) -> Sequence[_T]:
    raise InputError(f"it has no columns: {values}", reason="no_columns")


def _check_renaming(renaming: Mapping[str, str], present: Sequence[str], formats: Sequence[Format[_T]]) -> None:
    known = list(dict.fromkeys(name for layout in formats for name in layout.columns))
    for ours, theirs in renaming.items():
        if ours not in known:
            raise SettingError(
                f"{ours} is no column of any format here",
                hint=f"to the left of = stands one of {', '.join(known)}",
                reason="unknown_column",
            )
        if theirs not in present:
            raise InputError(f"there is no column {theirs} to be read as {ours}; there are {', '.join(present)}", reason="missing_column")


def _renamed(values: _Values, renaming: Mapping[str, str]) -> dict[str, Any]:
    if not renaming:
        return dict(values)
    moved = {ours: values[theirs] for ours, theirs in renaming.items() if theirs in values}
    return moved | {name: value for name, value in values.items() if name not in renaming.values() and name not in renaming}
