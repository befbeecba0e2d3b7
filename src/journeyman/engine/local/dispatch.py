"""How a request reaches a worker (or process) and its answers come back: which place it goes to, whether it may run now, who waits.

A prompt goes where its beginning is computed already, else to the idlest place. Sleeping waits until nobody samples, and an adapter in use
stays. Not for the order of requests in a worker: see `worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from journeyman.errors import AdapterError, ContextLengthError, EngineError, WaitTimeoutError
from journeyman.types.sampling import EngineInfo, SampleRequest

SLEEP_TIMEOUT_SECONDS = 600.0
WAKE_TIMEOUT_SECONDS = 86_400.0
_CHECK_SECONDS = 30.0
_MAX_HOMES = 1024

_T = TypeVar("_T")


class Router:
    """Remembers which place computed which token ids.

    A group's prompts go to one place, so that they are computed once; the next turn of a rollout goes where the states of its last turn
    are kept. What is known is whole prompts (and replies), so a new prompt is free to go to the idlest place even though all prompts
    share a system message.

    Args:
        num_places: how many there are.
        max_lead: a place that has so many more unfinished requests than the idlest gets no more; computing a prompt again is then cheaper
            than waiting.

    Example:
        >>> router = Router(2, max_lead=16)
        >>> first = router.place((1, 2, 3), [0, 0])
        >>> router.place((1, 2, 3), [5, 0]) == first        # its sibling
        True
        >>> router.place((9, 9, 9), [5, 0])                 # another prompt
        1
    """

    def __init__(self, num_places: int, *, max_lead: int) -> None:
        self._num_new = [0] * num_places
        self._max_lead = max_lead
        self._homes: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def place(self, prompt_ids: tuple[int, ...], loads: Sequence[int]) -> int:
        """The place for a prompt, given the number of unfinished requests of each place."""
        # Among equally idle places, the one that was given fewer prompts: groups that arrive one by one alternate.
        idlest = min(range(len(loads)), key=lambda index: (loads[index], self._num_new[index]))
        home = self._home(prompt_ids)
        if home is None or loads[home] >= loads[idlest] + self._max_lead:
            home = idlest
            self._num_new[home] += 1
        self.remember(prompt_ids, home)
        return home

    def remember(self, ids: tuple[int, ...], place: int) -> None:
        """The states of `ids` are at `place` now: a longer prompt that begins with them goes there."""
        self._homes[ids] = place
        self._homes.move_to_end(ids)
        while len(self._homes) > _MAX_HOMES:
            self._homes.popitem(last=False)

    def forget(self) -> None:
        """The places forgot what they computed."""
        self._homes.clear()
        self._num_new = [0] * len(self._num_new)

    def _home(self, ids: tuple[int, ...]) -> int | None:
        """The place of the longest known beginning of `ids`."""
        best, place = 0, None
        for known, home in self._homes.items():
            # The last id differs for most: that is looked at before all are compared.
            if best < len(known) <= len(ids) and known[-1] == ids[len(known) - 1] and known == ids[: len(known)]:
                best, place = len(known), home
        return place


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


def into(answers: asyncio.Queue[Any]) -> Callable[[object], None]:
    """Deliver to a queue of the running event loop, from any thread."""
    loop = asyncio.get_running_loop()

    def deliver(item: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(answers.put_nowait, item)

    return deliver


async def next_answer(answers: asyncio.Queue[_T | Exception], check: Callable[[], None]) -> _T:
    """The next answer; raises it when it is an error. While none comes, `check` raises when none can come any more."""
    while True:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                answer = await answers.get()
        except TimeoutError:
            check()
            continue
        if isinstance(answer, Exception):
            raise answer
        return answer


def raise_first(results: Iterable[object]) -> None:
    """Raise the first error among the results of `asyncio.gather(..., return_exceptions=True)`."""
    for result in results:
        if isinstance(result, BaseException):
            raise result
