"""Memory of one GRPO gradient above the weights: the packed trainer against padded rows with full logits.

    python -m benchmarks.train_memory                # 4 groups of 1,024 packed tokens: 4,096 in all, smollm2-135m
    python -m benchmarks.train_memory --groups 1 --attempts 56      # the same number of tokens as one tree
    python -m benchmarks.train_memory --quick        # does it run?

Three paths: `packed` with the default settings, `checkpoints` with gradient_checkpointing=True, `padded`. Each runs in a process of its
own, one thread, float32. "Above the weights" is the peak of resident memory during the gradient less what was resident when the model was
loaded and had made a step on two tokens. Prints a JSON object. Not for speed: see `train_step.py`; the seconds only show what checkpoints
cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from benchmarks.train_batches import SETTINGS, batch_of, batch_parser, make_groups, parse_batch, plain_gradients, plain_model
from journeyman.modeling.base_models import resolve_base
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import LoraSettings

PATHS = ("packed", "checkpoints", "padded")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Load, note the resident memory, compute the gradient once, note the peak. In bytes."""
    base = resolve_base(arguments.base)
    torch.set_num_threads(1)
    groups = batch_of(arguments)
    # A step on two tokens first: weights are read from disk when they are used, the optimiser's state is made, pages of libraries come in.
    warm_up = make_groups(1, 1, 1, 1)
    if arguments.path == "padded":
        plain = plain_model(base.folder, None)
        plain_gradients(plain, warm_up, rows_at_once=1)
        loaded, begin = restart_peak(), time.perf_counter()
        plain_gradients(plain, groups, rows_at_once=arguments.rows_at_once)
        num_tokens = float(sum(len(sample.token_ids) for group in groups for sample in group))
    else:
        settings = SETTINGS.model_copy(update={"gradient_checkpointing": True}) if arguments.path == "checkpoints" else SETTINGS
        trainer = LoraTrainer(base, LoraSettings(), 1, precision="float32")
        trainer.policy_step(warm_up, settings, lambda _: None)
        loaded, begin = restart_peak(), time.perf_counter()
        num_tokens = trainer.policy_step(groups, settings, lambda _: None)["num_computed_tokens"]
        trainer.close()
    return {"loaded": loaded, "peak": peak_bytes(), "seconds": time.perf_counter() - begin, "num_tokens": num_tokens}


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
    words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(arguments).items() if name not in ("quick", "path")]
    results: dict[str, dict[str, float]] = {}
    for path in PATHS:
        command = [sys.executable, "-m", "benchmarks.train_memory", *words, f"--path={path}"]
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
            "seconds": round(found["seconds"], 1),
            "num_tokens": found["num_tokens"],
        }
    above = {path: result["gigabytes_above_weights"] for path, result in results.items() if "gigabytes_above_weights" in result}
    padded = above.pop("padded", None)
    times_less = {path: round(padded / own, 2) for path, own in above.items()} if padded else None
    return {"base": arguments.base, **results, "times_less_than_padded": times_less}


def main() -> None:
    parser = batch_parser(__doc__)
    parser.add_argument("--timeout-seconds", type=float, default=3600.0)
    parser.add_argument("--path", choices=PATHS, help="measure one path in this process (what the others are started with)")
    arguments = parse_batch(parser)
    print(json.dumps(measure(arguments) if arguments.path else compare(arguments), indent=1))


if __name__ == "__main__":
    main()
