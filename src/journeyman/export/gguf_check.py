"""`python -m journeyman.export.gguf_check FILE.gguf REQUEST.json ANSWER.json`: what a GGUF file prefers at each token of the probes.

Run as a child process by `journeyman.export.export`, so that the memory is given back and what libraries print is ours to show or not.
transformers reads the file, giving each weight the value that it is stored as, and computes in float32: a difference to the reference is
the rounding of the weights. What llama.cpp's own kernels add to that is measured by `llama_cpp_check.py`, where its library is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from journeyman.errors import AdapterError, WaitTimeoutError
from journeyman.export.probes import Agreement, Probe, compare, preferred

_SECONDS = 1800


def check_gguf(path: Path, probes: Sequence[Probe]) -> Agreement:
    """Load the file in a child process and compare. Raises AdapterError when it cannot be read."""
    choices = run_check("journeyman.export.gguf_check", path, probes)
    return compare(probes, choices)


def run_check(module: str, path: Path, probes: Sequence[Probe]) -> list[list[int]]:
    """Run `module` on a file and the probes; its answer: one list of tokens a probe. Errors as `check_gguf`."""
    request, answer = path.with_suffix(".request.json"), path.with_suffix(".answer.json")
    request.write_text(json.dumps([asdict(probe) for probe in probes]), encoding="utf-8")
    try:
        result = subprocess.run(
            [sys.executable, "-m", module, str(path), str(request), str(answer)],
            capture_output=True, text=True, check=False, timeout=_SECONDS, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AdapterError(f"{path.name} was written, but cannot be read again: {last[:300]}", hint="nothing was kept of this export")
        choices: list[list[int]] = json.loads(answer.read_text(encoding="utf-8"))
        return choices
    except subprocess.TimeoutExpired as error:
        raise WaitTimeoutError(f"checking {path.name} took longer than {_SECONDS} s", hint="is the machine busy? Try again") from error
    finally:
        request.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def read_probes(path: Path) -> list[Probe]:
    """The probes that `run_check` wrote."""
    return [
        Probe(tuple(one["prompt_ids"]), tuple(one["reply_ids"]), tuple(one["gaps"])) for one in json.loads(path.read_text(encoding="utf-8"))
    ]


def main(arguments: list[str]) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    path, request, answer = (Path(argument) for argument in arguments)
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    answer.write_text(json.dumps([preferred(model, probe) for probe in read_probes(request)]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
