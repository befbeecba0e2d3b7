"""The time that an attempt has left, and what does not count against it. Not for the limits of single calls.

Waiting for something that attempts share (an MCP server, a sandbox) says nothing about the model, so it must not make an attempt fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class AttemptClock:
    """Can be stopped, also by several tasks of the attempt: until the last of them goes on."""

    def __init__(self) -> None:
        self.stopped_seconds = 0.0
        self._limit: asyncio.Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_stops = 0
        self._since = 0.0
        self._ends: float | None = None

    @contextmanager
    def running(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Inside, `uncounted` stops this limit: in this task and those that it starts. Tasks left behind change nothing any more."""
        self._limit, self._loop = limit, asyncio.get_running_loop()
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            self._limit = None
            _CURRENT.reset(token)

    @property
    def is_here(self) -> bool:
        """Whether this is the attempt's own event loop: a limit cannot be moved from another thread."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    @contextmanager
    def stopped(self) -> Iterator[None]:
        now = asyncio.get_running_loop().time
        if self._num_stops == 0:
            self._since, self._ends = now(), self._move(None)
        self._num_stops += 1
        try:
            yield
        finally:
            self._num_stops -= 1
            if self._num_stops == 0:
                seconds = now() - self._since
                self.stopped_seconds += seconds
                if self._ends is not None:
                    self._move(self._ends + seconds)

    def _move(self, when: float | None) -> float | None:
        """Let a limit that has not passed end at another time; when it would have ended."""
        if self._limit is None or self._limit.expired():
            return None
        before = self._limit.when()
        self._limit.reschedule(when)
        return before


_CURRENT: ContextVar[AttemptClock | None] = ContextVar("attempt_clock", default=None)


@contextmanager
def uncounted() -> Iterator[None]:
    """What happens inside does not count against the time limit of the attempt that this is part of, if any: for waits that say nothing
    about the model. Give them a limit of their own. In a thread of yours it changes nothing: put it around `asyncio.to_thread`.

    Example:
        >>> async def rollout(scenario, run):                                             # doctest: +SKIP
        ...     with uncounted():
        ...         sandbox = await sandboxes.take(timeout_seconds=600)
    """
    clock = _CURRENT.get()
    if clock is None or not clock.is_here:
        yield
    else:
        with clock.stopped():
            yield
