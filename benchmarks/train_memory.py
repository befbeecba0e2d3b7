"""Memory of one GRPO gradient above the weights: the packed trainer against padded rows with full logits.

    python -m benchmarks.train_memory                # 4 groups of 1,024 packed tokens: 4,096 in all, smollm2-135m
    python -m benchmarks.train_memory --groups 1 --attempts 56      # the same number of tokens as one tree
    python -m benchmarks.train_memory --quick        # a tenth: does it run?

Each path runs in a process of its own, one thread, float32. "Above the weights" is the peak of resident memory during the gradient less
what was resident when the model was loaded. Prints a JSON object. Not for speed: see `train_step.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from benchmarks.train_batches import SETTINGS, make_groups, plain_gradients, plain_model
from journeyman.modeling.base_models import resolve_base
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import LoraSettings

PATHS = ("packed", "padded")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Load, note the resident memory, compute the gradient once, note the peak. In bytes."""
    base = resolve_base(arguments.base)
    torch.set_num_threads(1)
    groups = make_groups(arguments.groups, arguments.attempts, arguments.prompt_tokens, arguments.tokens, arguments.vocabulary)
    if arguments.path == "packed":
        trainer = LoraTrainer(base, LoraSettings(), 1, precision="float32")
        loaded = restart_peak()
        num_tokens = trainer.policy_step(groups, SETTINGS, lambda _: None)["num_computed_tokens"]
        trainer.close()
    else:
        plain = plain_model(base.folder, None)
        loaded = restart_peak()
        plain_gradients(plain, groups, rows_at_once=arguments.rows_at_once)
        num_tokens = float(sum(len(sample.token_ids) for group in groups for sample in group))
    return {"loaded": loaded, "peak": peak_bytes(), "num_tokens": num_tokens}


def restart_peak() -> int:
    """Resident bytes now; from now on the peak counts anew (on Linux: loading a model may need more than a gradient does)."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The largest resident memory since `restart_peak`; elsewhere than on Linux, since the process began."""
    if _STATUS.exists():
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    words = [word for word in sys.argv[1:] if word != "--quick"]
    if arguments.quick:
        words += ["--groups", "1", "--attempts", "4", "--prompt-tokens", "128", "--tokens", "16"]
    results: dict[str, dict[str, float]] = {}
    for path in PATHS:
        command = [sys.executable, "-m", "benchmarks.train_memory", *words, "--path", path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout_seconds, check=False)
        if done.returncode != 0:
            # A path that needs more memory than there is was killed: that is a result too.
            results[path] = {"exit_code": done.returncode}
            print(done.stderr[-2000:], file=sys.stderr)
            continue
        found = json.loads(done.stdout)
        results[path] = {
            "gigabytes_above_weights": round((found["peak"] - found["loaded"]) / 1e9, 2),
            "gigabytes_loaded": round(found["loaded"] / 1e9, 2),
            "num_tokens": found["num_tokens"],
        }
    above = [results[path].get("gigabytes_above_weights") for path in PATHS]
    packed, padded = above
    return {"base": arguments.base, **results, "times_less": round(padded / packed, 2) if packed and padded else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--attempts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=40_000, help="token ids are drawn below it")
    parser.add_argument("--rows-at-once", type=int, default=8, help="of the padded path, which is given one group at a time")
    parser.add_argument("--timeout-seconds", type=float, default=3600.0)
    parser.add_argument("--quick", action="store_true", help="1 group x 4, prompt 128, 16 new tokens")
    parser.add_argument("--path", choices=PATHS, help="measure one path in this process (what the others are started with)")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments) if arguments.path else compare(arguments), indent=1))


if __name__ == "__main__":
    main()
