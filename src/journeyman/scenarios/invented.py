"""Made-up tool results for drills, so that the warm start shows what reading a result looks like without showing a real one.

Keys and values are drawn from general pools; only the names of the leaves that tasks ask for may come from the server. What real results
look like, and what is right about them, is left to reinforcement learning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from journeyman.scenarios.results import Path
from journeyman.scenarios.words import humanise_path

_KEYS = (
    "status count total price name code level rate score size weight height distance duration start_date end_date updated_at owner color "
    "category currency balance temperature humidity version priority region country city language unit average minimum maximum label kind"
).split()
_OUTER = "source target origin destination first second before after old new result data details summary".split()
_WORDS = "amber birch cedar delta ember fjord grove harbor island jasper kernel lagoon meadow nectar orchid pebble quartz river".split()

# What is asked for is said before its value: a small model then copies the right one.
_ANSWERS = ("The {L} is {V}.", "The {L} you asked for is {V}.", "Its {L} is {V}.")
_ANSWERS_OF_TWO = ("The {L} is {V} and {W}.", "The {L} is {V}, and for the other it is {W}.", "The first {L} is {V}, the second is {W}.")
_SAME = ("The {L} is the same.", "Both have the same {L}.")
_DIFFERENT = ("The {L} is different.", "They have a different {L}.")

# How often the names under an outer key stand under another one too, with other values.
_TWIN_SHARE = 0.8
# How often another leaf that tasks ask for stands in a made-up result.
_OTHER_LEAF_SHARE = 0.7

Draw = Callable[[random.Random], Any]


def _decimal(rng: random.Random) -> float:
    return round(rng.uniform(0, 500), rng.choice((1, 2)))


def _moment(rng: random.Random) -> str:
    day = f"20{rng.randint(10, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return (
        f"{day}T{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}{rng.choice(('Z', '+02:00', '-05:00', '+09:30'))}"
    )


_VALUES: tuple[Draw, ...] = (
    lambda rng: rng.randint(0, 9999),
    _decimal,
    lambda rng: rng.choice(_WORDS),
    lambda rng: f"{rng.choice(_WORDS)} {rng.choice(_WORDS)}",
    _moment,
    _moment,
    lambda rng: _moment(rng)[:10],
    lambda rng: _moment(rng)[11:16],
    lambda rng: f"{rng.choice('+-')}{rng.randint(1, 12)}.{rng.choice('05')}{rng.choice(('h', 'm', 'km', '%'))}",
    lambda rng: f"{rng.choice('ABCDEFGH')}{rng.randint(10, 999)}",
)


def invent_question(leaves: Sequence[Path], rng: random.Random) -> tuple[Path, Draw]:
    """The path of a leaf to ask for and how its values are drawn. Half of the time one that the server's tasks ask for, else invented."""
    path: Path = rng.choice(leaves) if leaves and rng.random() < 0.5 else _path(rng)
    return _names(path) or _path(rng), rng.choice(_VALUES)


def invent_result(arguments: dict[str, Any], path: Path, value: Any, rng: random.Random, leaves: Sequence[Path] = ()) -> str:
    """A made-up JSON result with `value` at `path`, that echoes some arguments and holds other things.

    Where the path has an outer key, another one may hold a value of the same name; and most of the other `leaves` that tasks ask for
    stand beside it with values of any kind: what is asked for must be read, not guessed.
    """
    result: dict[str, Any] = {name: echoed for name, echoed in arguments.items() if rng.random() < 0.5}
    for _ in range(rng.randint(0, 4)):
        _put(result, _path(rng), rng.choice(_VALUES)(rng))
    if len(path) > 1:
        _surround(result, path, rng)
    others = [other for leaf in leaves if (other := _names(leaf)) and not _is_within(other, path) and rng.random() < _OTHER_LEAF_SHARE]
    placed = [*others, path]
    rng.shuffle(placed)
    for each in placed:
        _put(result, each, value if each == path else rng.choice(_VALUES)(rng))
    items = list(result.items())
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=False, separators=(",", ":"))


def invent_answer(path: Path, values: Sequence[Any], rng: random.Random) -> str:
    """One short sentence that states the value, or both values in order."""
    templates = _ANSWERS if len(values) == 1 else _ANSWERS_OF_TWO
    return _state(rng.choice(templates), path, values)


def invent_comparison(path: Path, values: Sequence[Any], rng: random.Random) -> str:
    """One short sentence that says whether the two values are the same."""
    return _state(rng.choice(_SAME if values[0] == values[1] else _DIFFERENT), path, values)


def _state(template: str, path: Path, values: Sequence[Any]) -> str:
    text = template.replace("{L}", humanise_path(path))
    for mark, value in zip(("{V}", "{W}"), values, strict=False):
        text = text.replace(mark, str(value))
    return text[:1].upper() + text[1:]


def _surround(result: dict[str, Any], path: Path, rng: random.Random) -> None:
    """Other values beside the one asked for, under its outer key and most of the time under another outer key too, by the same names."""
    names = [*(_path(rng)[-1] for _ in range(rng.randint(0, 3))), path[-1]]
    outers = [path[:-1]]
    if rng.random() < _TWIN_SHARE:
        outers.append((rng.choice([name for name in _OUTER if name != path[0]]), *path[1:-1]))
    rng.shuffle(names)
    for outer in outers:
        for name in names:
            _put(result, (*outer, name), rng.choice(_VALUES)(rng))


def _names(path: Path) -> Path:
    """The path without places in lists."""
    return tuple(part for part in path if isinstance(part, str))


def _is_within(one: Path, other: Path) -> bool:
    """Whether one of the paths leads to, or through, the other: both cannot hold a value."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _path(rng: random.Random) -> Path:
    key = rng.choice(_KEYS)
    return (rng.choice(_OUTER), key) if rng.random() < 0.3 else (key,)


def _put(result: dict[str, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        below = result.get(str(part))
        if not isinstance(below, dict):
            below = result[str(part)] = {}
        result = below
    result[str(path[-1])] = value
