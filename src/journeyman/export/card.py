"""The README of an export: what it is, where it comes from, what was measured, and the exact lines that use it (nothing is run).

Its first lines are a model card's metadata as the Hugging Face hub reads them. Nothing of a run's target (command, headers, environment)
is in it: an export may be published.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from journeyman.chat.reply import CALL_OPEN
from journeyman.export.probes import Agreement
from journeyman.export.settings import ExportSettings
from journeyman.export.version import Version, base_reference, base_title
from journeyman.modeling.base_models import known_names
from journeyman.version import __version__

# Texts among a run's settings that are names of choices; every other text could be a command, an address or a key.
_CHOICES = frozenset({"kind", "method", "loss", "advantage", "mismatch", "kl_estimator", "when_too_long", "importance", "judge_kind"})


def write_card(
    version: Version, folder: Path, *, what: str, checks: Mapping[str, Agreement], commands: Sequence[str], notes: Sequence[str] = ()
) -> None:
    """Write `folder/README.md`. `what` is the export's kind in words, `checks` what was compared with the served version, and how."""
    name, revision = base_reference(version)
    metadata: dict[str, Any] = {"library_name": "peft" if what.startswith("LoRA") else "transformers", "tags": ["journeyman", "lora"]}
    if revision is not None:
        metadata["base_model"] = name
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=True).strip(),
        "---",
        "",
        f"# {version.adapter.model}, step {version.adapter.step}",
        "",
    ]
    lines += [f"{what} of the version `{version.adapter.name}`, trained with Journeyman {__version__}.", ""]
    checked = {f"checked {how}": one.text() for how, one in checks.items()}
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in (_facts(version, revision) | checked).items()), ""]
    lines += [*(f"{note}\n" for note in notes)]
    lines += ["## Held-out result", "", *held_out_lines(version.report), ""]
    lines += ["## Use", "", *(f"```\n{command}\n```\n" for command in commands)]
    if settings := plain_settings(version.run.settings):
        lines += ["## Settings", "", "| setting | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in settings.items()), ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _facts(version: Version, revision: str | None) -> dict[str, str]:
    return {
        "run": f"`{version.run.id}`",
        "step": str(version.adapter.step),
        "base model": f"`{base_title(version)}`" + (f" at revision `{revision}`" if revision else _honest_base(version)),
        "adapter fingerprint": f"`{version.adapter.fingerprint}`",
        "chat template": "the base model's own" if version.renderer.template.is_own else "Journeyman's: ChatML with Hermes tool calls",
        "tokens that end a turn": ", ".join(f"`{text}`" for text in version.stop_texts),
    }


def _honest_base(version: Version) -> str:
    """A folder is not something that a reader elsewhere has: say what it is."""
    if version.run.base in known_names():
        return f" (a conversion of Journeyman's own: `journeyman models fetch {version.run.base}` makes it)"
    return " (a folder on the machine that trained it)"


def held_out_lines(report: Path) -> list[str]:
    """What the run's report or its result says; a sentence where there is none."""
    try:
        return _report_lines(json.loads((report / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    try:
        final = json.loads((report / "result.json").read_text(encoding="utf-8"))["final"]
        return [f"- {name}: {value:.4g}" for name, value in final.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ["None was recorded for this run."]


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    main = report["evaluations"][0]
    lines = [f"{main['num_scenarios']} held-out scenarios, {main['sampling']}, 95 % intervals:", ""]
    for variant in main["variants"]:
        success, missing = variant["success"], sum(variant.get("missing", {}).values())
        line = f"- {variant['name']} (`{variant['model']}`): {success['mean']:.1%} [{success['low']:.1%}, {success['high']:.1%}]"
        lines.append(f"{line}, {missing} attempts missing" if missing else line)
    return lines


def plain_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers, switches and named choices of a run's settings, by dotted name. Other text is left out: it may hold secrets.

    Example:
        >>> plain_settings({"lora": {"rank": 16}, "target": {"headers": {"Authorization": "Bearer x"}}, "loss": "gspo"})
        {'lora.rank': 16, 'loss': 'gspo'}
    """
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "target":  # what it was trained on: a command or an address, of no use elsewhere
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= plain_settings(value, f"{name}.")
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and key in _CHOICES):
            out[name] = value
    return out


# Commands -------------------------------------------------------------------------------------------------------------


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
