"""Checkpoint folders: written aside, synced, renamed, so that `kill -9` at any point leaves the newest complete one readable.

A checkpoint is `step-000007/` holding what the trainer wrote and `checkpoint.json`: the format and the version of the code that wrote
it, the step, what the service wants to remember, and name, size and sha256 of every file. Not for what is inside: the trainer and the
service write and read that. Which steps of a run stay on disk: `kept_steps`, below.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from journeyman.errors import StoreError
from journeyman.store.home import make_folder, sync, sync_tree
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Retention
from journeyman.version import __version__

#: Raised by one when what a checkpoint holds changes so that older code cannot read it. 1 had no random state, settings or version.
CHECKPOINT_FORMAT: Final = 2

#: Told the name of every point that a writer passes: a kill there must be survived. Tests kill there; in use it does nothing.
Reached = Callable[[str], None]

_MANIFEST = "checkpoint.json"
_COMPLETE = re.compile(r"step-(\d{6,})")
_ASIDE = ".writing-"
_REPLACED = ".replaced-"
_DELETED = ".deleted-"
_SET_ASIDE = "damaged-"


def pass_by(point: str) -> None:
    """Nothing happens at any point."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint. `memo` is what the writer wanted to remember with it, `version` that of the code that wrote it."""

    step: int
    folder: Path
    memo: Mapping[str, Any]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Damaged:
    """A checkpoint that cannot be gone on from, and why."""

    folder: Path
    reason: str


class Checkpoints:
    """The checkpoints under one folder."""

    def __init__(self, folder: Path, reached: Reached = pass_by) -> None:
        self._folder = folder
        self._reached = reached

    def save(self, step: int, write: Callable[[Path], None], memo: Mapping[str, Any] | None = None) -> Checkpoint:
        """Make a checkpoint of what `write` puts into the folder it is given; complete and durable when this returns.

        A checkpoint of the same step is replaced. Raises StoreError when the disk is full or the folder cannot be written; then
        nothing of it stays, and what was there before is untouched.
        """
        target = self._folder / f"step-{step:06d}"
        manifest = {"format": CHECKPOINT_FORMAT, "version": __version__, "step": step, "memo": dict(memo or {})}
        with replaced_folder(target, self._reached, "checkpoint") as aside:
            write(aside)
            self._reached("checkpoint filled")
            manifest |= {"files": _sizes(aside), "sha256": _hashes(aside)}
            (aside / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return Checkpoint(step, target, dict(memo or {}))

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint with the highest step; incomplete ones are passed over. Errors as `list`."""
        return next(iter(self.list()), None)

    def list(self) -> tuple[Checkpoint, ...]:
        """All complete checkpoints by the names and sizes of their files, the highest step first.

        Raises StoreError when one of them was written by a newer version: what it holds cannot be read here, and passing it over would
        train its steps a second time.
        """
        checkpoints = (_load(folder) for folder in self._folders())
        complete = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, Checkpoint)]
        return tuple(sorted(complete, key=lambda checkpoint: checkpoint.step, reverse=True))

    def inspected(self) -> Iterator[Checkpoint | Damaged]:
        """All of them, the highest step first, each read from end to end when it is asked for: damage that keeps a file's size is seen
        here and not in `list`. Errors as `list`, for any of them at once."""
        self.list()
        for folder in sorted(self._folders(), key=lambda path: int(path.name.removeprefix("step-")), reverse=True):
            checkpoint = _load(folder)
            yield checkpoint if isinstance(checkpoint, Damaged) else _compared(checkpoint)

    def set_aside(self, damaged: Damaged) -> Path:
        """Rename it, so that nothing goes on from it; returns where it is to be looked at. Raises StoreError."""
        aside = damaged.folder.with_name(f"{_SET_ASIDE}{damaged.folder.name}-{secrets.token_hex(4)}")
        try:
            damaged.folder.rename(aside)
            sync(aside.parent)
        except OSError as error:
            raise StoreError(
                f"the damaged checkpoint {damaged.folder} cannot be set aside: {error.strerror or error}",
                hint=f"make {aside.parent} writable, or move the folder away yourself",
            ) from error
        return aside

    def keep(self, steps: Container[int]) -> None:
        """Delete all complete checkpoints but those of `steps` and the newest one."""
        for checkpoint in self.list()[1:]:
            if checkpoint.step not in steps:
                self.delete(checkpoint)

    def delete(self, checkpoint: Checkpoint) -> None:
        # Renamed first: a kill half-way through the deletion must not leave half a checkpoint under a good name.
        # Its prefix is not that of a replaced one, which may be wanted back.
        doomed = checkpoint.folder.with_name(f"{_DELETED}{checkpoint.folder.name}-{secrets.token_hex(4)}")
        checkpoint.folder.rename(doomed)
        sync(doomed.parent)
        shutil.rmtree(doomed, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed writer left behind. Only for the one process that writes here."""
        clean_leftovers(self._folder)

    def _folders(self) -> tuple[Path, ...]:
        if not self._folder.is_dir():
            return ()
        return tuple(entry for entry in self._folder.iterdir() if _COMPLETE.fullmatch(entry.name))


@contextlib.contextmanager
def replaced_folder(target: Path, reached: Reached = pass_by, what: str = "folder") -> Iterator[Path]:
    """A fresh folder to fill; when the block ends well it is synced and renamed to `target`, otherwise removed.

    `reached` is called with the points on the way; their names begin with `what`. Raises StoreError when the disk is full or the place
    cannot be written.
    """
    suffix = f"{target.name}-{secrets.token_hex(4)}"
    aside = target.with_name(_ASIDE + suffix)
    try:
        make_folder(aside.parent)
        aside.mkdir()
        reached(f"{what} begun")
        yield aside
        reached(f"{what} written")
        sync_tree(aside)
        reached(f"{what} synced")
        replaced = target.with_name(_REPLACED + suffix)
        if is_replacing := target.exists():
            target.rename(replaced)
        try:
            aside.rename(target)
        except OSError:
            if is_replacing:
                replaced.rename(target)
            raise
        reached(f"{what} renamed")
        sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors says with an error of its own that the disk is full
        raise StoreError(
            f"cannot write {target}: {getattr(error, 'strerror', None) or error}",
            hint=f"free some disk space, or make {target.parent} writable; what was there before is untouched",
            reason="not_writable",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clean_leftovers(folder: Path) -> None:
    """Remove half-written and half-deleted folders that a killed process left in `folder`."""
    if not folder.is_dir():
        return
    entries = [entry.name for entry in folder.iterdir()]
    for name in entries:
        path = folder / name
        original = _original_name(name)
        is_wanted_back = original is not None and original not in entries and name.startswith(_REPLACED)
        if original is not None and is_wanted_back and isinstance(_load(path), Checkpoint):
            # Killed between the two renames of a replacement: the older one is still the newest complete one of its step.
            path.rename(folder / original)
        elif original is not None:
            shutil.rmtree(path, ignore_errors=True)


def _original_name(name: str) -> str | None:
    for prefix in (_ASIDE, _REPLACED, _DELETED):
        if name.startswith(prefix):
            return name.removeprefix(prefix).rpartition("-")[0]
    return None


def _load(folder: Path) -> Checkpoint | Damaged:
    """Damaged when it is not complete. What its files hold is not looked at."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if int(manifest.get("format", 1)) > CHECKPOINT_FORMAT:
            raise _newer(folder, manifest)
        sizes = _sizes(folder)
        sizes.pop(_MANIFEST, None)
        wrong = sorted(name for name in sizes.keys() | manifest["files"].keys() if sizes.get(name) != manifest["files"].get(name))
        if wrong:
            return Damaged(folder, f"missing, cut or not its own: {', '.join(wrong)}")
        return Checkpoint(int(manifest["step"]), folder, manifest["memo"], str(manifest.get("version", "an early version")))
    except FileNotFoundError:
        return Damaged(folder, f"it has no {_MANIFEST}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Damaged(folder, f"its {_MANIFEST} cannot be read: {type(error).__name__}: {error}")


def _compared(checkpoint: Checkpoint) -> Checkpoint | Damaged:
    """Damaged when a file holds other bytes than were written. Manifests of earlier versions have no hashes: they are taken as they are."""
    try:
        expected = json.loads((checkpoint.folder / _MANIFEST).read_text(encoding="utf-8")).get("sha256", {})
        actual = _hashes(checkpoint.folder) if expected else {}
    except (OSError, ValueError) as error:
        return Damaged(checkpoint.folder, f"it cannot be read: {error}")
    wrong = sorted(name for name, digest in expected.items() if actual.get(name) != digest)
    return Damaged(checkpoint.folder, f"other bytes than were written: {', '.join(wrong)}") if wrong else checkpoint


def _newer(folder: Path, manifest: Mapping[str, Any]) -> StoreError:
    writer = manifest.get("version", "a newer version")
    return StoreError(
        f"the checkpoint {folder} was written by Journeyman {writer} (format {manifest['format']}); this is Journeyman {__version__}, "
        f"which reads formats up to {CHECKPOINT_FORMAT}",
        hint=f"install journeyman {writer} or newer to go on with this run, or start a new run; the checkpoint is untouched",
        reason="newer_version",
    )


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for name in _sizes(folder):
        with open(folder / name, "rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    hashes.pop(_MANIFEST, None)
    return hashes


# Retention ------------------------------------------------------------------------------------------------------------


def kept_steps(steps: Iterable[int], newest: int, retention: Retention, scores: Mapping[int, float]) -> frozenset[int]:
    """Those of `steps` to keep: the `newest` newest, the best by `scores`, and every n-th.

    Example:
        >>> sorted(kept_steps(range(7), 2, Retention(best=1, every=3), {1: 0.2, 4: 0.9, 5: 0.1}))
        [0, 3, 4, 5, 6]
    """
    present = sorted(set(steps))
    kept = set(present[-newest:])
    sign = -1.0 if retention.best_is == "lowest" else 1.0
    by_score = sorted((step for step in present if step in scores), key=lambda step: (sign * scores[step], step))
    kept.update(by_score[-retention.best :] if retention.best else ())
    if retention.every:
        kept.update(step for step in present if step % retention.every == 0)
    return frozenset(kept)


def version_scores(rows: Iterable[StepMetrics], metric: str) -> dict[int, float]:
    """The score of each version by a metric of the steps.

    The attempts of training step n were made by version n - 1, so that is the one that a training metric tells about; a metric of
    another phase (`eval`) tells about the version of its own step.
    """
    return {row.step - (row.phase == "train"): row.metrics[metric] for row in rows if metric in row.metrics}


def missing_metric(rows: Sequence[StepMetrics], retention: Retention) -> str | None:
    """A line when the best versions were asked for, and no step has the metric: then none is kept. Nobody asked by the defaults.

    None before the second step of the training itself: a warm start has other metrics.
    """
    known = {name for row in rows for name in row.metrics}
    is_default = (retention.metric, retention.best) == (Retention().metric, Retention().best)
    if is_default or not retention.best or retention.metric in known or sum(row.phase == "train" for row in rows) < 2:
        return None
    near = difflib.get_close_matches(retention.metric, known, n=3, cutoff=0.5)
    there = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
    return f"no step has the metric {retention.metric!r} (retention.metric), so no version is kept for being the best; {there}"
