"""Where a run's tasks come from: a JSON-lines file, or a function of the user's own; which are held out; and kept with the run.

Not for tasks of an MCP server: `journeyman.scenarios` builds those.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from journeyman.config import path_of
from journeyman.errors import InputError, SettingError, stops_everything
from journeyman.recipes.functions import accepted, find_function
from journeyman.store.durable import write_durably
from journeyman.types.json_text import parse_json
from journeyman.types.scenarios import Scenario
from journeyman.types.text_files import json_line, json_lines


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
        raise InputError(f"scenarios: {source} holds no tasks")
    return _split(source, found, seed=seed, num_train=num_train, num_heldout=num_heldout)


def read_scenarios(path: Path) -> list[Scenario]:
    """Scenarios of a JSON-lines file; one without an id is named after its line. Raises InputError naming the file and line."""
    found: dict[str, Scenario] = {}
    for number, line in json_lines(path_of(path)):
        one = _scenario(line, f"{path}, line {number}", f"line-{number}")
        if one.id in found:
            raise InputError(f"{path}, line {number}: the id {one.id!r} came before", hint="give every task an id of its own, or none")
        found[one.id] = one
    return list(found.values())


def keep_scenarios(scenarios: Sequence[Scenario], path: Path) -> None:
    """Keep them with a run, one a line, and beside them how many there are and their hash; or compare with those that the run has.

    Raises StoreError; SettingError when they are not those that the run began with.
    """
    lines = "".join(map(json_line, scenarios)).encode()
    told = f"{hashlib.sha256(lines).hexdigest()} {len(scenarios)}"
    beside = path.with_suffix(".sha256")
    known = beside.read_text(encoding="utf-8").strip() if beside.exists() else ""
    if known and known != told:
        raise SettingError(
            f"the run began with {known.partition(' ')[2]} tasks, and {path} holds {len(scenarios)}, not all of them the same",
            hint=f"restore {path.name} from a backup, or start a new run; the run goes on only with the tasks that it began with",
        )
    if not path.exists():
        write_durably(path, lines)
    if not known:  # also of a run that an earlier version made
        write_durably(beside, f"{told}\n".encode())


def _scenario(line: bytes, where: str, name: str) -> Scenario:
    try:
        data: Any = parse_json(line)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint, reason=error.reason) from error
    if not isinstance(data, dict) or not isinstance(data.get("task"), str):
        raise InputError(f'{where} is not a task: it needs at least {{"task": "..."}}', hint=f"found: {str(data)[:80]}", reason="no_task")
    unknown = sorted(data.keys() - Scenario.model_fields.keys())
    if unknown:
        raise InputError(f"{where}: unknown names: {', '.join(unknown)}", hint='what your reward needs stands under "data": {...}')
    try:
        return Scenario.model_validate({"id": name, **data})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _made(path: str, seed: int, count: int | None) -> list[Scenario]:
    function = find_function(path, setting="scenarios")
    given = {"seed": seed} if count is None else {"seed": seed, "count": count}
    if inspect.iscoroutinefunction(function):
        raise SettingError(f"scenarios: {path} is async", hint="write it with `def`: it is called before anything runs")
    try:
        made = function(**accepted(function, given))
        found = list(made) if isinstance(made, Iterable) else [made]
    except BaseException as error:  # the user's function, which may also fail while it is iterated over
        if stops_everything(error):
            raise
        hint = "mend it; it is given those of the keywords `count` (where num_train is set) and `seed` that it takes"
        raise SettingError(f"scenarios: {path} failed: {type(error).__name__}: {error}", hint=hint) from error
    for one in found:
        if not isinstance(one, Scenario):
            raise SettingError(f"scenarios: {path} gave a {type(one).__name__}", hint="return journeyman.Scenario objects")
    if len({one.id for one in found}) < len(found):
        raise SettingError(f"scenarios: {path} gave two scenarios of one id", hint="give every task an id of its own")
    return found


def _split(source: str, found: list[Scenario], *, seed: int, num_train: int | None, num_heldout: int) -> tuple[Scenario, ...]:
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
        )
    chosen = [one.model_copy(update={"split": "train"}) for one in train[:wanted]]
    return (*chosen, *(one.model_copy(update={"split": "heldout"}) for one in heldout[:num_heldout]))
