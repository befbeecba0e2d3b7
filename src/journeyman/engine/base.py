"""The engine protocol: token ids in, token ids and log-probabilities out. Knows nothing of chat, text or training."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from journeyman.errors import EngineError
from journeyman.types.sampling import EngineInfo, Sample, SampleDelta, SampleRequest


class Engine(Protocol):
    """Samples from a base model and from adapters of it.

    Cancelling a `sample` or closing a `stream` frees its place in the batch. Adapters are never reloaded under the same name
    (`AdapterError`), and a name in use by a running request cannot be unloaded until that request ends.
    """

    @property
    def info(self) -> EngineInfo: ...

    async def sample(self, request: SampleRequest) -> Sample:
        """Continue one prompt.

        Raises ContextLengthError when the prompt leaves no room for a token, AdapterError for an unknown adapter.
        """
        ...

    def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        """As `sample`, but deltas arrive as they are drawn; the last one has a finish_reason."""
        ...

    async def load_adapter(self, name: str, folder: Path) -> str:
        """Make `name` available from a PEFT folder; returns the fingerprint (sha256 over names and float32 bytes) of what was loaded."""
        ...

    async def unload_adapter(self, name: str) -> None: ...

    def adapters(self) -> tuple[str, ...]: ...

    async def sleep(self) -> None:
        """Wait for running requests to end, then leave the processor (and memory that can be rebuilt) to the trainer."""
        ...

    async def wake(self) -> None: ...

    async def close(self) -> None: ...


async def joined(deltas: AsyncGenerator[SampleDelta], adapter: str | None) -> Sample:
    """The whole sample that a stream of deltas makes, drawn with `adapter`. Raises EngineError when it ends without a reason."""
    ids: list[int] = []
    logprobs: list[float] = []
    # Closed here, not when the garbage collector comes: the adapter is free once the sample is there.
    async with aclosing(deltas):
        async for delta in deltas:
            ids.extend(delta.token_ids)
            logprobs.extend(delta.logprobs)
            if delta.finish_reason is not None:
                return Sample(tuple(ids), tuple(logprobs), delta.finish_reason, adapter)
    raise EngineError("the engine ended a sample without a reason")
