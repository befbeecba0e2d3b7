"""Requests on their way to a worker and in its batch.

Not for running them: see `worker.py`.
"""

from __future__ import annotations

import concurrent.futures
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from journeyman.engine.local.cache import Prefix
from journeyman.engine.local.grammar import TokenGuide
from journeyman.errors import EngineError, JourneymanError, WaitTimeoutError
from journeyman.types.sampling import SampleDelta, SampleRequest

CALL_TIMEOUT_SECONDS = 120.0

Deliver = Callable[[SampleDelta | Exception], None]


@dataclass(slots=True, eq=False)
class Row:
    """One request.

    Attributes:
        pending: ids whose keys are not computed yet: what is left of the prompt, then the last sampled token.
        ids: prompt and sampled ids whose keys are known (prefix included).
        slot: its place in the `KVCache`, -1 before it is admitted.
        num_own: how many of `ids` are in the `KVCache` (the others are in `prefix`).
        is_streaming: deliver each token as it is drawn rather than all at the end.
        is_fresh: its prompt was in no cache; once computed it is put there for its siblings.
        failure: why no token could be drawn for it.
    """

    request: SampleRequest
    deliver: Deliver
    uniform: random.Random
    guide: TokenGuide | None = None
    prefix: Prefix | None = None
    slot: int = -1
    num_own: int = 0
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    is_streaming: bool = False
    is_fresh: bool = False
    is_cancelled: bool = False
    failure: BaseException | None = None
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[], None]
    done: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)


class Inbox:
    """What reaches a worker from other threads: rows to run and functions to call; and the error they get once the worker is gone.

    `put`, `call` and `close` are for any thread; `take` and `end` are the worker's own.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Row | _Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.ending: EngineError | None = None

    def put(self, item: Row | _Call) -> None:
        """Raises EngineError when the worker is gone."""
        with self._lock:
            if self.ending is not None:
                raise self.ending
            self._items.put(item)

    def call(self, function: Callable[[], None], timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        """Run `function` in the worker's thread, between two steps, and wait for it.

        Raises what it raises, EngineError when the worker is gone before or meanwhile, WaitTimeoutError.
        """
        call = _Call(function)
        self.put(call)
        try:
            call.done.result(timeout_seconds)
        except concurrent.futures.TimeoutError as error:
            if not call.done.cancel() and call.done.done():
                raise  # the function's own
            raise WaitTimeoutError(f"an engine worker did not answer within {timeout_seconds:g} s") from error

    def close(self) -> None:
        """Nothing is taken any more; the worker is woken to see it."""
        with self._lock:
            self.ending = self.ending or EngineError("the engine was closed", reason="closed")
            self._items.put(None)

    def take(self, *, block: bool) -> Row | None:
        """The next row; None when there is none, or when a call was made or the inbox was closed in its place.

        Raises queue.Empty when nothing arrived, and may not be waited for.
        """
        item = self._items.get(block=block)
        if isinstance(item, _Call) and item.done.set_running_or_notify_cancel():
            try:
                item.function()
            except BaseException as error:  # noqa: BLE001 - the caller's function: its error is the caller's
                item.done.set_exception(as_ours(error))
            else:
                item.done.set_result(None)
        return item if isinstance(item, Row) else None

    def end(self, ending: EngineError) -> list[Row]:
        """The worker is gone: calls fail with `ending`, now and later. Returns the rows that were left."""
        with self._lock:
            self.ending = ending
        rows = []
        while not self._items.empty():
            item = self._items.get()
            if isinstance(item, Row):
                rows.append(item)
            elif item is not None and item.done.set_running_or_notify_cancel():
                item.done.set_exception(ending)
        return rows


def as_ours(error: BaseException) -> JourneymanError:
    """Any error as one of ours."""
    if isinstance(error, JourneymanError):
        return error
    wrapped = EngineError(f"the engine failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
