"""The local engine: spreads requests over single-threaded workers and hands their tokens back to asyncio."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import torch

from journeyman.engine.base import joined
from journeyman.engine.local.cache import CacheShape
from journeyman.engine.local.dispatch import Router, Traffic, check_request, into, next_answer, raise_first
from journeyman.engine.local.grammar import GrammarCompiler
from journeyman.engine.local.rows import Row
from journeyman.engine.local.variants import Variants
from journeyman.engine.local.worker import Worker
from journeyman.modeling.base_models import BaseModel, load_tokenizer
from journeyman.modeling.devices import choose_device, choose_num_workers
from journeyman.modeling.precision import choose_precision
from journeyman.modeling.weights import context_length, load_module
from journeyman.types.sampling import EngineInfo, Sample, SampleDelta, SampleRequest

MAX_ROWS = 64


class LocalEngine:
    """See `journeyman.engine.base.Engine`. Runs on the event loop that calls it; the work happens in the workers' threads."""

    def __init__(self, info: EngineInfo, variants: Variants, workers: list[Worker], grammars: GrammarCompiler, max_rows: int) -> None:
        self._info = info
        self._variants = variants
        self._workers = workers
        self._grammars = grammars
        self._router = Router(len(workers), max_lead=max_rows)
        self._traffic = Traffic()

    @classmethod
    def create(
        cls,
        base: BaseModel,
        *,
        num_workers: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        max_rows: int = MAX_ROWS,
        cache_gigabytes: float = 0.5,
    ) -> LocalEngine:
        """Load `base` and start its workers: one unless more are asked for.

        Drawing tokens is bound by reading the weights once a step and by Python between the operations, so a second worker thread adds
        rows without adding speed: one worker with all rows draws as fast as two with half of them, and leaves a core to the agents.
        """
        where = choose_device(device)
        # Also for threads to come: merging an adapter beside running workers must not start a second set of threads.
        torch.set_num_threads(1)
        count = choose_num_workers(num_workers or 1)
        chosen = choose_precision(precision, where)
        module = load_module(base.folder, precision=chosen, device=where)
        tokenizer = load_tokenizer(base.folder)
        shape = _cache_shape(module.config.get_text_config(), torch.float32, where)  # type: ignore[union-attr, operator]
        length = context_length(module)
        variants = Variants(module)
        decode: Callable[[list[int]], str] = tokenizer.decode
        workers = [
            Worker(
                variants, shape, context_length=length, max_rows=max_rows, cache_bytes=int(cache_gigabytes * 2**30 / count), decode=decode
            )
            for _ in range(count)
        ]
        vocabulary_size = int(module.config.vocab_size)  # type: ignore[union-attr, arg-type]
        info = EngineInfo(base.name, where, chosen, length, vocabulary_size, count)
        return cls(info, variants, workers, GrammarCompiler(tokenizer, vocabulary_size), max_rows)

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def sample(self, request: SampleRequest) -> Sample:
        return await joined(self.deltas(request, is_streaming=False), request.adapter)

    def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        return self.deltas(request, is_streaming=True)

    async def deltas(self, request: SampleRequest, *, is_streaming: bool) -> AsyncGenerator[SampleDelta]:
        """As `stream`; unless `is_streaming`, all tokens in one."""
        check_request(request, self._info)
        # Before anything is waited for, and in a thread: a large schema takes long to compile.
        grammar = request.grammar
        guide = None if grammar is None else await asyncio.to_thread(self._grammars.start, grammar, request.stop_token_ids)
        await self._traffic.wait_until_awake()
        self._variants.require(request.adapter)
        deltas: asyncio.Queue[SampleDelta | Exception] = asyncio.Queue()
        row = Row(request, into(deltas), random.Random(request.parameters.seed), guide, is_streaming=is_streaming)
        with self._traffic.running(request.adapter):
            worker = self._workers[self._router.place(request.prompt_ids, [worker.num_unfinished for worker in self._workers])]
            try:
                worker.submit(row)
                while True:
                    item = await next_answer(deltas, worker.check)
                    yield item
                    if item.finish_reason is not None:
                        return
            finally:
                row.is_cancelled = True

    async def load_adapter(self, name: str, folder: Path) -> str:
        return await asyncio.to_thread(self._variants.load, name, folder)

    async def unload_adapter(self, name: str) -> None:
        self._traffic.require_unused(name)
        await asyncio.to_thread(self._variants.unload, name)  # an adapter that is being built holds it up
        await self._of_all(lambda worker: worker.call(lambda cache: cache.forget(name)))

    def adapters(self) -> tuple[str, ...]:
        return self._variants.names()

    async def sleep(self) -> None:
        await self._traffic.sleep()
        self._router.forget()
        try:
            await self._of_all(lambda worker: worker.rest())
        except BaseException:
            self._traffic.wake()
            raise

    async def wake(self) -> None:
        self._traffic.wake()

    async def close(self) -> None:
        await asyncio.to_thread(self.end)
        self._traffic.wake()  # whoever waits learns that it is closed

    async def _of_all(self, work: Callable[[Worker], None]) -> None:
        """`work` with every worker, whatever becomes of the others; raises the first error."""
        raise_first(await asyncio.gather(*[asyncio.to_thread(work, worker) for worker in self._workers], return_exceptions=True))

    def end(self) -> None:
        """As `close`, where no event loop runs."""
        for worker in self._workers:
            worker.close()


def _cache_shape(config: Any, dtype: torch.dtype, device: str) -> CacheShape:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return CacheShape(config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size, dtype, device)
