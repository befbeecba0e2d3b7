"""Which version of a run is exported, and everything that belongs to it: base model, tokenizer, template, adapter, record.

Not for writing anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from journeyman.chat.renderer import Renderer
from journeyman.config import cache_folder
from journeyman.errors import AdapterError, NotFoundError, SettingError
from journeyman.modeling.base_models import BaseModel, load_tokenizer, resolve_base
from journeyman.modeling.lora import fingerprint, read_adapter
from journeyman.store.locks import ServedFolder
from journeyman.store.models import AdapterRow
from journeyman.store.store import Store
from journeyman.types.runs import RunInfo


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a run's model, ready to be exported.

    Attributes:
        run: the run's record.
        adapter: the published version; its folder is held, so that a running training cannot delete it.
        base: the base model that it was trained on.
        config: of the base model (transformers).
        renderer: renders as the service does; its tokenizer is the base model's.
        tensors: the LoRA tensors; `scaling` is alpha / rank.
        report: the run's report folder; it may be absent.
    """

    run: RunInfo
    adapter: AdapterRow
    base: BaseModel
    config: Any
    renderer: Renderer
    tensors: Mapping[str, Tensor]
    scaling: float
    report: Path

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def rank(self) -> int:
        """The largest rank of an adapted layer."""
        return max(tensor.shape[0] for name, tensor in self.tensors.items() if ".lora_A." in name)

    @property
    def slug(self) -> str:
        """A name for files and for Ollama, which takes no "@"."""
        return f"{self.adapter.model}-step{self.adapter.step}"


def find_adapter(store: Store, run: str, *, model: str | None = None, step: int | None = None) -> AdapterRow:
    """The published version of that step; the newest, which is the one that is served, when `step` is None.

    `model` is needed only where a run trained several.

    Raises NotFoundError: unknown run, a run without a version, another model or step than there is.
    """
    info = store.runs.get(run)
    names = [row.name for row in store.models.list(run)]
    if model is not None and model not in names:
        raise NotFoundError(f"run {run!r} has no model {model!r}", hint=f"its models: {', '.join(names) or 'none'}")
    if model is None and len(names) > 1:
        raise SettingError(f"run {run!r} trained several models", hint=f"choose one with --model: {', '.join(names)}")
    chosen = model if model is not None else next(iter(names), None)
    rows = {row.step: row for row in store.models.adapters(run, chosen)} if chosen else {}
    if not rows:
        raise NotFoundError(
            f"run {run!r} ({info.state}) has no trained version to export",
            hint="train it first, or resume it; see: journeyman runs show RUN",
        )
    if step is None:
        return rows[max(rows)]
    if step not in rows:
        steps = ", ".join(str(number) for number in sorted(rows))
        raise NotFoundError(f"model {chosen!r} of run {run!r} has no step {step} on disk", hint=f"there are: {steps}")
    return rows[step]


@contextlib.contextmanager
def open_version(store: Store, row: AdapterRow, note: Callable[[str], None] | None = None) -> Iterator[Version]:
    """Load what belongs to a version; its folder cannot be deleted while the block runs.

    Raises:
        AdapterError: the folder is gone, or it holds other weights than were trained.
        ModelNotFoundError: the base model cannot be found.
    """
    from transformers import AutoConfig

    info = store.runs.get(row.run)
    base = resolve_base(info.base, cache=cache_folder(), note=note)
    try:
        held = ServedFolder(row.folder)
    except OSError as error:
        raise AdapterError(f"the folder of version {row.name} is gone: {row.folder}", hint="take another step with --step") from error
    try:
        tensors, scaling = read_adapter(row.folder)
        if fingerprint(tensors) != row.fingerprint:
            raise AdapterError(
                f"the adapter in {row.folder} is not the one that was trained as {row.name}",
                hint="was it changed by hand? Restore it, or take another step with --step",
            )
        config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        renderer = Renderer(load_tokenizer(base.folder), int(config.get_text_config().max_position_embeddings))
        yield Version(info, row, base, config, renderer, tensors, scaling, store.home.run(row.run).report)
    finally:
        held.release()
