"""A trainable model, and where it goes on when it is opened again: at its newest checkpoint that can be read, with nothing left of later
steps.

A trainer gives the same bits from the same weights, attempts and settings only where it computes alike; so each checkpoint says how it did,
and holds the state of every global source of random numbers in this process: `random`, and numpy and torch where they are imported.
Journeyman draws from seeds or from the operating system, so its own steps do not depend on these; a program around it may.
Not for a step that fails (`training.py`).
"""

from __future__ import annotations

import base64
import json
import logging
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from journeyman.errors import AdapterError, StoreError
from journeyman.store.checkpoints import Checkpoint, Checkpoints, Damaged
from journeyman.store.locks import RunLock
from journeyman.store.models import ModelRow
from journeyman.store.store import Store
from journeyman.trainer.base import Trainer
from journeyman.types.names import Version
from journeyman.types.training import CreateModel
from journeyman.version import __version__

_log = logging.getLogger(__name__)

_RANDOM_FILE = "random.json"

#: How a trainer computes, by name: the number of workers, the precision, the version of torch.
Computing = Mapping[str, Any]

#: Makes the trainer of a model at step 0 and says how it computes: as before, where it can. Before is empty for a new run. Blocks.
MakeTrainer = Callable[[CreateModel, Computing], tuple[Trainer, Computing]]


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A model that can be trained here: its settings, its trainer, its checkpoints, and the lock on its run.

    `computing`: how the trainer computes. `opening_notes`: what of its opening is not reported yet. `reported`: settings that were
    named in a note once.
    """

    row: ModelRow
    trainer: Trainer
    checkpoints: Checkpoints
    lock: RunLock
    computing: Computing = field(default_factory=dict)
    opening_notes: list[str] = field(default_factory=list)
    reported: set[str] = field(default_factory=set)

    def take_opening_notes(self) -> tuple[str, ...]:
        """The opening notes; the next time there are none."""
        notes = tuple(self.opening_notes)
        self.opening_notes.clear()
        return notes

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def version(self) -> Version:
        """What its trainer holds."""
        return Version(self.name, self.trainer.step)


@dataclass(frozen=True, slots=True)
class Reopened:
    """The checkpoint that a model goes on from, and notes on later ones that were damaged."""

    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()


def load_newest(
    trainer: Trainer,
    checkpoints: Checkpoints,
    published: Mapping[int, str],
    check: Callable[[Checkpoint], None],
    *,
    with_random_state: bool = True,
) -> Reopened | None:
    """Put the trainer where the newest checkpoint is that can be read; None for a new model.

    Those after it are set aside.

    Args:
        published: of each published version its step and fingerprint.
        check: raises for a checkpoint that must not be gone on from here; that error is the caller's to see.
        with_random_state: put the random state of this process there too.

    Raises StoreError when there were checkpoints or trained versions and no checkpoint can be read.
    """
    damaged: list[Damaged] = []
    for checkpoint in checkpoints.inspected():
        if isinstance(checkpoint, Damaged):
            damaged.append(checkpoint)
            continue
        check(checkpoint)
        if checkpoint.version != __version__:
            _log.warning("checkpoint %s was written by Journeyman %s; this is %s", checkpoint.folder, checkpoint.version, __version__)
        try:
            _load(trainer, checkpoint, published.get(checkpoint.step))
            if with_random_state:
                load_random_state(checkpoint.folder)
        except (StoreError, AdapterError) as error:
            damaged.append(Damaged(checkpoint.folder, error.message))
            continue
        notes = tuple(
            f"checkpoint {broken.folder} is damaged ({broken.reason}): it lies in {checkpoints.set_aside(broken).name} now, and the "
            f"run goes on from step {checkpoint.step}"
            for broken in damaged
        )
        return Reopened(checkpoint, notes)
    if damaged or any(step > 0 for step in published):
        raise _nothing_readable(damaged, max(published, default=0))
    return None


def forget_later(store: Store, run: str, model: str, step: int) -> tuple[str, ...]:
    """Forget all that the store has of steps after `step`, and set the folders of their versions aside. Returns notes on it."""
    undone = store.undo_after(run, model, step)
    for row in undone.adapters:
        with suppress(OSError):  # not there any more is fine
            row.folder.rename(row.folder.with_name(f"{row.name}.set-aside-{int(row.created_at)}"))
    later = sorted({*undone.steps, *(row.step for row in undone.adapters)})
    if not later:
        return ()
    return (f"what {model} learned after step {step} is set aside (steps {later[0]} to {later[-1]}): those steps are made again",)


def _load(trainer: Trainer, checkpoint: Checkpoint, fingerprint: str | None) -> None:
    """Raises StoreError, AdapterError for a checkpoint that cannot be read or holds other weights than were published of its step."""
    trainer.load_state(checkpoint.folder)
    if trainer.step != checkpoint.step:
        raise StoreError(f"it says step {checkpoint.step} and holds step {trainer.step}")
    held = fingerprint and _held_fingerprint(trainer)
    if held and held != fingerprint:
        raise StoreError(f"its adapter is not the one that was published: fingerprint {held[:12]}…, expected {str(fingerprint)[:12]}…")


def _held_fingerprint(trainer: Trainer) -> str | None:
    """That of the adapter that the trainer has; None where nothing can be written, which says nothing of a checkpoint."""
    try:
        with tempfile.TemporaryDirectory(prefix="journeyman-") as folder:
            return trainer.save_adapter(Path(folder))
    except (OSError, SafetensorError):
        return None


def _nothing_readable(damaged: list[Damaged], newest_version: int) -> StoreError:
    listed = "; ".join(f"{broken.folder}: {broken.reason}" for broken in damaged) or "there is none"
    trained = f" and versions up to step {newest_version} were published" if newest_version else ""
    return StoreError(
        f"no checkpoint of this run can be read{trained}: {listed}",
        hint="restore one of these folders from a backup; or begin again as a new run, with another id. Nothing was changed, and "
        "what was published can still be served and exported",
        reason="no_checkpoint",
    )


def computing_note(before: Computing, now: Computing) -> tuple[str, ...]:
    """A line where a run goes on otherwise than it was computed before."""
    changed = [f"{name} {before[name]} -> {now[name]}" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    if not changed:
        return ()
    return (f"this run is computed otherwise than before ({', '.join(changed)}): it goes on, but not with the same bits",)


# Random state ---------------------------------------------------------------------------------------------------------


def save_random_state(folder: Path) -> None:
    """Write the states of all sources to `folder`."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, keys.tolist(), *rest]
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = _written_state(torch.get_rng_state())
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = [_written_state(state) for state in torch.cuda.get_rng_state_all()]
    (folder / _RANDOM_FILE).write_text(json.dumps(states), encoding="utf-8")


def load_random_state(folder: Path) -> None:
    """Put all sources where they were; a checkpoint without the file (an older format) leaves them as they are. Raises StoreError."""
    path = folder / _RANDOM_FILE
    if not path.exists():
        return
    try:
        _set_random_states(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise StoreError(f"the random state in {path} cannot be read: {type(error).__name__}: {error}") from error


def _set_random_states(states: dict[str, Any]) -> None:
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in states and (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype="uint32"), *rest))
    torch = sys.modules.get("torch")
    if "torch" in states and torch is not None:
        torch.set_rng_state(_read_state(torch, states["torch"]))
        if "cuda" in states and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
            torch.cuda.set_rng_state_all([_read_state(torch, state) for state in states["cuda"]])


def _written_state(state: Any) -> str:
    return base64.b64encode(bytes(state.tolist())).decode()


def _read_state(torch: Any, text: str) -> Any:
    return torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
