"""What runs learn from: tasks (`method: grpo`), and examples and pairs (`method: sft`, `method: dpo`).

Tasks come from a file or a function of the user's own, examples from rows of a data set or from scored attempts of a run. Every row is
read as tokens once, with the base model's tokenizer alone, so that one that could not be learned from is named by its place before a run is
made. What a run began with is kept with it, and it goes on with that only.

Not for tasks of an MCP server (`journeyman.scenarios`), nor for reading files of rows (`journeyman.data`).
"""

from __future__ import annotations

import hashlib
import inspect
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from journeyman.client.pairs import best_trajectories, pairs_from_groups
from journeyman.config import path_of
from journeyman.data import Loaded, preference_pairs, read_rows, sft_examples
from journeyman.errors import InputError, SettingError, stops_everything
from journeyman.local import open_renderer
from journeyman.recipes.functions import accepted, find_function
from journeyman.recipes.settings import DataSource, DpoTrain, SftTrain, shipped_or
from journeyman.service.examples import check_pair, example_samples
from journeyman.store import Store
from journeyman.store.home import write_durably
from journeyman.types.json_text import parse_json
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.text_files import json_line, json_lines, read_records
from journeyman.types.training import PreferencePair, SftExample, StoredExample, StoredPair, TextExample, TextPair
from journeyman.types.trajectory import Group

_Example = TypeVar("_Example", bound=Record)
_AnySft = SftExample | TextExample | StoredExample
_AnyPair = PreferencePair | TextPair | StoredPair
_HASH_FILE = "examples.sha256"


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
            reason="too_few_examples",
        )
    train = tuple(one for at, one in enumerate(examples) if at not in chosen)
    return Examples(train, tuple(one for at, one in enumerate(examples) if at in chosen), note, faults)


@dataclass(slots=True)
class Attempts:
    """Groups, read once and one at a time.

    Attributes:
        min_reward: what an attempt needs to be imitated.
        task_of: of each attempt read so far the task.
        num_truncated: those read so far that had the reward and were cut off.
    """

    groups: Iterable[Group]
    min_reward: float = 0.0
    task_of: dict[str, str] = field(default_factory=dict)
    num_truncated: int = 0

    def __iter__(self) -> Iterator[Group]:
        for group in self.groups:
            for one in group:
                self.task_of[one.id] = group.scenario.id
                self.num_truncated += one.reward is not None and one.reward >= self.min_reward and one.is_truncated
            yield group


def scored_groups(home: Path, run: str, base: str) -> Iterator[Group]:
    """The attempts at one task that one version made together and that have rewards; not those at held-out tasks: they stay unseen."""
    if not home.is_dir():
        raise InputError(
            f"data.from_run: there is no home folder {home}", hint="give --home, the folder that the run is in", reason="no_home"
        )
    with Store.open(home) as store:
        info = store.runs.get(run)
        if info.base != base:
            raise SettingError(
                f"data.from_run: run {run!r} is of base {info.base!r}, not {base!r}",
                hint=f"tokens are of one model: set base: {info.base}",
                reason="other_base",
            )
        unseen = _heldout_ids(store.home.run(run).path)
        members: dict[tuple[str, str, str | None], list[str]] = {}
        for row in store.rollouts.list_of_run(run):
            if row.is_sealed and row.scenario_id not in unseen:
                # A judge compares those that were gathered together: the scores of a probe say nothing beside those of a step.
                members.setdefault((row.model, row.scenario_id, row.gathering), []).append(row.id)
        for (_, scenario, _), names in members.items():
            scored = tuple(one for one in map(store.rollouts.trajectory, names) if one.reward is not None)
            if scored:
                yield Group(scenario=Scenario(id=scenario, task=""), trajectories=scored)


def _heldout_ids(folder: Path) -> set[str]:
    """Ids of a run's held-out tasks, from where its recipe keeps them."""
    heldout: set[str] = set()
    for path in (folder / "scenarios.jsonl", folder / "scenarios" / "heldout.jsonl"):
        if path.is_file():
            heldout |= {one.id for one in read_records(path, Scenario) if one.split == "heldout" or path.parent != folder}
    return heldout


@dataclass(frozen=True, slots=True)
class ExampleSteps(Generic[_Example]):
    """Examples in steps.

    Attributes:
        train, heldout: the examples.
        epochs: passes over `train`, each in an order of its own that `seed` decides.
        step_size: examples of one step; the last step of an epoch may have fewer.
        limit: of the steps; None: as many as the passes take.
    """

    train: Sequence[_Example]
    heldout: Sequence[_Example]
    epochs: int
    step_size: int
    seed: str
    limit: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.step_size)

    @property
    def num_steps(self) -> int:
        whole = self.epochs * self.steps_per_epoch
        return whole if self.limit is None else min(self.limit, whole)

    def of_step(self, number: int) -> list[_Example]:
        """The examples of step `number` (from 0), whatever came before it."""
        epoch, index = divmod(number, self.steps_per_epoch)
        order = list(range(len(self.train)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return [self.train[place] for place in order[index * self.step_size : (index + 1) * self.step_size]]

    def digest(self) -> str:
        """A hash of all examples: a run that goes on has the same ones."""
        digest = hashlib.sha256()
        for example in (*self.train, *self.heldout):
            digest.update(json_line(example).encode())
        return digest.hexdigest()


def keep_digest(steps: ExampleSteps[_Example], folder: Path) -> None:
    """Keep the examples' hash with the run, or compare with the one that is there. Raises SettingError when they changed."""
    path, digest = folder / _HASH_FILE, steps.digest()
    # An empty one is what a power loss left of an earlier version's.
    if not path.exists() or not path.stat().st_size:
        write_durably(path, f"{digest}\n".encode())
    elif path.read_text(encoding="utf-8").strip() != digest:
        hint = "restore the data, or start a new run with it"
        raise SettingError("the examples are not those that this run began with", hint=hint, reason="other_data")


def load_scenarios(source: str, *, seed: int, num_train: int | None, num_heldout: int) -> tuple[Scenario, ...]:
    """The tasks of a run, training and held-out, each with its split.

    Args:
        source: a file that ends in .jsonl, or the dotted path of a function. It is called with those of the keywords `count` and `seed`
            that it takes, and returns scenarios.
        seed: of what is held out, and for the function.

    Scenarios that say `heldout` themselves are the held-out ones; where none does, `num_heldout` are chosen by the seed.

    Raises SettingError, InputError naming the file and line.
    """
    is_file = source.endswith((".jsonl", ".json")) or "/" in source
    found = read_scenarios(Path(source)) if is_file else _made(source, seed, None if num_train is None else num_train + num_heldout)
    if not found:
        raise InputError(f"scenarios: {source} holds no tasks", reason="too_few_tasks")
    return _split_tasks(source, found, seed=seed, num_train=num_train, num_heldout=num_heldout)


def read_scenarios(path: Path) -> list[Scenario]:
    """Scenarios of a JSON-lines file; one without an id is named after its line. Raises InputError naming the file and line."""
    scenarios: dict[str, Scenario] = {}
    for number, line in json_lines(path_of(path)):
        scenario = _scenario(line, f"{path}, line {number}", f"line-{number}")
        if scenario.id in scenarios:
            text = f"{path}, line {number}: the id {scenario.id!r} came before"
            raise InputError(text, hint="give every task an id of its own, or none", reason="repeated_id")
        scenarios[scenario.id] = scenario
    return list(scenarios.values())


def keep_scenarios(scenarios: Sequence[Scenario], path: Path) -> None:
    """Keep them with a run, one a line, and beside them how many there are and their hash; or compare with those that the run has.

    Raises StoreError; SettingError when they are not those that the run began with.
    """
    lines = "".join(map(json_line, scenarios)).encode()
    digest = f"{hashlib.sha256(lines).hexdigest()} {len(scenarios)}"
    beside = path.with_suffix(".sha256")
    known = beside.read_text(encoding="utf-8").strip() if beside.exists() else ""
    if known and known != digest:
        raise SettingError(
            f"the run began with {known.partition(' ')[2]} tasks, and {path} holds {len(scenarios)}, not all of them the same",
            hint=f"restore {path.name} from a backup, or start a new run; the run goes on only with the tasks that it began with",
            reason="other_data",
        )
    if not path.exists():
        write_durably(path, lines)
    if not known:  # also of a run that an earlier version made
        write_durably(beside, f"{digest}\n".encode())


def _scenario(line: bytes, where: str, name: str) -> Scenario:
    try:
        data: Any = parse_json(line)
    except InputError as error:
        raise error.at(where) from error
    if not isinstance(data, dict) or not isinstance(data.get("task"), str):
        raise InputError(f'{where} is not a task: it needs at least {{"task": "..."}}', hint=f"found: {str(data)[:80]}", reason="no_task")
    unknown = sorted(data.keys() - Scenario.model_fields.keys())
    if unknown:
        hint = 'what your reward needs stands under "data": {...}'
        raise InputError(f"{where}: unknown names: {', '.join(unknown)}", hint=hint, reason="unknown_names")
    try:
        return Scenario.model_validate({"id": name, **data})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}", reason="no_task") from error


def _made(path: str, seed: int, count: int | None) -> list[Scenario]:
    function = find_function(path, setting="scenarios")
    keywords = {"seed": seed} if count is None else {"seed": seed, "count": count}
    if inspect.iscoroutinefunction(function):
        raise SettingError(
            f"scenarios: {path} is async", hint="write it with `def`: it is called before anything runs", reason="async_function"
        )
    try:
        returned = function(**accepted(function, keywords))
        scenarios = list(returned) if isinstance(returned, Iterable) else [returned]
    except BaseException as error:  # the user's function, which may also fail while it is iterated over
        if stops_everything(error):
            raise
        hint = "mend it; it is given those of the keywords `count` (where num_train is set) and `seed` that it takes"
        raise SettingError(f"scenarios: {path} failed: {type(error).__name__}: {error}", hint=hint, reason="function_failed") from error
    for one in scenarios:
        if not isinstance(one, Scenario):
            raise SettingError(
                f"scenarios: {path} gave a {type(one).__name__}", hint="return journeyman.Scenario objects", reason="no_task"
            )
    if len({one.id for one in scenarios}) < len(scenarios):
        raise SettingError(f"scenarios: {path} gave two scenarios of one id", hint="give every task an id of its own", reason="repeated_id")
    return scenarios


def _split_tasks(source: str, found: list[Scenario], *, seed: int, num_train: int | None, num_heldout: int) -> tuple[Scenario, ...]:
    heldout = [one for one in found if one.split == "heldout"]
    train = [one for one in found if one.split == "train"]
    if not heldout and num_heldout:
        random.Random(f"heldout/{seed}").shuffle(train)
        heldout, train = train[:num_heldout], train[num_heldout:]
    wanted = len(train) if num_train is None else num_train
    if len(heldout) < num_heldout or len(train) < max(wanted, 1):
        raise SettingError(
            f"scenarios: {source} has {len(found)} tasks, {len(train)} to train on and {len(heldout)} held out; "
            f"{num_train or 'some'} and {num_heldout} are needed",
            hint="set num_train and num_heldout lower, or give more tasks",
            reason="too_few_tasks",
        )
    chosen = [one.model_copy(update={"split": "train"}) for one in train[:wanted]]
    return (*chosen, *(one.model_copy(update={"split": "heldout"}) for one in heldout[:num_heldout]))
