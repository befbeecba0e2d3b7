"""Computing a step's micro-batches on threads, and adding their gradients in their own order, whatever the order in which they come.

Threads, not processes: torch leaves Python's lock while it computes, a backward pass runs in the thread that asks for it, and the
weights are there once. One thread of torch in each worker: several on shared cores fight each other. Not for what the gradients are of:
see the trainer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from journeyman.trainer.optimizer import global_norm

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A fixed set of worker threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="trainer", initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of each item; results in the order of the items; the first exception is raised after all have ended."""
        futures = [self._pool.submit(function, item) for item in items]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class GradientSum:
    """The sum of gradients, filled from several threads, each micro-batch once, by its number.

    Each is added when all before it have been, and given up: of 64 micro-batches of SmolLM2-135M with rank 16, 1.25 GB would be held to the
    end.

    Attributes:
        gradients: a tensor a parameter.
        sums: of what is logged, by name; for names that end in `_max` the largest.
        not_finite: numbers of the micro-batches whose gradient was not.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.gradients = tuple(torch.zeros_like(parameter) for parameter in parameters)
        self.sums: dict[str, float] = {}
        self.not_finite: set[int] = set()
        self._waiting: dict[int, tuple[Sequence[Tensor], dict[str, float]]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def add(self, number: int, gradients: Sequence[Tensor], sums: dict[str, float]) -> int:
        """Add micro-batch `number` as soon as those before it are there; how many have come, those that wait included."""
        is_finite = math.isfinite(global_norm(gradients))
        with self._lock:
            if not is_finite:
                self.not_finite.add(number)
            self._waiting[number] = gradients, sums
            while self._next in self._waiting:
                self._add_next(*self._waiting.pop(self._next))
                self._next += 1
            return self._next + len(self._waiting)

    def _add_next(self, gradients: Sequence[Tensor], sums: dict[str, float]) -> None:
        for total, gradient in zip(self.gradients, gradients, strict=True):
            total.add_(gradient)
        for name, value in sums.items():
            self.sums[name] = max(self.sums.get(name, 0.0), value) if name.endswith("_max") else self.sums.get(name, 0.0) + value


def together(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies side by side in one block of memory: the originals lie scattered among what the backward pass has used, and would keep that
    from being joined and used for the next micro-batch."""
    block = torch.cat([tensor.flatten() for tensor in tensors])
    parts = torch.split(block, [tensor.numel() for tensor in tensors])
    return tuple(part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True))
