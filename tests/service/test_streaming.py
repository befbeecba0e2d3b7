"""A stream says what the whole reply says, however the tokens come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.chat.renderer import Renderer
from journeyman.chat.reply import LiveText
from journeyman.engine.fake import FakeEngine
from journeyman.errors import ContextLengthError, EngineError, NotFoundError
from journeyman.service.capture import Recorder
from journeyman.service.requests import ChatRequest, CompletionRequest
from journeyman.service.sampling import CallContext, SamplingService
from journeyman.service.streaming import ReplyDelta
from journeyman.store import Store
from journeyman.types.training import CreateRollout

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
PIECES = ["<think>", "</think>", "<tool_call>", '{"name": "f", "arguments": {"a": 1}}', "</tool_call>", "STOP", "STO", "hello", " "]
PIECES += ["\n", "é", "日本", "🙂", "<", "<t", "�"]
REPLIES = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=10).map("".join)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


class BaseOnly:
    @asynccontextmanager
    async def using(self, model: str) -> AsyncIterator[str | None]:
        if model != "base":
            raise NotFoundError(f"there is no model {model!r} here")
        yield None


class World:
    """A sampling service; `reply` is what the engine says next, a text or ids."""

    def __init__(self, tokenizer: Any, store: Store) -> None:
        self.reply: str | Sequence[int] = "hello"
        self.engine = FakeEngine(lambda _: self.reply, tokenizer, context_length=512)
        self.renderer = Renderer(tokenizer, 512)
        self.recorder = Recorder(store)
        self.service = SamplingService(self.engine, self.renderer, self.recorder, BaseOnly())


@pytest.fixture(scope="module")
def world(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Store.open(tmp_path_factory.mktemp("home")) as store:
        yield World(tiny_tokenizer, store)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "base", "messages": [{"role": "user", "content": "hi"}], **fields})


async def collect(deltas: Any) -> list[ReplyDelta]:
    async with aclosing(deltas):
        return [delta async for delta in deltas]


def joined(deltas: Sequence[ReplyDelta]) -> tuple[str, str, list[tuple[str, str]], str | None, tuple[int, ...], tuple[float, ...]]:
    return (
        "".join(delta.reasoning for delta in deltas),
        "".join(delta.content for delta in deltas),
        [(call.function.name, call.function.arguments) for delta in deltas for call in delta.tool_calls],
        deltas[-1].finish_reason,
        tuple(token for delta in deltas for token in delta.token_ids),
        tuple(logprob for delta in deltas for logprob in delta.logprobs),
    )


async def test_every_token_that_is_drawn_is_counted_streamed_or_not(world: World) -> None:
    world.reply = "hello there"
    before = world.service.num_sampled_tokens
    reply = await world.service.chat(chat(n=2))
    deltas = await collect(world.service.stream_chat(chat()))
    text = await world.service.complete(CompletionRequest(model="base", prompt="x", max_tokens=3))
    drawn = reply.num_sampled_tokens + sum(len(delta.token_ids) for delta in deltas) + len(text.completions[0].sample.token_ids)
    assert world.service.num_sampled_tokens - before == drawn > 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=REPLIES, sizes=SIZES, tools=st.booleans(), stop=st.sampled_from([None, "STOP", "l"]), max_tokens=st.integers(1, 60))
def test_the_joined_stream_is_the_unstreamed_reply(
    world: World, reply: str, sizes: list[int], tools: bool, stop: str | None, max_tokens: int
) -> None:
    asyncio.run(_compare(world, reply, sizes, chat(tools=TOOLS if tools else None, stop=stop, max_tokens=max_tokens)))


async def _compare(world: World, reply: str, sizes: list[int], request: ChatRequest) -> None:
    world.reply, world.engine.delta_sizes = reply, sizes
    turn = (await world.service.chat(request)).turns[0]
    streamed = joined(await collect(world.service.stream_chat(request)))
    calls = [(call.function.name, call.function.arguments) for call in turn.reply.tool_calls]
    said = (turn.reply.reasoning_content or "", turn.reply.content or "", calls, turn.finish_reason)
    assert streamed == (*said, turn.sampled_ids, turn.sampled_logprobs)
    raw = CompletionRequest(model="base", prompt="x", stop=request.stop, max_tokens=request.max_tokens)
    whole = (await world.service.complete(raw)).completions[0]
    assert joined(await collect(world.service.stream_completion(raw)))[1] == whole.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(3, 330), max_size=30), sizes=SIZES)
def test_text_decoded_as_it_comes_is_a_beginning_of_the_whole_text(world: World, ids: list[int], sizes: list[int]) -> None:
    text, start = LiveText(world.renderer), 0
    for size in sizes * len(ids):
        shown = text.add(ids[start : start + size])
        start += size
        assert world.renderer.reply_text(ids[:start]).startswith(shown.rstrip("�"))
        assert not shown.endswith("�")


async def test_a_character_is_sent_when_all_its_bytes_are_there(world: World) -> None:
    world.reply, world.engine.delta_sizes = "a🙂b", [1]
    contents = [delta.content for delta in await collect(world.service.stream_chat(chat()))]
    assert [content for content in contents if content] == ["a", "🙂", "b"]
    assert contents.count("") >= 3, "a token is no character here"


async def test_calls_come_on_the_last_delta_with_an_id_of_ours(world: World) -> None:
    world.reply = 'I look. <tool_call>{"name": "f", "arguments": {}}</tool_call> Wait.'
    deltas = await collect(world.service.stream_chat(chat(tools=TOOLS)))
    assert [bool(delta.tool_calls) for delta in deltas].index(True) == len(deltas) - 1
    assert deltas[-1].tool_calls[0].id.startswith("call_")
    assert "".join(delta.content for delta in deltas) == "I look.  Wait."


async def test_several_replies_are_drawn_at_once(world: World) -> None:
    world.reply = "hello"
    world.engine.hold(after_tokens=1)
    deltas = world.service.stream_chat(chat(n=3))
    first = [await anext(deltas) for _ in range(3)]
    assert sorted(delta.index for delta in first) == [0, 1, 2]
    world.engine.release()
    rest = await collect(deltas)
    assert "".join(delta.content for delta in [*first, *rest] if delta.index == 2) == "hello"


async def test_closing_a_stream_frees_every_place_in_the_engine(world: World) -> None:
    before = world.engine.num_cancelled
    world.engine.hold(after_tokens=1)
    deltas = world.service.stream_chat(chat(n=2))
    await anext(deltas)
    await deltas.aclose()
    world.engine.release()
    assert world.engine.num_running == 0
    assert world.engine.num_cancelled == before + 2


async def test_a_rollouts_stream_is_one_stored_delta_a_reply(world: World) -> None:
    world.reply = "hello"
    ticket = await world.recorder.open(CreateRollout(model="base", scenario_id="s"))
    session = await world.recorder.session(ticket.id, ticket.token)
    (only,) = await collect(world.service.stream_chat(chat(), CallContext(session, "1", 0)))
    assert (only.content, only.finish_reason) == ("hello", "stop")
    assert session.turns[0].sampled_ids == only.token_ids


async def test_errors_come_before_the_first_delta(world: World) -> None:
    for request, error in ((chat(model="nobody"), NotFoundError), (chat(model=""), NotFoundError)):
        with pytest.raises(error):
            await anext(world.service.stream_chat(request))
    with pytest.raises(ContextLengthError):
        await anext(world.service.stream_chat(chat(messages=[{"role": "user", "content": "x" * 600}])))
    world.engine.fail_with = EngineError("out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        await anext(world.service.stream_chat(chat()))
    world.engine.fail_with = None
