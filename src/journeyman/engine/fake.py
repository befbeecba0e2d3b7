"""An engine for tests: a script writes the replies; stopping, adapters, sleeping and cancelling follow the protocol.

Not for producing text anybody reads, and not for measuring: its log-probabilities are made up, though always the same for the same
adapter, position and token.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import cycle
from pathlib import Path
from typing import Any

from journeyman.errors import AdapterError, ContextLengthError
from journeyman.types.sampling import EngineInfo, FinishReason, Sample, SampleDelta, SampleRequest

Script = Callable[[str], "str | Sequence[int]"]


class FakeEngine:
    """Answers with what `script` makes of the decoded prompt.

    Args:
        script: prompt text -> reply text (a stop token is added) or reply ids (taken as they are).
        tokenizer: a Hugging Face tokenizer, or anything with its `encode` and `decode`.
        context_length: prompt and reply together, in tokens.

    `requests` holds every request, the newest last; `answering` is the one that `script` is asked about. `fail_with` makes the next
    samples raise. Between `hold()` and `release()` samples wait; both may be called from any thread. A delta has as many tokens as
    `delta_sizes` says, in turn.

    Example:
        >>> engine = FakeEngine(lambda prompt: "It is noon.", tokenizer)              # doctest: +SKIP
    """

    def __init__(self, script: Script, tokenizer: Any, *, context_length: int = 2048, base: str = "fake-model") -> None:
        self.script = script
        self.requests: list[SampleRequest] = []
        self.answering: SampleRequest | None = None
        self.num_finished = 0
        self.num_cancelled = 0
        self.fail_with: Exception | None = None
        self.delta_sizes: Sequence[int] = (1,)
        self.is_asleep = False
        self.is_closed = False
        self._tokenizer = tokenizer
        self._info = EngineInfo(
            base=base,
            device="none",
            dtype="none",
            context_length=context_length,
            vocabulary_size=len(tokenizer),
            num_workers=1,
        )
        self._adapters: dict[str, str] = {}
        self._in_use: Counter[str | None] = Counter()
        self._gate: Future[None] = _opened()
        self._num_before_gate = 0
        self._awake: Future[None] = _opened()
        self._changed: list[asyncio.Future[None]] = []

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def num_running(self) -> int:
        """Samples being drawn (or held) now."""
        return sum(self._in_use.values())

    async def until_running(self, count: int) -> None:
        """Wait until `count` samples run. Call it on the loop that the engine runs on."""
        while self.num_running != count:
            await self._next_change()

    def hold(self, after_tokens: int = 0) -> None:
        """Let samples that start from now on wait until `release`, once they have given that many tokens."""
        self._gate, self._num_before_gate = Future(), after_tokens

    def release(self) -> None:
        if not self._gate.done():
            self._gate.set_result(None)

    async def sample(self, request: SampleRequest) -> Sample:
        token_ids: list[int] = []
        logprobs: list[float] = []
        finish_reason: FinishReason = "cancelled"
        async for delta in self.stream(request):
            token_ids.extend(delta.token_ids)
            logprobs.extend(delta.logprobs)
            finish_reason = delta.finish_reason or finish_reason
        return Sample(tuple(token_ids), tuple(logprobs), finish_reason, request.adapter)

    async def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        self._check(request)
        self.requests.append(request)
        await asyncio.shield(asyncio.wrap_future(self._awake))
        self._in_use[request.adapter] += 1
        self._notify()
        is_complete = False
        gate, num_before_gate = self._gate, self._num_before_gate
        try:
            if not num_before_gate:
                await asyncio.shield(asyncio.wrap_future(gate))
            if self.fail_with is not None:
                raise self.fail_with
            ids, reason = self._reply(request)
            for start, end in _cuts(len(ids), self.delta_sizes):
                if end > num_before_gate and not gate.done():
                    await asyncio.shield(asyncio.wrap_future(gate))
                logprobs = tuple(fake_logprob(request.adapter, position, ids[position]) for position in range(start, end))
                yield SampleDelta(tuple(ids[start:end]), logprobs, reason if end == len(ids) else None)
            is_complete = True
            self.num_finished += 1
        finally:
            self.num_cancelled += not is_complete
            self._in_use[request.adapter] -= 1
            self._notify()

    async def load_adapter(self, name: str, folder: Path) -> str:
        if name in self._adapters:
            raise AdapterError(f"adapter {name!r} is loaded already", hint="give every version its own name")
        self._adapters[name] = folder_fingerprint(folder)
        return self._adapters[name]

    async def unload_adapter(self, name: str) -> None:
        if name not in self._adapters:
            raise AdapterError(f"adapter {name!r} is not loaded")
        while self._in_use[name]:
            await self._next_change()
        self._adapters.pop(name, None)

    def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    async def sleep(self) -> None:
        self.is_asleep = True
        if self._awake.done():
            self._awake = Future()
        while self.num_running:
            await self._next_change()

    async def wake(self) -> None:
        self.is_asleep = False
        if not self._awake.done():
            self._awake.set_result(None)

    async def close(self) -> None:
        self.is_closed = True

    def _check(self, request: SampleRequest) -> None:
        if request.adapter is not None and request.adapter not in self._adapters:
            raise AdapterError(f"adapter {request.adapter!r} is not loaded; loaded: {sorted(self._adapters)}")
        if len(request.prompt_ids) >= self._info.context_length:
            raise ContextLengthError(f"the prompt has {len(request.prompt_ids)} tokens and the context is {self._info.context_length}")

    def _reply(self, request: SampleRequest) -> tuple[list[int], FinishReason]:
        self.answering = request
        reply = self.script(self._decode(request.prompt_ids))
        if isinstance(reply, str):
            ids = [*self._tokenizer.encode(reply, add_special_tokens=False), *request.stop_token_ids[:1]]
        else:
            ids = list(reply)
        room = self._info.context_length - len(request.prompt_ids)
        ids = ids[: min(request.parameters.max_tokens, room)] or [0]
        for position, token in enumerate(ids):
            text = self._decode(ids[: position + 1]) if request.parameters.stop else ""
            if token in request.stop_token_ids or any(stop in text for stop in request.parameters.stop):
                return ids[: position + 1], "stop"
        return ids, "length"

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _notify(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _next_change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future


def fake_logprob(adapter: str | None, position: int, token: int) -> float:
    """A made-up log-probability in [-1, -0.01], the same for the same arguments in every process."""
    digest = hashlib.sha256(f"{adapter}/{position}/{token}".encode()).digest()
    return -(1 + int.from_bytes(digest[:2], "big") % 100) / 100


def _cuts(length: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of the pieces that `sizes`, repeated, cut a list of that length into."""
    start = 0
    for size in cycle(sizes):
        end = min(start + size, length)
        yield start, end
        if end == length:
            return
        start = end


def folder_fingerprint(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's files: what this engine returns when it loads an adapter."""
    if not folder.is_dir():
        raise AdapterError(f"there is no adapter folder {folder}")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _opened() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
