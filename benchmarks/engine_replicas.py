"""Tokens a second of concurrent requests: the engine in this process against engine processes, alternating, in one run.

    python benchmarks/engine_replicas.py                 # 6 prompts x 6 attempts, 2 processes
    python benchmarks/engine_replicas.py --quick         # a tenth of the tokens: does it run?

Prints a JSON object: seconds and tokens a second of each round; the processor seconds of the busiest process, which is what the round
takes where nothing else wants the cores; the ratios of the best rounds by both; and the memory of each engine process in GB (resident,
and what is its own: without libraries and files that processes share). Not for comparing with other engines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Sequence

import psutil

from journeyman.engine.base import Engine
from journeyman.engine.local.engine import LocalEngine
from journeyman.engine.local.replicas import ReplicatedEngine
from journeyman.modeling.base_models import BaseModel, resolve_base
from journeyman.modeling.devices import keep_freed_memory
from journeyman.types.sampling import Sample, SampleRequest, SamplingParameters


def requests_of(arguments: argparse.Namespace, vocabulary_size: int, seed: int) -> list[SampleRequest]:
    """`prompts` x `attempts` requests; the prompts share their first half, as those of one agent share its tools."""
    uniform = random.Random(seed)

    def draw(count: int) -> list[int]:
        return [uniform.randrange(100, vocabulary_size) for _ in range(count)]

    shared = draw(arguments.prompt_tokens // 2)
    prompts = [tuple(shared + draw(arguments.prompt_tokens - len(shared))) for _ in range(arguments.prompts)]
    parameters = SamplingParameters(max_tokens=arguments.tokens)
    return [SampleRequest(prompt, parameters) for prompt in prompts for _ in range(arguments.attempts)]


async def measure(engine: Engine, requests: Sequence[SampleRequest], process_ids: Sequence[int]) -> dict[str, float]:
    busy = [processor_seconds(pid) for pid in process_ids]
    begin = time.perf_counter()
    samples: list[Sample] = await asyncio.gather(*(engine.sample(request) for request in requests))
    seconds = time.perf_counter() - begin
    num_tokens = sum(len(sample.token_ids) for sample in samples)
    busiest = max(processor_seconds(pid) - before for pid, before in zip(process_ids, busy, strict=True))
    rate = round(num_tokens / seconds, 1)
    return {"seconds": round(seconds, 2), "tokens_per_second": rate, "processor_seconds_of_the_busiest": round(busiest, 2)}


def processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def gigabytes(process_ids: Sequence[int]) -> list[dict[str, float]]:
    found = [psutil.Process(pid).memory_full_info() for pid in process_ids]
    return [{"resident": round(memory.rss / 1e9, 2), "own": round(memory.uss / 1e9, 2)} for memory in found]


async def compare(base: BaseModel, arguments: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {"base": base.name, **vars(arguments)}
    begin = time.perf_counter()
    inside = await asyncio.to_thread(LocalEngine.create, base)
    middle = time.perf_counter()
    replicas = await asyncio.to_thread(ReplicatedEngine.create, base, arguments.processes)
    result["start_seconds"] = {"in_process": round(middle - begin, 1), "processes": round(time.perf_counter() - middle, 1)}
    rounds: dict[str, list[dict[str, float]]] = {"in_process": [], "processes": []}
    try:
        result["gigabytes_loaded"] = gigabytes(replicas.process_ids)
        for number in range(arguments.rounds):
            requests = requests_of(arguments, inside.info.vocabulary_size, number)
            rounds["in_process"].append(await measure(inside, requests, [os.getpid()]))
            rounds["processes"].append(await measure(replicas, requests, replicas.process_ids))
        result["gigabytes_after_sampling"] = gigabytes(replicas.process_ids)
        await replicas.sleep()
        result["gigabytes_asleep"] = gigabytes(replicas.process_ids)
    finally:
        await replicas.close()
        await inside.close()
    best = {name: max(entry["tokens_per_second"] for entry in entries) for name, entries in rounds.items()}
    busy = {name: min(entry["processor_seconds_of_the_busiest"] for entry in entries) for name, entries in rounds.items()}
    ratios = {"ratio": best["processes"] / best["in_process"], "ratio_of_processor_seconds": busy["in_process"] / busy["processes"]}
    return result | {"rounds": rounds} | {name: round(ratio, 2) for name, ratio in ratios.items()}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--attempts", type=int, default=6)
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few tokens, one round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.rounds = 6, 1
    print(json.dumps(asyncio.run(compare(resolve_base(arguments.base), arguments)), indent=2))


if __name__ == "__main__":
    main()
