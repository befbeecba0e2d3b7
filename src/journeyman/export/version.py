"""Which version of a run is exported, everything that belongs to it (base model, tokenizer, template, adapter, record), and its folders in
Hugging Face's format: the adapter as PEFT keeps it, or the merged model. They are loaded again in `check.py`.

Both carry the tokenizer with the chat template that the model was trained and served with, and the tokens that end a turn.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from journeyman.chat.renderer import Renderer
from journeyman.config import cache_folder
from journeyman.errors import AdapterError, NotFoundError, SettingError
from journeyman.modeling.base_models import BaseModel, load_tokenizer, quiet_libraries, resolve_base
from journeyman.modeling.lora import CONFIG_FILE, WEIGHTS_FILE, adapted_module, fingerprint, read_adapter
from journeyman.modeling.weights import load_module
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
    def stop_texts(self) -> list[str]:
        """The tokens that end a turn, as text."""
        return [str(text) for text in self.tokenizer.convert_ids_to_tokens(list(self.renderer.stop_token_ids))]

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
        raise NotFoundError(f"run {run!r} has no model {model!r}", hint=f"its models: {', '.join(names) or 'none'}", reason="no_such_model")
    if model is None and len(names) > 1:
        raise SettingError(
            f"run {run!r} trained several models", hint=f"choose one with --model: {', '.join(names)}", reason="several_models"
        )
    chosen = model if model is not None else next(iter(names), None)
    rows = {row.step: row for row in store.models.adapters(run, chosen)} if chosen else {}
    if not rows:
        raise NotFoundError(
            f"run {run!r} ({info.state}) has no trained version to export",
            hint="train it first, or resume it; see: journeyman runs show RUN",
            reason="nothing_trained",
        )
    if step is None:
        return rows[max(rows)]
    if step not in rows:
        steps = ", ".join(str(number) for number in sorted(rows))
        raise NotFoundError(
            f"model {chosen!r} of run {run!r} has no step {step} on disk", hint=f"there are: {steps}", reason="no_such_step"
        )
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
        raise AdapterError(
            f"the folder of version {row.name} is gone: {row.folder}", hint="take another step with --step", reason="adapter_gone"
        ) from error
    try:
        tensors, scaling = read_adapter(row.folder)
        if fingerprint(tensors) != row.fingerprint:
            raise AdapterError(
                f"the adapter in {row.folder} is not the one that was trained as {row.name}",
                hint="was it changed by hand? Restore it, or take another step with --step",
                reason="adapter_changed",
            )
        config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        renderer = Renderer(load_tokenizer(base.folder), int(config.get_text_config().max_position_embeddings))
        yield Version(info, row, base, config, renderer, tensors, scaling, store.home.run(row.run).report)
    finally:
        held.release()


# Folders --------------------------------------------------------------------------------------------------------------


_SHARD_SIZE = "4GB"
_ATTENTION = "sdpa"  # transformers' own: ours needs a layout of the engine or the trainer


def served_module(version: Version, precision: str = "float32") -> nn.Module:
    """The version as the engine computes it, under transformers' own attention."""
    base = load_module(version.base.folder, precision="bfloat16" if precision == "bfloat16" else "float32")
    module = adapted_module(base, version.tensors, version.scaling)
    module.set_attn_implementation(_ATTENTION)  # type: ignore[operator]
    return module


def write_peft(version: Version, folder: Path) -> None:
    """The adapter's weights byte for byte, with a config that names the base model."""
    shutil.copyfile(version.adapter.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    config = json.loads((version.adapter.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    name, revision = base_reference(version)
    config |= {"base_model_name_or_path": name, "revision": revision, "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set: the same export gives the same bytes
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _write_tokenizer(version, folder)


def write_merged(version: Version, module: nn.Module, folder: Path, dtype: str) -> None:
    """`module` (see `served_module`) in `dtype`, "float32" or "bfloat16"; changes `module`."""
    model: Any = module.to(torch.bfloat16) if dtype == "bfloat16" else module
    model.generation_config = _generation_config(version)
    with quiet_libraries():
        model.save_pretrained(str(folder), max_shard_size=_SHARD_SIZE)
    _change_json(folder / "config.json", _older_position_settings)
    _write_tokenizer(version, folder)


def base_reference(version: Version) -> tuple[str, str | None]:
    """What to load the base model by, and its revision where that is a Hugging Face snapshot."""
    folder = version.base.folder
    if folder.parent.name == "snapshots" and version.base.name.count("/") == 1 and not Path(version.base.name).exists():
        return version.base.name, folder.name
    return str(folder), None


def base_title(version: Version) -> str:
    """The base model in words that may be published: its Hugging Face id, a name that Journeyman knows, or a folder's own name; no path."""
    name, revision = base_reference(version)
    return name if revision is not None else Path(version.run.base).name


def _write_tokenizer(version: Version, folder: Path) -> None:
    tokenizer = version.tokenizer
    tokenizer.chat_template = version.renderer.template.text
    tokenizer.save_pretrained(str(folder))
    _change_json(folder / "tokenizer_config.json", _known_tokenizer_class)


def _older_position_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Readers made before transformers 5 look for `rope_theta` at the top and silently take 10,000 where it is not."""
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    return config if theta is None else {"rope_theta": theta} | config


def _known_tokenizer_class(config: dict[str, Any]) -> dict[str, Any]:
    """The class under the name that every version of transformers knows, and nothing about where this machine loaded it from."""
    kept = {name: value for name, value in config.items() if name not in ("backend", "is_local", "local_files_only")}
    if kept.get("tokenizer_class") == "TokenizersBackend":
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    return kept


def _change_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8"))), indent=2) + "\n", encoding="utf-8")


def _generation_config(version: Version) -> Any:
    """Only what ends a turn. A base model's own sampling defaults (temperature, repetition penalty) are left out: the version was
    trained and measured without them."""
    from transformers import GenerationConfig

    config = version.config.get_text_config()
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=list(version.renderer.stop_token_ids),
        pad_token_id=config.pad_token_id if config.pad_token_id is not None else version.tokenizer.pad_token_id,
    )
