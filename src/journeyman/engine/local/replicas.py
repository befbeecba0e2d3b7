"""Several engine processes behind one engine: drawing holds Python's lock, so threads do not help, processes do.

Each process holds the whole model and one worker. Not for training: gradients leave the lock, so the trainer's workers are threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from journeyman.engine.base import joined
from journeyman.engine.local.dispatch import Router, Traffic, check_request, into, next_answer, raise_first
from journeyman.engine.local.engine import MAX_ROWS
from journeyman.engine.local.replica import CommandName, Replica
from journeyman.errors import AdapterError, SettingError
from journeyman.modeling.base_models import BaseModel
from journeyman.modeling.devices import choose_device
from journeyman.modeling.precision import choose_precision
from journeyman.types.sampling import EngineInfo, Sample, SampleDelta, SampleRequest

START_TIMEOUT_SECONDS = 600.0
COMMAND_TIMEOUT_SECONDS = 300.0
# A group larger than this computes its prompt twice rather than leave a core idle.
_MAX_LEAD = 16


class ReplicatedEngine:
    """See `journeyman.engine.base.Engine`. A seeded request gives the same sample wherever it runs, but for rounding.

    When a process ends on its own, its requests fail and so does everything asked afterwards: what another run of it would say is
    unknown, and a run on disk can be resumed.
    """

    def __init__(self, info: EngineInfo, replicas: list[Replica]) -> None:
        self._info = info
        self._replicas = replicas
        self._router = Router(len(replicas), max_lead=_MAX_LEAD)
        self._traffic = Traffic()
        self._adapters: dict[str, str] = {}
        self._changing = asyncio.Lock()

    @classmethod
    def create(
        cls,
        base: BaseModel,
        num_replicas: int,
        *,
        device: str = "auto",
        precision: str = "auto",
        max_rows: int = MAX_ROWS,
        cache_gigabytes: float = 0.5,
        timeout_seconds: float = START_TIMEOUT_SECONDS,
    ) -> ReplicatedEngine:
        """Start the processes and wait until each has loaded `base`. Blocks for seconds.

        Args:
            base: found, complete.
            num_replicas: processes; 1 or more.
            device, precision: as for `LocalEngine.create`; the same for all.
            max_rows: running at once in each.
            cache_gigabytes: of all of them together.
            timeout_seconds: for all of them together.

        Raises what `LocalEngine.create` raises; EngineError when a process cannot be started or ends; WaitTimeoutError.

        Example:
            >>> engine = ReplicatedEngine.create(resolve_base("smollm2-135m"), 2)       # doctest: +SKIP
            >>> engine.info.num_workers                                                 # doctest: +SKIP
            2
        """
        if num_replicas < 1:
            raise SettingError(f"the number of engine processes must be at least 1, not {num_replicas}")
        where = choose_device(device)
        settings = {
            "device": where,
            "precision": choose_precision(precision, where),
            "max_rows": max_rows,
            "cache_gigabytes": cache_gigabytes / num_replicas,
        }
        deadline = time.monotonic() + timeout_seconds
        replicas: list[Replica] = []
        try:
            replicas.extend(Replica(base, settings, number + 1, num_replicas) for number in range(num_replicas))
            infos = [replica.wait_until_ready(deadline) for replica in replicas]
        except BaseException:
            for replica in replicas:
                replica.end()
            raise
        return cls(replace(infos[0], num_workers=num_replicas), replicas)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def process_ids(self) -> tuple[int, ...]:
        return tuple(replica.pid for replica in self._replicas)

    async def sample(self, request: SampleRequest) -> Sample:
        return await joined(self._run(request, is_streaming=False), request.adapter)

    def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        return self._run(request, is_streaming=True)

    async def _run(self, request: SampleRequest, *, is_streaming: bool) -> AsyncGenerator[SampleDelta]:
        check_request(request, self._info)
        await self._traffic.wait_until_awake()
        self._require(request.adapter)
        self._require_all_alive()
        place = self._router.place(request.prompt_ids, [replica.num_unfinished for replica in self._replicas])
        replica = self._replicas[place]
        answers: asyncio.Queue[SampleDelta | Exception] = asyncio.Queue()
        sampled: list[int] = []
        with self._traffic.running(request.adapter):
            number = replica.sample(request, into(answers), is_streaming=is_streaming)
            try:
                while True:
                    item = await next_answer(answers, replica.check)
                    sampled.extend(item.token_ids)
                    if item.finish_reason is not None:
                        # Siblings in other processes have the same prompt; the next turn has to come back to this one.
                        self._router.remember((*request.prompt_ids, *sampled), place)
                    yield item
                    if item.finish_reason is not None:
                        return
            finally:
                replica.cancel(number)

    async def load_adapter(self, name: str, folder: Path) -> str:
        # To its end, also when nobody waits any more: the processes would have loaded what this side knows nothing of.
        return await asyncio.shield(asyncio.ensure_future(self._load_everywhere(name, folder)))

    async def _load_everywhere(self, name: str, folder: Path) -> str:
        async with self._changing:
            if name in self._adapters:
                raise AdapterError(f"adapter {name} is loaded already", hint="publish every version under a new name")
            results = await self._ask_all("load_adapter", name, folder)
            if len(set(results)) > 1 or isinstance(results[0], BaseException):
                loaded = [replica for replica, result in zip(self._replicas, results, strict=True) if isinstance(result, str)]
                unloading = [replica.call("unload_adapter", name, timeout_seconds=COMMAND_TIMEOUT_SECONDS) for replica in loaded]
                await asyncio.gather(*unloading, return_exceptions=True)
                raise_first(results)
                raise AdapterError(f"the folder of adapter {name} changed while it was loaded: {folder}")
            self._adapters[name] = str(results[0])
            return self._adapters[name]

    async def unload_adapter(self, name: str) -> None:
        async with self._changing:
            self._traffic.require_unused(name)
            self._require(name)
            del self._adapters[name]
            raise_first(await self._ask_all("unload_adapter", name))

    def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    async def sleep(self) -> None:
        await self._traffic.sleep()
        self._router.forget()
        try:
            raise_first(await self._ask_all("sleep"))
        except BaseException:
            # Processes that sleep already would keep what they are asked from now on. They obey in order, so nobody needs to wait.
            for replica in self._replicas:
                replica.post("wake")
            self._traffic.wake()
            raise

    async def wake(self) -> None:
        try:
            raise_first(await self._ask_all("wake"))
        finally:
            self._traffic.wake()  # whoever waits learns what is wrong

    async def close(self) -> None:
        await asyncio.to_thread(self.end)
        self._traffic.wake()  # whoever waits learns that it is closed

    def end(self) -> None:
        """As `close`, where no event loop runs."""
        for replica in self._replicas:
            replica.end()

    async def _ask_all(self, name: CommandName, *arguments: str | Path) -> list[str | BaseException | None]:
        calls = [replica.call(name, *arguments, timeout_seconds=COMMAND_TIMEOUT_SECONDS) for replica in self._replicas]
        return await asyncio.gather(*calls, return_exceptions=True)

    def _require(self, adapter: str | None) -> None:
        if adapter is not None and adapter not in self._adapters:
            raise AdapterError(f"adapter {adapter} is not loaded", hint="loaded: " + (", ".join(self._adapters) or "none"))

    def _require_all_alive(self) -> None:
        for replica in self._replicas:
            if replica.failure is not None:
                raise replica.failure
