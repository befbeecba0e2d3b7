"""Going on with a run: which attempts of the step in flight can be taken as they are, and what of changed settings is shown, refused
unless allowed, and never ignored.

Not for where a resume goes on: that is read from the run's checkpoints and rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from journeyman.errors import SettingError
from journeyman.recipes.settings import GrpoTrain, McpTrain
from journeyman.store import Store
from journeyman.store.checkpoints import Checkpoints
from journeyman.store.runs import Change, differences
from journeyman.types.record import Record
from journeyman.types.secrets import ALL_HIDDEN
from journeyman.version import __version__

_S = TypeVar("_S", bound=Record)

#: May change without a question: a run may go on longer, be given more money, or keep more on disk.
_FREE: Final = ("steps", "judge_options.budget", "judge.budget", "retention")
#: Shaped what the run already has (its model, its scenarios and their order), so another value could not be honoured any more.
_FIXED: Final = ("method", "name", "base", "lora", "seed", "tools", "writer", "scenarios", "data", "num_train", "num_heldout")
#: What a judge said under other values is not what it would say now.
_JUDGING: Final = ("judge", "judge_options")
#: Of the rollouts' settings, those that do not change what an attempt is.
_AROUND_ATTEMPTS: Final = frozenset({"groups_per_step", "group_size", "max_refills", "max_concurrent"})
#: Over once reinforcement learning has begun.
_FIXED_IN_TRAINING: Final = ("warm_start",)


def step_key(phase: str, number: int) -> str:
    """What the attempts of a step (from 0) are found by: see `gather`."""
    return f"{phase}-{number}"


def attempts_shape(settings: GrpoTrain | McpTrain) -> str:
    """A hash of how attempts are made, which their keys end in: attempts that were made otherwise are not found by it."""
    if isinstance(settings, GrpoTrain):
        shape: tuple[object, ...] = (settings.rollout.model_dump(mode="json"),)
    else:
        shape = (_comparable(settings.target), settings.rollouts.model_dump(mode="json", exclude=set(_AROUND_ATTEMPTS)))
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:8]


def checkpoint_version(store: Store, run: str) -> str | None:
    """The version of Journeyman that wrote the run's newest checkpoint; None when it has none.

    Raises StoreError for one that only a newer version reads: that comes before anything else that such a run has and we do not know.
    """
    newest = Checkpoints(store.home.run(run).checkpoints).newest()
    return None if newest is None else newest.version


def run_settings(store: Store, run: str, kind: type[_S]) -> _S:
    """The settings that a run was made with. Raises NotFoundError, StoreError as `checkpoint_version`, SettingError for others."""
    settings, version = store.runs.get(run).settings, checkpoint_version(store, run)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the settings"
        by = f"by Journeyman {version}" if version else "by another version, or by another program"
        raise SettingError(
            f"the settings of run {run!r} cannot be read: {name}: {first['msg']}; they were written {by}, this is Journeyman {__version__}",
            hint="go on with the version that made the run, or start a new one; nothing of it was changed",
            reason="unreadable_settings",
        ) from error


def accept_settings(store: Store, run: str, settings: Record, *, are_allowed: bool) -> tuple[Change, ...]:
    """Make `settings` those that `run` goes on with, and return what changed, for the user to see. Errors as `changed_settings`.

    When the judge changed, what it said of the step in flight is forgotten; see `open_model` for a run whose checkpoints were damaged.
    """
    changes = changed_settings(store, run, settings, are_allowed=are_allowed)
    if is_other_judge(changes):  # before the settings are kept: a kill in between would hide that they changed
        for phase in ("warmup", "train"):
            store.rollouts.forget_verdicts(run, step_key(phase, len(store.runs.steps(run, phase))))
    store.runs.update(run, settings=settings.model_dump(mode="json"))
    return changes


def is_other_judge(changes: Sequence[Change]) -> bool:
    """Whether what the judge said before is not what it would say now."""
    return any(_is_one_of(change, _JUDGING) and not _is_one_of(change, _FREE) for change in changes)


def changed_settings(store: Store, run: str, settings: Record, *, are_allowed: bool) -> tuple[Change, ...]:
    """What differs between `settings` and those of `run`, what may always change with it; nothing is written.

    Settings that the run was started without, because its version did not have them, count as their defaults. Raises SettingError for a
    change that is not allowed, or that cannot be honoured any more, and what `run_settings` raises.
    """
    before = _comparable(run_settings(store, run, type(settings)))
    fixed = _FIXED + (_FIXED_IN_TRAINING if store.runs.steps(run, "train") else ())
    changes = differences(before, _comparable(settings))
    check_changes(run, [change for change in changes if not _is_one_of(change, _FREE)], fixed=fixed, are_allowed=are_allowed)
    return changes


def check_changes(run: str, changes: Sequence[Change], *, fixed: Sequence[str], are_allowed: bool) -> None:
    """Raises SettingError for a change that is not allowed, or of a setting in `fixed`."""
    late = [change for change in changes if _is_one_of(change, fixed)]
    if late:
        raise SettingError(
            f"run {run!r} cannot go on with these settings changed: {_listed(late)}",
            hint="they shaped what it already has; start a new run with them",
            reason="settings_fixed",
        )
    if changes and not are_allowed:
        raise SettingError(
            f"run {run!r} was started with other settings: {_listed(changes)}",
            hint="leave them as they were, or go on with the new ones: --allow-changed-settings",
            reason="settings_changed",
        )


def _comparable(settings: Record) -> dict[str, Any]:
    """Settings to compare: another secret in the same place is no other setting."""
    return settings.model_dump(mode="json", context=ALL_HIDDEN)


def _is_one_of(change: Change, names: Sequence[str]) -> bool:
    return any(change.name == name or change.name.startswith(f"{name}.") for name in names)


def _listed(changes: Sequence[Change]) -> str:
    return "; ".join(map(str, changes))
