"""The examples of `method: sft` and `method: dpo`, training and held-out: rows of a data set, or scored attempts of a run.

Every row is read as tokens once, with the base model's tokenizer alone, so that one that could not be learned from is told by its place
before a run is made.

Not for reading files (`journeyman.data`) nor for the order of training (`lessons.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from journeyman.client.best import best_trajectories
from journeyman.client.pairs import pairs_from_groups
from journeyman.data import Loaded, preference_pairs, read_rows, sft_examples
from journeyman.errors import InputError, SettingError
from journeyman.local import open_renderer
from journeyman.recipes.data_settings import DataSource
from journeyman.recipes.dpo_settings import DpoTrain
from journeyman.recipes.sft_settings import SftTrain
from journeyman.recipes.shipped import shipped_or
from journeyman.service.examples import example_samples
from journeyman.service.preferences import check_pair
from journeyman.store import Store
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.training import PreferencePair, SftExample, StoredExample, StoredPair, TextExample, TextPair
from journeyman.types.trajectory import Group

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
        groups = _scored_groups(home, data.from_run, settings.base)
        stored = best_trajectories(groups, min_reward=data.min_reward, at_most=data.max_per_task)
        note = f"{len(stored)} attempts of run {data.from_run} with a reward of {data.min_reward:g} or more"
        return _split(stored, data, settings.seed, note)
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
        pairs = pairs_from_groups(_scored_groups(home, data.from_run, settings.base), margin=data.margin)
        note = f"{len(pairs)} pairs of run {data.from_run}: best against worst of a group, more than {data.margin:g} apart"
        return _split(pairs, data, settings.seed, note)
    renderer = cache(lambda: open_renderer(settings.base))  # opened when rows have been read, so that faulty ones wait for no download

    def load(source: str, split: str | None) -> Loaded[PreferencePair | TextPair]:
        loaded = preference_pairs(read_rows(shipped_or(source), split), data.format, data.columns or None, skip_bad=data.skip_bad)
        return loaded.checked(lambda one, place: check_pair(one, place, renderer(), settings.dpo), skip_bad=data.skip_bad)

    return _of_source(data, settings.seed, load)


def _of_source(data: DataSource, seed: int, load: Callable[[str, str | None], Loaded[_Example]]) -> Examples[_Example]:
    source = str(data.source)
    loaded = load(source, data.split)
    if data.heldout_source is None and data.heldout_split is None:
        return _split(loaded.examples, data, seed, loaded.note, loaded.faults)
    apart = load(data.heldout_source or source, data.heldout_split)
    chosen = list(apart.examples)
    random.Random(f"heldout/{seed}").shuffle(chosen)
    note = f"{loaded.note}; held out: {apart.note}"
    return Examples(loaded.examples, tuple(chosen[: data.num_heldout]), note, loaded.faults + apart.faults)


def _split(examples: Sequence[_Example], data: DataSource, seed: int, note: str, faults: tuple[str, ...] = ()) -> Examples[_Example]:
    """`num_heldout` examples that the seed chooses are held out."""
    if len(examples) <= data.num_heldout:
        raise SettingError(
            f"{note}: {len(examples)} examples, of which {data.num_heldout} would be held out: none is left to train on",
            hint="set data.num_heldout lower, or give more examples",
        )
    order = list(range(len(examples)))
    random.Random(f"heldout/{seed}").shuffle(order)
    chosen = set(order[: data.num_heldout])
    train = tuple(one for at, one in enumerate(examples) if at not in chosen)
    return Examples(train, tuple(one for at, one in enumerate(examples) if at in chosen), note, faults)


def _scored_groups(home: Path, run: str, base: str) -> Iterator[Group]:
    """The attempts at one task by one version that have rewards; not those at held-out tasks: they stay unseen."""
    if not home.is_dir():
        raise InputError(f"data.from_run: there is no home folder {home}", hint="give --home, the folder that the run is in")
    with Store.open(home) as store:
        info = store.runs.get(run)
        if info.base != base:
            raise SettingError(
                f"data.from_run: run {run!r} is of base {info.base!r}, not {base!r}", hint=f"tokens are of one model: set base: {info.base}"
            )
        unseen = _heldout_ids(store.home.run(run).path)
        members: dict[tuple[str, str], list[str]] = {}
        for row in store.rollouts.list_of_run(run):
            if row.is_sealed and row.scenario_id not in unseen:
                members.setdefault((row.model, row.scenario_id), []).append(row.id)
        for (_, scenario), names in members.items():
            scored = tuple(one for one in map(store.rollouts.trajectory, names) if one.reward is not None)
            if scored:
                yield Group(scenario=Scenario(id=scenario, task=""), trajectories=scored)


def _heldout_ids(folder: Path) -> set[str]:
    """Ids of a run's held-out tasks, from where its recipe keeps them."""
    found: set[str] = set()
    for path in (folder / "scenarios.jsonl", folder / "scenarios" / "heldout.jsonl"):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            scenarios = [Scenario.model_validate_json(line) for line in lines if line.strip()]
            found |= {one.id for one in scenarios if one.split == "heldout" or path.parent != folder}
    return found
