"""`python -m journeyman.export.gguf_check FILE.gguf REQUEST.json ANSWER.json`: what a GGUF file prefers at each token of the probes.

Run as a child process by `journeyman.export.export`, so that the memory is given back and what libraries print is ours to show or not.
transformers reads the file, giving each weight the value that it is stored as, and computes in float32: a difference to the reference is
the rounding of the weights. What llama.cpp's own kernels add to that is measured by `llama_cpp_check.py`, where its library is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from journeyman.export.child import read_probes, run_check
from journeyman.export.probes import Agreement, Probe, compare


def check_gguf(path: Path, probes: Sequence[Probe]) -> Agreement:
    """Load the file in a child process and compare. Raises AdapterError when it cannot be read."""
    return compare(probes, run_check("journeyman.export.gguf_check", path, probes)["choices"])


def main(arguments: list[str]) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    from journeyman.export.greedy import preferred

    path, request, answer = (Path(argument) for argument in arguments)
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    answer.write_text(json.dumps({"choices": [preferred(model, probe) for probe in read_probes(request)]}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
