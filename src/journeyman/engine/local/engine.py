"""The local engine: spreads requests over single-threaded workers and hands their tokens back to asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import torch

from journeyman.engine.local.cache import CacheShape, Library
from journeyman.engine.local.grammar import GrammarCompiler
from journeyman.engine.local.rows import Row
from journeyman.engine.local.variants import Variants
from journeyman.engine.local.worker import Worker
from journeyman.errors import AdapterError, ContextLengthError, EngineError, WaitTimeoutError
from journeyman.modeling.allocator import keep_freed_memory
from journeyman.modeling.base_models import BaseModel, load_tokenizer
from journeyman.modeling.devices import choose_device, choose_num_workers
from journeyman.modeling.precision import choose_precision
from journeyman.modeling.weights import context_length, load_module
from journeyman.types.sampling import EngineInfo, Sample, SampleDelta, SampleRequest

MAX_ROWS = 64
SLEEP_TIMEOUT_SECONDS = 600.0


class LocalEngine:
    """See `journeyman.engine.base.Engine`. Runs on the event loop that calls it; the work happens in the workers' threads."""

    def __init__(self, info: EngineInfo, variants: Variants, workers: list[Worker], grammars: GrammarCompiler, max_rows: int) -> None:
        self._info = info
        self._max_rows = max_rows
        self._variants = variants
        self._workers = workers
        self._grammars = grammars
        self._homes: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._users: dict[str | None, int] = {}
        self._awake = asyncio.Event()
        self._awake.set()
        self._idle = asyncio.Event()
        self._idle.set()

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
        keep_freed_memory()
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
        ids: list[int] = []
        logprobs: list[float] = []
        # Closed here, not when the garbage collector comes: the adapter is free once the sample is there.
        async with contextlib.aclosing(self._run(request, is_streaming=False)) as deltas:
            async for delta in deltas:
                ids.extend(delta.token_ids)
                logprobs.extend(delta.logprobs)
                if delta.finish_reason is not None:
                    return Sample(tuple(ids), tuple(logprobs), delta.finish_reason, request.adapter)
        raise EngineError("the engine ended a sample without a reason")

    def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        return self._run(request, is_streaming=True)

    async def _run(self, request: SampleRequest, *, is_streaming: bool) -> AsyncGenerator[SampleDelta]:
        self._check(request)
        await self._awake.wait()
        self._variants.require(request.adapter)
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[SampleDelta | Exception] = asyncio.Queue()

        def deliver(item: SampleDelta | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                loop.call_soon_threadsafe(deltas.put_nowait, item)

        guide = None if request.grammar is None else self._grammars.start(request.grammar, request.stop_token_ids)
        row = Row(request, deliver, random.Random(request.parameters.seed), guide, is_streaming=is_streaming)
        self._enter(request.adapter)
        try:
            self._worker_for(request).submit(row)
            while True:
                item = await deltas.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            row.is_cancelled = True
            self._exit(request.adapter)

    def _check(self, request: SampleRequest) -> None:
        if not request.prompt_ids:
            raise EngineError("the prompt is empty", hint="a prompt needs at least one token")
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self._info.vocabulary_size:
            raise EngineError(f"the prompt has token ids outside the vocabulary of {self._info.vocabulary_size}")
        if len(request.prompt_ids) >= self._info.context_length:
            raise ContextLengthError(
                f"the prompt has {len(request.prompt_ids)} tokens, the model's context is {self._info.context_length}",
                hint="shorten the prompt, the tools or the tool results",
            )

    def _worker_for(self, request: SampleRequest) -> Worker:
        """The worker that computed (the beginning of) this prompt last, unless it has far more to do than the idlest."""
        idlest = min(range(len(self._workers)), key=lambda index: self._workers[index].num_unfinished)
        home = next((self._homes[key] for key in reversed(self._homes) if request.prompt_ids[: len(key)] == key), idlest)
        if self._workers[home].num_unfinished >= self._workers[idlest].num_unfinished + self._max_rows:
            home = idlest
        self._homes[request.prompt_ids] = home
        self._homes.move_to_end(request.prompt_ids)
        while len(self._homes) > 512:
            self._homes.popitem(last=False)
        return self._workers[home]

    def _enter(self, adapter: str | None) -> None:
        self._users[adapter] = self._users.get(adapter, 0) + 1
        self._idle.clear()

    def _exit(self, adapter: str | None) -> None:
        self._users[adapter] -= 1
        if not self._users[adapter]:
            del self._users[adapter]
        if not self._users:
            self._idle.set()

    async def load_adapter(self, name: str, folder: Path) -> str:
        return await asyncio.to_thread(self._variants.load, name, folder)

    async def unload_adapter(self, name: str) -> None:
        if self._users.get(name):
            raise AdapterError(f"adapter {name} is in use by {self._users[name]} requests", hint="wait for them to end")
        self._variants.unload(name)
        await self._forget(name)

    def adapters(self) -> tuple[str, ...]:
        return self._variants.names()

    async def _forget(self, adapter: str | None, *, everything: bool = False) -> None:
        def forget(library: Library) -> None:
            library.forget(adapter, everything=everything)

        for worker in self._workers:
            await asyncio.to_thread(worker.call, forget)

    async def sleep(self) -> None:
        self._awake.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), SLEEP_TIMEOUT_SECONDS)
        except TimeoutError as error:
            self._awake.set()
            raise WaitTimeoutError(
                f"running requests did not end within {SLEEP_TIMEOUT_SECONDS:.0f} s, so training cannot start"
            ) from error
        self._homes.clear()
        await self._forget(None, everything=True)

    async def wake(self) -> None:
        self._awake.set()

    async def close(self) -> None:
        for worker in self._workers:
            await asyncio.to_thread(worker.close)


def _cache_shape(config: Any, dtype: torch.dtype, device: str) -> CacheShape:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return CacheShape(config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size, dtype, device)
