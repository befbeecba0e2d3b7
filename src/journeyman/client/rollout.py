"""A rollout as the agent's code sees it: where to send its model calls, where to leave what happened, and what of its time counts.

Not for opening or sealing rollouts: `gather` does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from journeyman.http_clients import without_proxy
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import ToolEvent

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class Rollout:
    """One attempt in progress.

    Attributes:
        id: of the trajectory that comes of it; like `scenario`, not to be set.
        scenario: what is attempted.
        model: the model name to send.
        base_url, api_key: for any OpenAI-compatible client; what is sent there is recorded.
        reward: set it when your code can score the attempt itself, a finite number; leave None when a judge does.
        metrics: numbers to keep with the trajectory. What is no number there, or in `reward`, is this attempt's failure.
        seed: send it with the model calls to make the attempt repeatable; another one for every attempt, None when `gather` got no seed.

    Example:
        >>> async def rollout(scenario, run):                                             # doctest: +SKIP
        ...     reply = await run.openai().chat.completions.create(
        ...         model=run.model, messages=[{"role": "user", "content": scenario.task}])
        ...     run.metrics["length"] = len(reply.choices[0].message.content or "")
    """

    def __init__(
        self,
        *,
        rollout_id: str,
        scenario: Scenario,
        model: str,
        base_url: str,
        api_key: str,
        make_client: Callable[[], AsyncOpenAI],
    ) -> None:
        self._id = rollout_id
        self._scenario = scenario
        self.model = model
        self.base_url = base_url
        self.api_key = api_key
        self.reward: float | None = None
        self.metrics: dict[str, float] = {}
        self.seed: int | None = None
        self._tool_events: list[ToolEvent] = []
        self._make_client = make_client
        self._client: AsyncOpenAI | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    def openai(self) -> AsyncOpenAI:
        """A client whose calls belong to this rollout. It shares its connections with others: closing it closes nothing."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def env(self) -> dict[str, str]:
        """Environment variables that point an agent in another process at this rollout, past the proxies that are set here."""
        address = {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key, "OPENAI_MODEL": self.model}
        return address | without_proxy(self.base_url)

    def record_tool(self, event: ToolEvent) -> None:
        """Keep what became of a tool call; judges look at it."""
        self._tool_events.append(event)

    @property
    def tool_events(self) -> tuple[ToolEvent, ...]:
        return tuple(self._tool_events)


class AttemptClock:
    """The time that an attempt has left. It can be stopped, also by several tasks of the attempt: until the last of them goes on.

    Waiting for something that attempts share (an MCP server, a sandbox) says nothing about the model, so it must not make an attempt fail.
    """

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
