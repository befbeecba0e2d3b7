"""Export folders in Hugging Face's format: the adapter as PEFT keeps it, or the merged model. Written here, loaded again in `check.py`.

Both carry the tokenizer with the chat template that the model was trained and served with, and the tokens that end a turn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from journeyman.export.version import Version
from journeyman.modeling.base_models import quiet_libraries
from journeyman.modeling.lora import CONFIG_FILE, WEIGHTS_FILE, adapted_module
from journeyman.modeling.weights import load_module

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
