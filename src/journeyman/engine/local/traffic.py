"""Who samples with which adapter now: sleeping waits until nobody does, and an adapter in use stays. Not for the order of requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from journeyman.errors import AdapterError, ContextLengthError, EngineError, WaitTimeoutError
from journeyman.types.sampling import EngineInfo, SampleRequest

SLEEP_TIMEOUT_SECONDS = 600.0
WAKE_TIMEOUT_SECONDS = 86_400.0


def check_request(request: SampleRequest, info: EngineInfo) -> None:
    """Raises EngineError or ContextLengthError for a prompt that the engine cannot continue."""
    if not request.prompt_ids:
        raise EngineError("the prompt is empty", hint="a prompt needs at least one token")
    if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < info.vocabulary_size:
        raise EngineError(f"the prompt has token ids outside the vocabulary of {info.vocabulary_size}")
    if len(request.prompt_ids) >= info.context_length:
        raise ContextLengthError(
            f"the prompt has {len(request.prompt_ids)} tokens, the model's context is {info.context_length}",
            hint="shorten the prompt, the tools or the tool results",
        )


class Traffic:
    """Counts running requests, and holds new ones back while the engine sleeps. For one event loop."""

    def __init__(self) -> None:
        self._users: Counter[str | None] = Counter()
        self._awake = asyncio.Event()
        self._awake.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_until_awake(self) -> None:
        """Raises WaitTimeoutError when the trainer has not given the processor back for a day."""
        try:
            async with asyncio.timeout(WAKE_TIMEOUT_SECONDS):
                await self._awake.wait()
        except TimeoutError as error:
            raise WaitTimeoutError(f"the engine was not woken within {WAKE_TIMEOUT_SECONDS:.0f} s: training does not end") from error

    @contextmanager
    def running(self, adapter: str | None) -> Iterator[None]:
        """A request with `adapter` runs while the block does."""
        self._users[adapter] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users[adapter] -= 1
            if not self._users[adapter]:
                del self._users[adapter]
            if not self._users:
                self._idle.set()

    def require_unused(self, adapter: str) -> None:
        """Raises AdapterError while a request uses `adapter`."""
        if self._users[adapter]:
            raise AdapterError(f"adapter {adapter} is in use by {self._users[adapter]} requests", hint="wait for them to end")

    async def sleep(self) -> None:
        """Hold new requests back and wait for the running ones; raises WaitTimeoutError, and is awake then."""
        self._awake.clear()
        try:
            async with asyncio.timeout(SLEEP_TIMEOUT_SECONDS):
                await self._idle.wait()
        except TimeoutError as error:
            self._awake.set()
            raise WaitTimeoutError(
                f"running requests did not end within {SLEEP_TIMEOUT_SECONDS:.0f} s, so training cannot start"
            ) from error
        except asyncio.CancelledError:
            self._awake.set()
            raise

    def wake(self) -> None:
        self._awake.set()
