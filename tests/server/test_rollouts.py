"""Recorded rollouts over HTTP: attributed by URL or key, replayed for retries, sealed with 410."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from journeyman.service.capture import segments
from journeyman.types.trajectory import Trajectory

TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}]
USER: list[Any] = [{"role": "user", "content": "What time is it?"}]
CALL = '<tool_call>{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}</tool_call>'


class Agent:
    """A rollout and a client inside it."""

    def __init__(self, running: Any, ticket: dict[str, Any]) -> None:
        self.id, self.token = ticket["id"], ticket["token"]
        self.root = AsyncOpenAI(base_url=running.url, api_key="none")
        self.api = AsyncOpenAI(base_url=f"{running.url}/r/{self.id}.{self.token}/v1", api_key=self.token)

    async def finish(self, **outcome: Any) -> Trajectory:
        data = await self.root.post(f"/api/rollouts/{self.id}/finish", cast_to=object, body=outcome)
        return Trajectory.model_validate(data)


Open = Callable[..., Awaitable[Agent]]


@pytest_asyncio.fixture
async def open_rollout() -> AsyncIterator[Open]:
    """Open rollouts; their clients are closed when the test ends."""
    agents: list[Agent] = []

    async def opened(running: Any, key: str = "none", **fields: Any) -> Agent:
        async with AsyncOpenAI(base_url=running.url, api_key=key) as root:
            body = {"model": "base", "scenario_id": "s1", **fields}
            ticket: Any = await root.post("/api/rollouts", cast_to=object, body=body)
        agents.append(Agent(running, ticket))
        return agents[-1]

    yield opened
    for agent in agents:
        await agent.root.close()
        await agent.api.close()


async def test_a_two_turn_rollout_is_one_exact_segment(running: Any, open_rollout: Open) -> None:
    running.replies += [CALL, "It is noon."]
    agent = await open_rollout(running)
    assert [model.id async for model in agent.api.models.list()] == ["agent"]
    first = await agent.api.chat.completions.create(model="agent", messages=USER, tools=TOOLS)
    history = [*USER, first.choices[0].message.model_dump()]
    assert first.choices[0].message.tool_calls is not None
    history.append({"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "12:00"})
    await agent.api.chat.completions.create(model="any/unknown-name", messages=history, tools=TOOLS)
    trajectory = await agent.finish(reward=0.5, metrics={"num_tool_calls": 1}, seconds=1.5)
    assert (trajectory.reward, trajectory.answer, trajectory.seconds) == (0.5, "It is noon.", 1.5)
    assert [len(segment.turns) for segment in segments(trajectory)] == [2]
    read = await agent.root.get(f"/api/rollouts/{agent.id}", cast_to=object)
    assert Trajectory.model_validate(read) == trajectory


async def test_the_token_alone_attributes_calls_on_the_plain_url(running: Any, open_rollout: Open) -> None:
    agent = await open_rollout(running)
    async with AsyncOpenAI(base_url=running.v1, api_key=agent.token) as plain:
        await plain.chat.completions.create(model="whatever", messages=USER)
    assert len((await agent.finish()).turns) == 1


async def test_sealed_is_410_unknown_404_wrong_token_401_and_none_is_retried(running: Any, open_rollout: Open) -> None:
    agent = await open_rollout(running)
    await agent.finish()
    wrong = f"{running.url}/r/{agent.id}.wrong/v1"
    unknown = f"{running.url}/r/ro_nobody.{agent.token}x/v1"
    nonsense = f"{running.url}/r/nonsense/v1"
    sealed = f"{running.url}/r/{agent.id}.{agent.token}/v1"
    for url, status in ((sealed, 410), (wrong, 401), (unknown, 404), (nonsense, 404)):
        async with AsyncOpenAI(base_url=url, api_key="x") as api:
            with pytest.raises(openai.APIStatusError) as caught:
                await api.chat.completions.create(model="agent", messages=USER)
        assert caught.value.status_code == status
    assert running.engine.requests == []


async def test_the_call_cap_is_410(running: Any, open_rollout: Open) -> None:
    agent = await open_rollout(running, max_turns=1)
    await agent.api.chat.completions.create(model="agent", messages=USER)
    with pytest.raises(openai.APIStatusError, match="all its 1 model calls") as caught:
        await agent.api.chat.completions.create(model="agent", messages=USER)
    assert caught.value.status_code == 410


async def test_an_sdks_own_retry_after_a_500_is_one_turn(running: Any, open_rollout: Open) -> None:
    agent = await open_rollout(running)
    failures = [RuntimeError("once")]
    script = running.engine.script

    def fail_once(prompt: str) -> Any:
        if failures:
            raise failures.pop()
        return script(prompt)

    running.engine.script = fail_once
    await agent.api.chat.completions.create(model="agent", messages=USER)
    assert len((await agent.finish()).turns) == 1


async def test_a_retry_of_an_answered_call_gets_the_stored_answer(running: Any, open_rollout: Open) -> None:
    running.replies += ["first", "second"]
    agent = await open_rollout(running)
    first = await agent.api.chat.completions.create(model="agent", messages=USER)
    again = await agent.api.chat.completions.create(model="agent", messages=USER, extra_headers={"x-stainless-retry-count": "1"})
    assert first.choices[0].message.content == again.choices[0].message.content == "first"
    assert len(running.engine.requests) == 1


async def test_streamed_calls_are_recorded_before_their_first_chunk(running: Any, open_rollout: Open) -> None:
    agent = await open_rollout(running)
    stream = await agent.api.chat.completions.create(model="agent", messages=USER, stream=True)
    async for _ in stream:
        break
    assert len((await agent.finish()).turns) == 1
    await stream.close()


async def test_eight_rollouts_at_once_do_not_mix(running: Any, open_rollout: Open) -> None:
    agents = await asyncio.gather(*(open_rollout(running, scenario_id=f"s{number}") for number in range(8)))

    async def run(agent: Agent, number: int) -> Trajectory:
        for _ in range(3):
            await agent.api.chat.completions.create(model="agent", messages=[{"role": "user", "content": f"I am {number}"}])
        return await agent.finish()

    trajectories = await asyncio.gather(*(run(agent, number) for number, agent in enumerate(agents)))
    for number, trajectory in enumerate(trajectories):
        assert trajectory.scenario_id == f"s{number}"
        assert [turn.messages[0].content for turn in trajectory.turns] == [f"I am {number}"] * 3


async def test_the_api_key_guards_everything_but_a_rollouts_own_url(start_server: Callable[..., Any], open_rollout: Open) -> None:
    running = start_server(api_key="the-key")
    async with AsyncOpenAI(base_url=running.url, api_key="wrong") as stranger:
        for path in ("/api/runs", "/v1/models", "/api/rollouts/x"):
            with pytest.raises(openai.AuthenticationError):
                await stranger.get(path, cast_to=object)
        assert (await stranger.get("/healthz", cast_to=object))["status"] == "ok"  # type: ignore[index]
    agent = await open_rollout(running, "the-key")
    await agent.api.chat.completions.create(model="agent", messages=USER)
    async with AsyncOpenAI(base_url=running.v1, api_key=agent.token) as plain:
        await plain.chat.completions.create(model="agent", messages=USER)
        with pytest.raises(openai.AuthenticationError):
            await plain.completions.create(model="base", prompt="a token is for chat in its rollout only")


async def test_a_foreign_web_page_may_not_call_a_server_without_key(running: Any) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        with pytest.raises(openai.PermissionDeniedError):
            await api.get("/api/runs", cast_to=object, options={"headers": {"origin": "https://evil.example"}})
        await api.get("/api/runs", cast_to=object, options={"headers": {"origin": "http://localhost:3000"}})
