"""Memory of one GRPO gradient above the weights: the packed trainer against padded rows with full logits.

    python -m benchmarks.train_memory                # 4 groups of 1,024 packed tokens: 4,096 in all, smollm2-135m
    python -m benchmarks.train_memory --groups 1 --attempts 56      # 4,096 packed tokens in one micro-batch
    python -m benchmarks.train_memory --workers 2    # two micro-batches at once
    python -m benchmarks.train_memory --quick        # does it run?

Four paths: `packed` with the default settings, `checkpoints` with gradient_checkpointing=True, `padded` with as many rows at once as said
(8), `padded_one_row`. Each runs in a process of its own, a thread a worker (one for padded rows), float32. "Above the weights" is the peak
of resident memory during the gradient less what was resident when the model was loaded and had made a step on two tokens; `micro_batches`
are the computed tokens of each. Prints a JSON object, and ends with exit code 1 where a packed path needs more than 3 GB a worker or less
than 4 times less than `padded`. Not for speed: see `train_step.py`; the seconds only show what checkpoints cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.train_batches import SETTINGS, batch_of, batch_parser, make_groups, parse_batch, plain_gradients, plain_model
from journeyman.modeling.base_models import resolve_base
from journeyman.modeling.devices import keep_freed_memory
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import LoraSettings

PATHS = ("packed", "checkpoints", "padded", "padded_one_row")
PACKED_PATHS = PATHS[:2]
MAX_GIGABYTES_A_WORKER = 3.0
MIN_TIMES_LESS = 4.0
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load, note the resident memory, compute the gradient once, note the peak. In bytes."""
    base = resolve_base(arguments.base)
    torch.set_num_threads(1)
    groups = batch_of(arguments)
    # A step on two tokens first: weights are read from disk when they are used, the optimiser's state is made, pages of libraries come in.
    warm_up = make_groups(1, 1, 1, 1)
    sizes: list[int] = []
    if arguments.path not in PACKED_PATHS:
        plain = plain_model(base.folder, None)
        plain_gradients(plain, warm_up, rows_at_once=1)
        loaded, begin = restart_peak(), time.perf_counter()
        plain_gradients(plain, groups, rows_at_once=1 if arguments.path == "padded_one_row" else arguments.rows_at_once)
        num_tokens = float(sum(len(sample.token_ids) for group in groups for sample in group))
    else:
        settings = SETTINGS.model_copy(update={"gradient_checkpointing": True}) if arguments.path == "checkpoints" else SETTINGS
        trainer = LoraTrainer(base, LoraSettings(), arguments.workers, precision="float32")
        trainer.policy_step(warm_up, settings, lambda _: None)
        sizes = [len(tree.token_ids) for tree in trainer._policy_trees(groups, settings)]
        loaded, begin = restart_peak(), time.perf_counter()
        num_tokens = trainer.policy_step(groups, settings, lambda _: None)["num_computed_tokens"]
        trainer.close()
    seconds = time.perf_counter() - begin
    return {"loaded": loaded, "peak": peak_bytes(), "seconds": seconds, "num_tokens": num_tokens, "micro_batches": sizes}


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


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(arguments).items() if name not in ("quick", "path")]
    results: dict[str, dict[str, Any]] = {}
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
            "micro_batches": found["micro_batches"],
        }
    above = {path: result["gigabytes_above_weights"] for path, result in results.items() if "gigabytes_above_weights" in result}
    padded = above.get("padded")
    times_less = {path: round(padded / above[path], 2) for path in PACKED_PATHS if path in above} if padded else None
    return {"base": arguments.base, "workers": arguments.workers, **results, "times_less_than_padded": times_less}


def missed(found: Mapping[str, Any], *, is_quick: bool) -> list[str]:
    """The stated bounds that do not hold. Of a quick run the ratio says nothing: there is little above the weights either way."""
    words = []
    for path in PACKED_PATHS:
        gigabytes = found[path].get("gigabytes_above_weights")
        most = MAX_GIGABYTES_A_WORKER * found["workers"]
        if gigabytes is None or gigabytes > most:
            words.append(f"{path} needs {gigabytes} GB above the weights, of at most {most}")
        times = (found["times_less_than_padded"] or {}).get(path)
        if times is not None and times < MIN_TIMES_LESS and not is_quick:
            words.append(f"{path} needs {times} times less than padded rows, of at least {MIN_TIMES_LESS}")
    return words


def main() -> None:
    keep_freed_memory()
    parser = batch_parser(__doc__)
    parser.add_argument("--timeout-seconds", type=float, default=3600.0)
    parser.add_argument("--path", choices=PATHS, help="measure one path in this process (what the others are started with)")
    parser.add_argument("--workers", type=int, default=1, help="micro-batches computed at once, in the packed paths")
    arguments = parse_batch(parser)
    found = measure(arguments) if arguments.path else compare(arguments)
    print(json.dumps(found, indent=1))
    if words := [] if arguments.path else missed(found, is_quick=arguments.quick):
        sys.exit("\n".join(words))


if __name__ == "__main__":
    main()
