"""The README of an export: what it is, where it comes from, what was measured, and how it is used.

Its first lines are a model card's metadata as the Hugging Face hub reads them. Nothing of a run's target (command, headers, environment)
is in it: an export may be published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from journeyman.export.model_folder import base_reference, base_title
from journeyman.export.probes import Agreement
from journeyman.export.version import Version
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
        "tokens that end a turn": ", ".join(f"`{text}`" for text in stop_texts(version)),
    }


def _honest_base(version: Version) -> str:
    """A folder is not something that a reader elsewhere has: say what it is."""
    if version.run.base in known_names():
        return f" (a conversion of Journeyman's own: `journeyman models fetch {version.run.base}` makes it)"
    return " (a folder on the machine that trained it)"


def stop_texts(version: Version) -> list[str]:
    """The tokens that end a turn, as text."""
    return [str(text) for text in version.tokenizer.convert_ids_to_tokens(list(version.renderer.stop_token_ids))]


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
