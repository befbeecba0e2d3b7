"""Which columns make a format, and which format a file is in. Not for what is read out of them: see `examples.py`, `preferences.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from journeyman.data.rows import NUM_FAULTS_TOLD, Loaded, Row, as_rows, convert
from journeyman.errors import InputError, SettingError

_T = TypeVar("_T")
_Values = Mapping[str, Any]
AUTO = "auto"
_MEDIA = ("image", "images", "audio", "video", "videos")
_MEDIA_HINT = "leave such rows out (skip bad rows), or take the column out of the file if the texts make sense without it"
_NUM_LOOKED_AT = 32  # rows; one row may be odd


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
    given = iter(as_rows(rows))
    head = list(islice(given, _NUM_LOOKED_AT))
    renaming = dict(columns or {})
    found = list(dict.fromkeys(name for row in head if row.data is not None for name in row.data))
    if not found:
        convert(head, _refuse_empty, skip_bad=False)  # says what is wrong with them, or that there are none
    _check_renaming(renaming, found, formats)
    names = [*renaming, *(name for name in found if name not in renaming.values() and name not in renaming)]
    chosen = _choose(names, formats, format, elsewhere)
    unusable = sorted(renaming.keys() - set(chosen.columns))
    if unusable:
        raise SettingError(
            f"the format {chosen.name} has no column {', '.join(unusable)}", hint=f"its columns are {', '.join(chosen.columns)}"
        )
    seen: dict[str, None] = {}

    def read(values: _Values) -> Sequence[_T]:
        own = _renamed(values, renaming)
        seen.update(dict.fromkeys(own))
        missing = [name for name in chosen.needs if own.get(name) is None]
        if missing:
            raise InputError(f"the column {missing[0]} is missing or empty; there are {', '.join(own) or 'none'}")
        for name in _MEDIA:
            if own.get(name):
                raise InputError(f"the column {name} holds {name}; only text can be trained", hint=_MEDIA_HINT, reason="unsupported_field")
        return chosen.read(own)

    examples, num_rows, faults = convert(chain(head, given), read, skip_bad=skip_bad)
    used = tuple(name for name in chosen.columns if name in seen)
    unused = tuple(name for name in seen if name not in used)
    places = tuple(place for _, place in examples)
    told = tuple(faults[:NUM_FAULTS_TOLD])
    return Loaded(tuple(example for example, _ in examples), chosen.name, num_rows, used, unused, len(faults), told, places)


def _choose(
    names: Sequence[str], formats: Sequence[Format[_T]], format: str, elsewhere: Callable[[Sequence[str]], str | None]
) -> Format[_T]:
    by_name = {one.name: one for one in formats}
    if format != AUTO:
        if format not in by_name:
            raise SettingError(f"there is no format {format!r} here", hint=f"choose {AUTO}, {', '.join(by_name)}")
        missing = [name for name in by_name[format].needs if name not in names]
        if missing:
            raise InputError(
                f"the format {format} needs the column {', '.join(missing)}; there are {', '.join(names)}",
                hint=f'say which column it is: --column {missing[0]}=NAME (columns={{"{missing[0]}": "NAME"}})',
            )
        return by_name[format]
    for one in formats:
        if all(name in names for name in one.needs):
            return one
    other = elsewhere(names)
    known = "; ".join(f"{one.name}: {' + '.join(one.needs)}" for one in formats)
    raise InputError(
        f"the columns {', '.join(names)} are no format that is known here ({known})",
        hint=other
        or 'say which column is which, for example --column prompt=NAME --column completion=NAME (columns={"prompt": "NAME", ...})',
    )


def _refuse_empty(values: _Values) -> Sequence[_T]:
    raise InputError(f"it has no columns: {values}")


def _check_renaming(renaming: Mapping[str, str], found: Sequence[str], formats: Sequence[Format[_T]]) -> None:
    known = list(dict.fromkeys(name for one in formats for name in one.columns))
    for ours, theirs in renaming.items():
        if ours not in known:
            raise SettingError(f"{ours} is no column of any format here", hint=f"to the left of = stands one of {', '.join(known)}")
        if theirs not in found:
            raise InputError(f"there is no column {theirs} to be read as {ours}; there are {', '.join(found)}")


def _renamed(values: _Values, renaming: Mapping[str, str]) -> dict[str, Any]:
    if not renaming:
        return dict(values)
    moved = {ours: values[theirs] for ours, theirs in renaming.items() if theirs in values}
    return moved | {name: value for name, value in values.items() if name not in renaming.values() and name not in renaming}
