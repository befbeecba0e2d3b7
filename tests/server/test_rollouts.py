"""Recorded rollouts over HTTP: attributed by URL or key, replayed for retries, sealed with 410."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from tests.client.test_attempts import BAD

import journeyman as jm
from journeyman.service.turns import segments
from journeyman.types.trajectory import Trajectory

TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}]
USER: list[Any] = [{"role": "user", "content": "What time is it?"}]
CALL = '<tool_call>{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}</tool_call>'


class Agent:
    """A rollout and a client inside it."""

    def __init__(self, running: Any, ticket: dict[str, Any]) -> None:
        self.id, self.token = ticket["id"], ticket["token"]
        self.root = AsyncOpenAI(base_url=running.url, api_key="none")
        self.url = f"{running.url}/r/{self.id}.{self.token}/v1"
        self.api = AsyncOpenAI(base_url=self.url, api_key=self.token)

    def through(self, url: str) -> AsyncOpenAI:
        """Its client by way of another address."""
        return self.api.with_options(base_url=f"{url}/r/{self.id}.{self.token}/v1")

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
    with pytest.raises(openai.APIStatusError) as caught:
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


class TestConnectionsThatAreCut:
    """The answer is whole and its turn is stored, but it never reaches the client, which tries again by itself."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("cut", [0, 1, 2])
    async def test_the_call_in_question_gets_its_own_reply_again(self, running: Any, open_rollout: Open, cut: int, stream: bool) -> None:
        running.replies += ["first", "second", "third"]
        agent = await open_rollout(running)
        async with cutting_proxy(running, {cut}) as url:
            api = agent.through(url)
            assert [await said(api, stream) for _ in range(3)] == ["first", "second", "third"]
        assert len((await agent.finish()).turns) == 3

    async def test_a_call_may_be_cut_twice(self, running: Any, open_rollout: Open) -> None:
        running.replies += ["first", "second"]
        agent = await open_rollout(running)
        async with cutting_proxy(running, {1, 2}) as url:
            api = agent.through(url)
            assert [await said(api), await said(api)] == ["first", "second"]
        assert len((await agent.finish()).turns) == 2

    async def test_with_our_own_client_equal_calls_at_the_same_time_each_get_theirs(self, running: Any) -> None:
        running.replies += [f"reply {number}" for number in range(6)]
        seen: list[str | None] = []

        async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
            seen.extend(await asyncio.gather(*(said(run.openai()) for _ in range(6))))

        async with cutting_proxy(running, {0, 2, 4}) as url, jm.connect(url) as connection:
            ((trajectory,),) = await jm.gather(agent, [jm.Scenario(id="s", task="t")], model=connection.base_model(), group_size=1)
        assert trajectory.error is None
        assert len(trajectory.turns) == 6
        assert len(set(seen)) == 6


async def test_equal_calls_of_a_client_that_counts_no_tries_are_draws_of_their_own(running: Any, open_rollout: Open) -> None:
    running.replies += ["one", "two", "three"]
    agent = await open_rollout(running)

    def ask() -> str:
        request = urllib.request.Request(f"{agent.url}/chat/completions", data=json.dumps({"messages": USER}).encode())
        with urllib.request.urlopen(request, timeout=20) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])

    texts = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(3)))
    assert sorted(texts) == ["one", "three", "two"]
    assert len((await agent.finish()).turns) == 3


async def test_an_idempotency_key_names_a_call(running: Any, open_rollout: Open) -> None:
    running.replies += ["one", "two"]
    agent = await open_rollout(running)
    first, second = {"Idempotency-Key": "a"}, {"Idempotency-Key": "b"}
    texts = [await said(agent.api, extra_headers=headers) for headers in (first, second, first, second)]
    assert texts == ["one", "two", "one", "two"]
    with pytest.raises(openai.BadRequestError) as caught:
        await agent.api.chat.completions.create(model="agent", messages=[*USER, *USER], extra_headers=first)
    assert caught.value.code == "idempotency_key_reused"


async def said(api: AsyncOpenAI, stream: bool = False, **options: Any) -> str:
    if not stream:
        reply = await api.chat.completions.create(model="agent", messages=USER, **options)
        return reply.choices[0].message.content or ""
    chunks = await api.chat.completions.create(model="agent", messages=USER, stream=True, **options)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


@asynccontextmanager
async def cutting_proxy(running: Any, cut: set[int]) -> AsyncIterator[str]:
    """A proxy that reads the answers to chat completions whole, and hangs up instead of passing on those whose numbers are in `cut`."""
    num_chats = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_chats
        try:
            head, _, _ = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n\r\n")
            first, *headers = head.split("\r\n")
            length = next((int(line.split(":")[1]) for line in headers if line.lower().startswith("content-length:")), 0)
            kept = [line for line in headers if not line.lower().startswith("connection:")]
            host, port = running.url.removeprefix("http://").split(":")
            answers, questions = await asyncio.open_connection(host, int(port))
            questions.write("\r\n".join([first, *kept, "connection: close", "", ""]).encode() + await reader.readexactly(length))
            answer = await asyncio.wait_for(answers.read(), 20)
            questions.close()
            is_chat = "/chat/completions" in first
            number, num_chats = num_chats, num_chats + is_chat
            if not (is_chat and number in cut):
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_attempts_that_leave_what_cannot_be_kept_do_not_keep_the_others_from_being_trained_on(running: Any) -> None:
    kinds: dict[str, Callable[[Any], None]] = {name: leave for name, leave in BAD.items() if "exception" not in name}

    async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
        await run.openai().chat.completions.create(model=run.model, messages=USER)
        if scenario.id in kinds:
            kinds[scenario.id](run)
        else:
            run.reward = float(run.seed or 0) % 7

    async with jm.connect(running.url) as connection:
        model = await connection.model("m")
        named = [jm.Scenario(id=name, task="t") for name in (*kinds, "half \ud800 name", "good")]
        groups = await asyncio.wait_for(jm.gather(agent, named, model=model, group_size=2, seed=3), 60)
        assert [one.error is None for one in groups[-1]] == [True, True]
        assert all(one.error is not None and one.reward is None for group in groups[:-1] for one in group)
        result = await model.train(groups)
        assert result.metrics["train/num_trajectories_excluded"] == 2 * len(kinds)


@pytest.mark.parametrize(("field", "value"), [("max_turns", 10**30), ("max_turns", 0), ("max_turns", "x"), ("scenario_id", 3)])
async def test_a_rollout_that_cannot_be_kept_is_refused_by_its_field(running: Any, field: str, value: object) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none", max_retries=0) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.post("/api/rollouts", cast_to=object, body={"model": "base", "scenario_id": "s", field: value})
        assert caught.value.param == field
        with pytest.raises(openai.BadRequestError) as caught:
            await api.get("/api/rollouts", cast_to=object, options={"params": {"model": "base"}})
        assert caught.value.param == "key"
