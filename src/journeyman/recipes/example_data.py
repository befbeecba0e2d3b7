"""The examples of `method: sft` and `method: dpo`, training and held-out: rows of a data set, or scored attempts of a run.

Every row is read as tokens once, with the base model's tokenizer alone, so that one that could not be learned from is told by its place
before a run is made.

Not for reading files (`journeyman.data`) nor for the order of training (`lessons.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from journeyman.client.best import best_trajectories
from journeyman.client.pairs import pairs_from_groups
from journeyman.data import Loaded, preference_pairs, read_rows, sft_examples
from journeyman.errors import SettingError
from journeyman.local import open_renderer
from journeyman.recipes.run_attempts import Attempts, scored_groups
from journeyman.recipes.settings import DataSource, DpoTrain, SftTrain, shipped_or
from journeyman.service.examples import example_samples
from journeyman.service.preferences import check_pair
from journeyman.types.record import Record
from journeyman.types.training import PreferencePair, SftExample, StoredExample, StoredPair, TextExample, TextPair

_Example = TypeVar("_Example", bound=Record)
_AnySft = SftExample | TextExample | StoredExample
_AnyPair = PreferencePair | TextPair | StoredPair


@dataclass(frozen=True, slots=True)
class Examples(Generic[_Example]):
    """Training and held-out examples, a line on where they come from, and why rows were left out, the first of them."""

    train: tuple[_Example, ...]
    heldout: tuple[_Example, ...]
    note: str
    faults: tuple[str, ...] = ()


def sft_data(settings: SftTrain, home: Path) -> Examples[_AnySft]:
    """What to imitate. Raises SettingError, InputError naming row and reason, NotFoundError for an unknown run, ModelNotFoundError."""
    data = settings.data
    if data.from_run is not None:
        attempts = Attempts(scored_groups(home, data.from_run, settings.base), data.min_reward)
        stored = best_trajectories(attempts, min_reward=data.min_reward, at_most=data.max_per_task)
        note = f"{len(stored)} attempts of run {data.from_run} with a reward of {data.min_reward:g} or more"
        if attempts.num_truncated:
            note += f"; {attempts.num_truncated} more were cut off at the token limit and are left out: they never learned to stop"
        return _split(stored, [attempts.task_of[one.trajectory_id] for one in stored], data, settings.seed, note)
    renderer = cache(lambda: open_renderer(settings.base))  # opened when rows have been read, so that faulty ones wait for no download

    def load(source: str, split: str | None) -> Loaded[SftExample | TextExample]:
        loaded = sft_examples(read_rows(shipped_or(source), split), data.format, data.columns or None, skip_bad=data.skip_bad)
        too_long = settings.sft.when_too_long
        return loaded.checked(lambda one, place: example_samples(one, place, renderer(), when_too_long=too_long), skip_bad=data.skip_bad)

    return _of_source(data, settings.seed, load)


def dpo_data(settings: DpoTrain, home: Path) -> Examples[_AnyPair]:
    """The pairs to compare. Errors as `sft_data`."""
    data = settings.data
    if data.from_run is not None:
        attempts = Attempts(scored_groups(home, data.from_run, settings.base))
        pairs = pairs_from_groups(attempts, margin=data.margin)
        note = f"{len(pairs)} pairs of run {data.from_run}: best against worst of a group, more than {data.margin:g} apart"
        return _split(pairs, [attempts.task_of[one.chosen] for one in pairs], data, settings.seed, note)
    renderer = cache(lambda: open_renderer(settings.base))  # opened when rows have been read, so that faulty ones wait for no download

    def load(source: str, split: str | None) -> Loaded[PreferencePair | TextPair]:
        loaded = preference_pairs(read_rows(shipped_or(source), split), data.format, data.columns or None, skip_bad=data.skip_bad)
        return loaded.checked(lambda one, place: check_pair(one, place, renderer(), settings.dpo), skip_bad=data.skip_bad)

    return _of_source(data, settings.seed, load)


def _of_source(data: DataSource, seed: int, load: Callable[[str, str | None], Loaded[_Example]]) -> Examples[_Example]:
    source = str(data.source)
    loaded = load(source, data.split)
    if data.heldout_source is None and data.heldout_split is None:
        return _split(loaded.examples, loaded.places, data, seed, loaded.note, loaded.faults)
    apart = load(data.heldout_source or source, data.heldout_split)
    chosen = list(apart.examples)
    random.Random(f"heldout/{seed}").shuffle(chosen)
    note = f"{loaded.note}; held out: {apart.note}"
    return Examples(loaded.examples, tuple(chosen[: data.num_heldout]), note, loaded.faults + apart.faults)


def _split(
    examples: Sequence[_Example], origins: Sequence[str], data: DataSource, seed: int, note: str, faults: tuple[str, ...] = ()
) -> Examples[_Example]:
    """`num_heldout` examples that the seed chooses are held out, and with them every other of their row or task (`origins`): what is
    trained has seen nothing of it."""
    members: dict[str, list[int]] = {}
    for at, origin in enumerate(origins):
        members.setdefault(origin, []).append(at)
    order = list(members)
    random.Random(f"heldout/{seed}").shuffle(order)
    chosen: set[int] = set()
    for origin in order:
        if len(chosen) < data.num_heldout:
            chosen.update(members[origin])
    if len(examples) <= len(chosen) or len(examples) <= data.num_heldout:
        of = "" if len(members) == len(examples) else f" of {len(members)} rows or tasks, which stay whole"
        raise SettingError(
            f"{note}: {len(examples)} examples{of}, of which {data.num_heldout} would be held out: none is left to train on",
            hint="set data.num_heldout lower, or give more examples",
        )
    train = tuple(one for at, one in enumerate(examples) if at not in chosen)
    return Examples(train, tuple(one for at, one in enumerate(examples) if at in chosen), note, faults)
