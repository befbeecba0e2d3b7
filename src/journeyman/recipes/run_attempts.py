"""The scored attempts of a run, group by group, as examples are made of them. Not for which of them are chosen: `client/best.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.errors import InputError, SettingError
from journeyman.store import Store
from journeyman.types.scenarios import Scenario
from journeyman.types.text_files import read_records
from journeyman.types.trajectory import Group


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
        raise InputError(f"data.from_run: there is no home folder {home}", hint="give --home, the folder that the run is in")
    with Store.open(home) as store:
        info = store.runs.get(run)
        if info.base != base:
            raise SettingError(
                f"data.from_run: run {run!r} is of base {info.base!r}, not {base!r}", hint=f"tokens are of one model: set base: {info.base}"
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
    found: set[str] = set()
    for path in (folder / "scenarios.jsonl", folder / "scenarios" / "heldout.jsonl"):
        if path.is_file():
            found |= {one.id for one in read_records(path, Scenario) if one.split == "heldout" or path.parent != folder}
    return found
