"""A rollout as the agent's code sees it: where to send its model calls, and where to leave what happened.

Not for opening or sealing rollouts: `gather` does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import ToolEvent

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class AttemptClock:
    """The time that an attempt has left. It can be stopped, also by several tasks of the attempt: until the last of them goes on.

    Args:
        limit: of the attempt, entered already; None for one without a limit.
    """

    def __init__(self, limit: asyncio.Timeout | None = None) -> None:
        self.stopped_seconds = 0.0
        self._limit = limit
        self._num_stops = 0
        self._since = 0.0
        self._ends: float | None = None

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

    def end(self) -> None:
        """The attempt is over; tasks that it left behind change nothing any more."""
        self._limit = None

    def _move(self, when: float | None) -> float | None:
        """Let a limit that has not passed end at another time; when it would have ended."""
        if self._limit is None or self._limit.expired():
            return None
        before = self._limit.when()
        self._limit.reschedule(when)
        return before


class Rollout:
    """One attempt in progress.

    Attributes:
        id: of the trajectory that comes of it.
        scenario: what is attempted.
        model: the model name to send.
        base_url, api_key: for any OpenAI-compatible client; what is sent there is recorded.
        reward: set it when your code can score the attempt itself; leave None when a judge does.
        metrics: numbers to keep with the trajectory.
        clock: of the attempt's time limit; see `uncounted`.
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
        self.id = rollout_id
        self.scenario = scenario
        self.model = model
        self.base_url = base_url
        self.api_key = api_key
        self.reward: float | None = None
        self.metrics: dict[str, float] = {}
        self.seed: int | None = None
        self._tool_events: list[ToolEvent] = []
        self._make_client = make_client
        self._client: AsyncOpenAI | None = None
        self.clock = AttemptClock()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What happens inside does not count against the attempt's time limit: for waits that say nothing about the model, such as for a
        sandbox to be free. Give it a limit of its own.

        Example:
            >>> async def rollout(scenario, run):                                         # doctest: +SKIP
            ...     with run.uncounted():
            ...         sandbox = await sandboxes.take(timeout_seconds=600)
        """
        with self.clock.stopped():
            yield

    def openai(self) -> AsyncOpenAI:
        """A client whose calls belong to this rollout. It shares its connections with others: do not close it."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def env(self) -> dict[str, str]:
        """Environment variables that point an agent in another process at this rollout."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key, "OPENAI_MODEL": self.model}

    def record_tool(self, event: ToolEvent) -> None:
        """Keep what became of a tool call; judges look at it."""
        self._tool_events.append(event)

    @property
    def tool_events(self) -> tuple[ToolEvent, ...]:
        return tuple(self._tool_events)
