"""An event loop in a thread of its own, so that the main thread can wait for a line of input, or for Ctrl-C, while servers stay alive."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from journeyman.errors import WaitTimeoutError

_Result = TypeVar("_Result")

_STOP_SECONDS = 60.0


class LoopThread:
    """Runs coroutines from the main thread. Use it as a context manager.

    Example:
        >>> async def double(number: int) -> int:
        ...     return 2 * number
        >>> with LoopThread() as loop:
        ...     loop.run(double(2))
        4
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="journeyman-chat", daemon=True)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for `work`. Ctrl-C cancels it and is raised when it has ended.

        Raises what `work` raises; WaitTimeoutError when it goes on for a minute after Ctrl-C.
        """
        ended: queue.Queue[asyncio.Task[_Result]] = queue.Queue()
        begun: list[asyncio.Task[_Result]] = []

        def begin() -> None:
            begun.append(self._loop.create_task(work))
            begun[0].add_done_callback(ended.put)

        self._loop.call_soon_threadsafe(begin)
        try:
            return ended.get().result()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(lambda: begun[0].cancel())
            try:
                ended.get(timeout=_STOP_SECONDS)
            except queue.Empty:
                raise WaitTimeoutError(f"waited {_STOP_SECONDS:.0f} s for the interrupted work to stop") from None
            raise

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.run(self._end_what_is_left())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end_what_is_left(self) -> None:
        """Generators that nobody read to their end, as libraries leave them, close in tasks of the loop."""
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_STOP_SECONDS)
        await self._loop.shutdown_asyncgens()
