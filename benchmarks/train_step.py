"""Seconds of one GRPO gradient: the packed trainer against padded rows through plain Hugging Face + PEFT, in one run.

    python -m benchmarks.train_step                  # 4 groups x 8, prompt 512, 64 new tokens, smollm2-135m
    python -m benchmarks.train_step --quick          # small groups: does it run, are the gradients the same?

Both in float32, with the same number of threads in total, on the same batch, alternating; the best of the rounds counts. Prints a JSON
object: the seconds of each, the ratio, tokens computed by each, and the largest relative difference of a LoRA gradient. Ends with exit code
1 where packed is not 3 times faster, or a gradient differs by more than 2e-5: twice what float32 leaves of one against float64.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.train_batches import SETTINGS, batch_of, batch_parser, parse_batch, plain_gradients, plain_model
from journeyman.modeling.base_models import BaseModel, resolve_base
from journeyman.modeling.devices import keep_freed_memory
from journeyman.modeling.lora import add_lora, save_adapter
from journeyman.modeling.weights import load_module
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.settings import LoraSettings

_LORA = LoraSettings()
MIN_TIMES_FASTER = 3.0
MAX_RELATIVE_DIFFERENCE = 2e-5


def random_adapter(base: BaseModel, folder: Path) -> None:
    """An adapter whose B is not zero: where it is, the gradient of A vanishes and would hide mistakes."""
    model = add_lora(load_module(base.folder), _LORA)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)
    save_adapter(model, folder)


def packed_gradients(trainer: LoraTrainer, groups: list[list[TrainSample]]) -> tuple[float, list[Tensor], dict[str, float]]:
    """Seconds of a whole step (the measure of the distance to the base included), its gradient, its metrics."""
    begin = time.perf_counter()
    metrics = trainer.policy_step(groups, SETTINGS, lambda _: None)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_state(Path(folder))
        tensors = load_file(str(Path(folder) / "optimizer.safetensors"))
    count = sum(name.endswith(".exp_avg") for name in tensors)
    return seconds, [tensors[f"{index}.exp_avg"] for index in range(count)], metrics


def compare(base: BaseModel, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        trainer = LoraTrainer(base, _LORA, arguments.threads, precision="float32")
        trainer.save_state(state)
        random_adapter(base, state / "adapter")
        plain = plain_model(base.folder, state / "adapter")
        groups = batch_of(arguments)
        seconds: dict[str, list[float]] = {"packed": [], "padded": []}
        difference = 0.0
        metrics: dict[str, float] = {}
        for _ in range(arguments.rounds):
            trainer.load_state(state)
            taken, packed, metrics = packed_gradients(trainer, groups)
            seconds["packed"].append(taken)
            torch.set_num_threads(arguments.threads)
            begin = time.perf_counter()
            padded = plain_gradients(plain, groups, rows_at_once=arguments.rows_at_once)
            seconds["padded"].append(time.perf_counter() - begin)
            torch.set_num_threads(1)
            of_round = (float((left - right).norm() / right.norm()) for left, right in zip(packed, padded, strict=True))
            difference = max(difference, *of_round)
        trainer.close()
    return {
        "base": base.name,
        **vars(arguments),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "times_faster": round(min(seconds["padded"]) / min(seconds["packed"]), 2),
        "tokens": {"packed": metrics["num_computed_tokens"], "padded": metrics["num_unpacked_tokens"]},
        "largest_relative_difference": difference,
    }


def missed(found: Mapping[str, Any], *, is_quick: bool) -> list[str]:
    """The stated bounds that do not hold. The seconds of a quick run say nothing: most of them are not spent on tokens."""
    words = []
    if found["times_faster"] < MIN_TIMES_FASTER and not is_quick:
        words.append(f"packed is {found['times_faster']} times faster than padded rows, of at least {MIN_TIMES_FASTER}")
    difference = found["largest_relative_difference"]
    if not difference <= MAX_RELATIVE_DIFFERENCE:
        words.append(f"a gradient differs by {difference:.1e}, of at most {MAX_RELATIVE_DIFFERENCE:.0e}")
    return words


def main() -> None:
    keep_freed_memory()
    parser = batch_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each path, in total")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parse_batch(parser)
    if arguments.quick:
        arguments.rounds = 1
    found = compare(resolve_base(arguments.base), arguments)
    print(json.dumps(found, indent=1))
    if words := missed(found, is_quick=arguments.quick):
        sys.exit("\n".join(words))


if __name__ == "__main__":
    main()
