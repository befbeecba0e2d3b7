"""Which device to compute on, how many workers of one thread each, how many processes that draw tokens, and what becomes of freed memory.

On shared processors one thread a worker and one worker a core is far faster than one worker with many threads, but virtual cores
can be hyper-threads or throttled by a quota: a short measurement at start decides.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch

from journeyman.errors import SettingError

_MAX_CHOSEN_PROCESSES = 4
# What an engine process needs beside the weights: Python, torch, keys and values; and the weights while they are loaded (in float32,
# where files mostly hold half of that), with a second of them for merged adapters.
_PROCESS_BYTES = 1 << 30
_LOADING_FACTOR = 4
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_ONE_GIBIBYTE = 1 << 30


def choose_device(wanted: str = "auto") -> str:
    """`auto` = CUDA, else MPS, else CPU; anything else is honoured or refused."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(wanted.split(":")[0], False):
        raise SettingError(
            f"device {wanted!r} is not available here",
            hint="available: " + ", ".join(k for k, v in available.items() if v),
        )
    return wanted


def training_device() -> str:
    """Where a model that may be trained computes, its sampler and its trainer alike: the CPU, on every machine. The trainer computes
    nowhere else, and a sampler elsewhere would draw from other numbers than those that are trained."""
    return "cpu"


def usable_cores() -> int:
    """Processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def choose_num_workers(wanted: int | None = None, *, seconds: float = 0.25) -> int:
    """The number of single-threaded workers with the highest total matrix throughput, measured for `seconds` a candidate."""
    if wanted is not None:
        if wanted < 1:
            raise SettingError(f"the number of workers must be at least 1, not {wanted}")
        return wanted
    candidates = [count for count in (1, 2, 4, 8, 16, 32) if count <= usable_cores()]
    if usable_cores() not in candidates:
        candidates.append(usable_cores())
    best, best_rate = 1, 0.0
    for count in candidates:
        rate = _products_per_second(count, seconds)
        if rate > best_rate * 1.1:
            best, best_rate = count, rate
    return best


def choose_num_processes(wanted: int | None = None, device: str = "auto", *, base_folder: Path | None = None) -> int:
    """How many engine processes; 0 means none: the server's own process draws the tokens.

    None chooses: on a CPU one a usable core, at most four and at most what half of the free memory holds (of the model in
    `base_folder`, if it is known), and none where that makes one; on CUDA, on MPS and where a pipe cannot be handed to a process
    (Windows), none.

    Raises SettingError for a number that cannot be had here.
    """
    if wanted is None:
        if os.name != "posix" or choose_device(device) != "cpu":
            return 0
        count = min(usable_cores(), _MAX_CHOSEN_PROCESSES, _num_that_fit(base_folder))
        return count if count > 1 else 0
    if wanted < 0:
        raise SettingError(f"the number of engine processes must be 0 or more, not {wanted}", hint="0: the server's own process draws")
    if wanted and os.name != "posix":
        raise SettingError("engine processes are not supported on this system", hint="use 0: the server's own process draws")
    return wanted


def _num_that_fit(base_folder: Path | None) -> int:
    import psutil

    weights = sum(file.stat().st_size for file in base_folder.glob("*.safetensors")) if base_folder is not None else 0
    return int(psutil.virtual_memory().available // 2 // (weights * _LOADING_FACTOR + _PROCESS_BYTES))


def _products_per_second(num_threads: int, seconds: float) -> float:
    counts = [0] * num_threads
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        torch.set_num_threads(1)
        left, right = torch.ones(64, 576), torch.ones(576, 1536)
        while time.perf_counter() < end:
            torch.mm(left, right)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds + 30.0)
    return sum(counts) / seconds


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; returns whether that took effect. Idempotent, and cannot be undone: only for a process that is
    Journeyman's own.

    Training allocates and frees the same large buffers thousands of times a second. glibc gives them back to the kernel at once and asks
    for them again, zeroed page by page; with several threads that costs more than the arithmetic. On other C libraries nothing happens.
    """
    mallopt = _c_function("mallopt")
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _ONE_GIBIBYTE), (_M_TRIM_THRESHOLD, _ONE_GIBIBYTE), (_M_TOP_PAD, 1 << 26))
    return all([mallopt(parameter, value) == 1 for parameter, value in settings])


def return_freed_memory() -> None:
    """Give what is free back to the kernel: between a step's gradients and the next attempts nobody needs it."""
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@functools.cache  # finding the library starts a process
def _c_function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(ctypes.util.find_library("c")), name)
    except (OSError, AttributeError, TypeError):
        return None
