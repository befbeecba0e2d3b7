"""What reaches a worker from other threads: rows to run and functions to call; and what they are told once the worker is gone.

Not for running them: see `worker.py`.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from journeyman.engine.local.rows import Row
from journeyman.errors import EngineError, JourneymanError, WaitTimeoutError

CALL_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[], None]
    done: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)


class Inbox:
    """`put`, `call` and `close` are for any thread; `take` and `end` are the worker's own."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Row | _Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.ending: EngineError | None = None

    def put(self, row: Row) -> None:
        """Raises EngineError when the worker is gone."""
        self._put(row)

    def call(self, function: Callable[[], None], timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        """Run `function` in the worker's thread, between two rounds, and wait for it.

        Raises what it raises, EngineError when the worker is gone before or meanwhile, WaitTimeoutError.
        """
        call = _Call(function)
        self._put(call)
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
                item.done.set_exception(named(error))
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

    def _put(self, item: Row | _Call) -> None:
        with self._lock:
            if self.ending is not None:
                raise self.ending
            self._items.put(item)


def named(error: BaseException) -> JourneymanError:
    """An error of the worker's as one of ours."""
    if isinstance(error, JourneymanError):
        return error
    found = EngineError(f"the engine failed: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found
