"""Export one version: write it aside, load it again, compare it with what is served, and put it in place.

    with Store.open(home) as store:
        exported = export_run(store, "time-1", ExportSettings(format="merged"))

An export is whole or not there: the folder is written aside and renamed when it has been checked. Not for uploading (`hub.py`) nor for what
a format consists of.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from journeyman.config import path_of
from journeyman.errors import SettingError, StoreError
from journeyman.export import check, gguf_check
from journeyman.export.card import gguf_name, use, write_card
from journeyman.export.check import answer, preferred
from journeyman.export.gguf_file import require_writable, tools_of_run, write_gguf, write_modelfile
from journeyman.export.hub import HubRepository
from journeyman.export.probes import Agreement, Probe, compare, probe_prompts
from journeyman.export.settings import ExportSettings
from journeyman.export.version import (
    Version,
    base_reference,
    base_title,
    find_adapter,
    open_version,
    served_module,
    write_merged,
    write_peft,
)
from journeyman.modeling.precision import choose_precision
from journeyman.observe.progress import Progress, SilentProgress
from journeyman.store.checkpoints import Reached, pass_by, replaced_folder
from journeyman.store.locks import ServedFolder, is_served
from journeyman.store.store import Store
from journeyman.types.messages import Tool
from journeyman.version import __version__


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export gave.

    Attributes:
        folder: where it lies.
        version: `model@step`.
        agreement: the export, loaded again, against the version in float32.
        measured: further comparisons with the same reference, by name: the version as this machine serves it, where that is in bfloat16;
            a GGUF file in llama.cpp itself, where that is installed.
        commands: exact lines that use it.
        notes: what a user should know.
        url: its address on the hub, when it was uploaded.
    """

    folder: Path
    version: str
    agreement: Agreement
    measured: Mapping[str, Agreement]
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    url: str | None = None


def export_run(
    store: Store,
    run: str,
    settings: ExportSettings,
    *,
    out: Path | None = None,
    model: str | None = None,
    step: int | None = None,
    may_replace: bool = False,
    push_to: HubRepository | None = None,
    progress: Progress | None = None,
    reached: Reached = pass_by,
) -> Exported:
    """Export a run's newest version, or that of `step`. Blocks for seconds to minutes.

    Args:
        out: the folder to make; `exports/<model>-step<N>-<format>` in the run's folder when None.
        model: needed only where the run trained several.
        may_replace: an earlier export at `out` is replaced; anything else there never is.
        push_to: upload the checked export there.
        reached: is called with each point on the way of the write.

    Raises:
        NotFoundError: unknown run or step, or a run that trained nothing.
        SettingError: `out` is taken, the format cannot be written for this model, or an adapter to upload is of a base without a Hugging
            Face id.
        AdapterError: the export does not answer as the served version does; nothing of it stays.
        StoreError: no room, or a folder that cannot be written; nothing of it stays. An upload that failed: the export stays.
    """
    progress = progress or SilentProgress()
    row = find_adapter(store, run, model=model, step=step)
    name = f"{row.model}-step{row.step}-{settings.name}"
    target = path_of(out if out is not None else store.home.run(run).exports / name).absolute()
    check_target(target, may_replace=may_replace)
    progress.phase("load", note=row.name)
    with open_version(store, row, progress.note) as version:
        if settings.format == "gguf":
            require_writable(version)
        if settings.format == "peft" and push_to is not None:
            _require_public_base(version)
        card_place = target if push_to is None else push_to.name
        writer = _Writer(version, settings, target, card_place, tools_of_run(store, run), progress, reached)
        exported = writer.write(probe_prompts(version.renderer, store, run))
    if push_to is None:
        return exported
    progress.phase("upload", note=push_to.name)
    return replace(exported, url=push_to.upload(target, f"{exported.version} of run {run}"))


def _require_public_base(version: Version) -> None:
    """An adapter works with the base that it names: uploaded, that name must be one that others can load."""
    if base_reference(version)[1] is None:
        raise SettingError(
            f"an adapter of {base_title(version)} is of no use on the hub: that base has no Hugging Face id, so nobody else could load it",
            hint="upload the whole model: --format merged, or --format gguf",
            reason="base_not_public",
        )


class _Writer:
    """One export on its way. Holds at most one model of float32 at a time, as far as the steps allow."""

    def __init__(
        self,
        version: Version,
        settings: ExportSettings,
        target: Path,
        card_place: Path | str,
        tools: tuple[Tool, ...],
        progress: Progress,
        reached: Reached,
    ) -> None:
        self._version = version
        self._settings = settings
        self._target = target
        self._card_place = card_place
        self._tools = tools
        self._progress = progress
        self._reached = reached

    def write(self, prompts: tuple[tuple[int, ...], ...]) -> Exported:
        version, settings = self._version, self._settings
        module = served_module(version)
        check_room(self._target, settings.bytes_needed(sum(one.numel() for one in module.parameters())))
        self._progress.phase("reference", note=f"greedy tokens of {version.adapter.name} on {len(prompts)} probe prompts")
        probes = answer(module, prompts, version.renderer.stop_token_ids)
        with fresh_folder(self._target, self._reached) as folder:
            self._progress.phase("write", note=str(self._target))
            self._write_weights(module, folder)
            del module
            gc.collect()
            self._progress.phase("check", note="load it again and compare")
            agreement = self._check(folder, probes)
            measured = self._measure(folder, probes)
            notes = self._notes()
            checks = {"by loading it again": agreement, **measured}
            lines = use(version, settings, self._card_place)
            write_card(version, folder, what=settings.words, checks=checks, commands=lines, notes=notes)
            write_manifest(folder, self._record(agreement, measured))
        return Exported(self._target, version.adapter.name, agreement, measured, use(version, settings, self._target), notes)

    def _write_weights(self, module: nn.Module, folder: Path) -> None:
        if self._settings.format == "peft":
            write_peft(self._version, folder)
        elif self._settings.format == "gguf":
            file = folder / gguf_name(self._version, self._settings)
            write_gguf(self._version, module, file, self._settings.quant)
            write_modelfile(self._version, folder, file.name, self._tools)
        else:
            write_merged(self._version, module, folder, self._settings.dtype)

    def _check(self, folder: Path, probes: tuple[Probe, ...]) -> Agreement:
        if self._settings.format == "peft":
            return check.check_peft(self._version, folder, probes)
        if self._settings.format == "gguf":
            file = folder / gguf_name(self._version, self._settings)
            return check.require_same_model(gguf_check.check_gguf(file, probes), self._settings.quant)
        return check.check_merged(self._version, folder, probes, is_exact=self._settings.dtype == "float32")

    def _measure(self, folder: Path, probes: tuple[Probe, ...]) -> dict[str, Agreement]:
        measured = {}
        if self._settings.format == "gguf" and gguf_check.is_available():
            file = folder / gguf_name(self._version, self._settings)
            found = gguf_check.check_in_llama_cpp(self._version.renderer, file, probes)
            measured[gguf_check.IN_LLAMA_CPP] = check.require_same_model(found, self._settings.quant, gguf_check.IN_LLAMA_CPP)
        if choose_precision() == "bfloat16":
            # Machines whose processor multiplies bfloat16 serve in it, and differ from float32 themselves.
            module = served_module(self._version, "bfloat16")
            measured["as served here, in bfloat16"] = compare(probes, [preferred(module, probe) for probe in probes])
        return measured

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._settings.format == "gguf" and not gguf_check.is_available():
            notes.append(f"Not checked in llama.cpp itself, which is not installed here: {gguf_check.HOW_TO_GET}")
        if self._version.adapter.step == 0:
            notes.append("Step 0 is untrained: it answers as the base model does.")
        return tuple(notes)

    def _record(self, agreement: Agreement, measured: Mapping[str, Agreement]) -> dict[str, Any]:
        version = self._version
        return {
            "journeyman": __version__,
            "run": version.run.id,
            "version": version.adapter.name,
            "fingerprint": version.adapter.fingerprint,
            "base": base_title(version),
            **self._settings.model_dump(mode="json"),
            "agreement": agreement.record(),
            "measured": {name: one.record() for name, one in measured.items()},
        }


# Places ---------------------------------------------------------------------------------------------------------------


MANIFEST = "journeyman.json"


def check_target(target: Path, *, may_replace: bool) -> None:
    """Raises SettingError when something stands at `target` that may not be replaced: only an earlier export ever may."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        raise SettingError(
            f"{target} is there already and is no export", hint="give another folder with --out; it will be made", reason="not_an_export"
        )
    if not may_replace:
        raise SettingError(
            f"{target} is there already",
            hint="replace that export with --force, or give another folder with --out",
            reason="already_exported",
        )


def check_room(target: Path, num_bytes: int) -> None:
    """Raises StoreError when the disk of `target` has no room for `num_bytes`."""
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise StoreError(
            f"the export needs {num_bytes / 1e9:.2f} GB under {target.parent}, where {free / 1e9:.2f} GB are free",
            hint="free some disk space, or give a folder on another disk with --out",
            reason="no_room",
        )


@contextlib.contextmanager
def fresh_folder(target: Path, reached: Reached = pass_by) -> Iterator[Path]:
    """A folder to fill; when the block ends well it becomes `target`, otherwise nothing of it stays.

    What killed exports of the same target left behind is removed. Raises StoreError when the disk is full or cannot be written.
    """
    _clean(target)
    with replaced_folder(target, reached, "export") as aside:
        held = ServedFolder(aside)  # an export beside this one must not take it for a left-over
        try:
            yield aside
        finally:
            held.release()


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _clean(target: Path) -> None:
    for left in target.parent.glob(f".writing-{glob.escape(target.name)}-*"):
        if left.is_dir() and not is_served(left):
            shutil.rmtree(left, ignore_errors=True)
