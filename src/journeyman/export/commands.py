"""The exact lines that use an export: Python, vLLM, llama.cpp, Ollama, the hub. Text only; nothing is run."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.chat.reply import CALL_OPEN
from journeyman.export.model_folder import base_reference
from journeyman.export.settings import ExportSettings
from journeyman.export.version import Version

TEMPLATE_FILE = "chat_template.jinja"  # as transformers names it

# The values that vLLM takes for --max-lora-rank.
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def gguf_name(version: Version, settings: ExportSettings) -> str:
    """The file name of a GGUF export."""
    return f"{version.slug}-{settings.quant}.gguf"


def use(version: Version, settings: ExportSettings, place: Path | str) -> tuple[str, ...]:
    """The commands for a format. `place`: the folder where the export will lie, or its name on the Hugging Face hub."""
    if settings.format == "gguf":
        return _gguf(version, settings, place)
    return _peft(version, place) if settings.format == "peft" else _merged(version, place)


def _peft(version: Version, place: Path | str) -> tuple[str, ...]:
    base, revision = base_reference(version)
    where = "" if revision is None else f", revision={revision!r}"
    rank = next(allowed for allowed in _VLLM_RANKS if allowed >= version.rank)
    python = (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r}, dtype='float32'{where})\n"
        f"model = PeftModel.from_pretrained(base, {str(place)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(place)!r})"
    )
    template = str(place / TEMPLATE_FILE) if isinstance(place, Path) else TEMPLATE_FILE
    vllm = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{version.slug}={place}"]
    vllm += ["--chat-template", template, *_tool_flags(version)]
    if revision is not None:
        vllm += ["--revision", revision]
    if isinstance(place, Path):
        return python, shlex.join(vllm)
    return python, f"{shlex.join(['hf', 'download', place, TEMPLATE_FILE, '--local-dir', '.'])}\n{shlex.join(vllm)}"


def _merged(version: Version, place: Path | str) -> tuple[str, ...]:
    python = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(place)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(place)!r})"
    )
    return python, shlex.join(["vllm", "serve", str(place), "--served-model-name", version.slug, *_tool_flags(version)])


def _gguf(version: Version, settings: ExportSettings, place: Path | str) -> tuple[str, ...]:
    file = gguf_name(version, settings)
    if isinstance(place, Path):
        server = ["llama-server", "-m", str(place / file), "--jinja"]
        create = shlex.join(["ollama", "create", version.slug, "-f", str(place / "Modelfile")])
    else:
        server = ["llama-server", "-hf", place, "--hf-file", file, "--jinja"]
        create = f"{shlex.join(['hf', 'download', place, '--local-dir', '.'])}\n{shlex.join(['ollama', 'create', version.slug])}"
    return shlex.join(server), f"{create}\n{shlex.join(['ollama', 'run', version.slug])}"


def _tool_flags(version: Version) -> list[str]:
    """vLLM's parser for calls in `<tool_call>`; other formats have parsers of their own, which only their makers know."""
    speaks_hermes = version.renderer.template.supports_tools and CALL_OPEN in version.renderer.template.text
    return ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"] if speaks_hermes else []
