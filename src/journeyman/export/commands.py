"""The exact lines that use an export: Python, vLLM, llama.cpp, Ollama, the hub. Text only; nothing is run."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.chat.tool_calls import OPEN
from journeyman.export.model_folder import base_reference
from journeyman.export.settings import ExportSettings
from journeyman.export.version import Version

# The values that vLLM takes for --max-lora-rank.
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def gguf_name(version: Version, settings: ExportSettings) -> str:
    """The file name of a GGUF export."""
    return f"{version.slug}-{settings.quant}.gguf"


def use(version: Version, settings: ExportSettings, folder: Path) -> tuple[str, ...]:
    """The commands for a format, for the folder where it will lie."""
    if settings.format == "gguf":
        return _gguf(version, folder / gguf_name(version, settings))
    return _peft(version, folder) if settings.format == "peft" else _merged(version, folder)


def _peft(version: Version, folder: Path) -> tuple[str, ...]:
    base, revision = base_reference(version)
    where = "" if revision is None else f", revision={revision!r}"
    rank = next(allowed for allowed in _VLLM_RANKS if allowed >= version.rank)
    python = (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r}, dtype='float32'{where})\n"
        f"model = PeftModel.from_pretrained(base, {str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})"
    )
    vllm = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{version.slug}={folder}"]
    vllm += ["--chat-template", str(folder / "chat_template.jinja"), *_tool_flags(version)]
    if revision is not None:
        vllm += ["--revision", revision]
    return python, shlex.join(vllm)


def _merged(version: Version, folder: Path) -> tuple[str, ...]:
    python = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})"
    )
    return python, shlex.join(["vllm", "serve", str(folder), "--served-model-name", version.slug, *_tool_flags(version)])


def _gguf(version: Version, file: Path) -> tuple[str, ...]:
    create = shlex.join(["ollama", "create", version.slug, "-f", str(file.with_name("Modelfile"))])
    return shlex.join(["llama-server", "-m", str(file), "--jinja"]), f"{create}\n{shlex.join(['ollama', 'run', version.slug])}"


def _tool_flags(version: Version) -> list[str]:
    """vLLM's parser for calls in `<tool_call>`; other formats have parsers of their own, which only their makers know."""
    speaks_hermes = version.renderer.template.supports_tools and OPEN in version.renderer.template.text
    return ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"] if speaks_hermes else []
