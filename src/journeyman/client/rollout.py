"""A rollout as the agent's code sees it: where to send its model calls, and where to leave what happened.

Not for opening or sealing rollouts: `gather` does that.
"""

from __future__ import annotations

from collections.abc import Callable
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
