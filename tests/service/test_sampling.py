"""Model calls: rendered exactly, recorded before they are answered, retried without sampling twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.reasons import has_reason

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.errors import ContextLengthError, EngineError, NotFoundError, ServiceError
from journeyman.service.capture import Recorder
from journeyman.service.requests import ChatRequest, CompletionRequest, grammar_of
from journeyman.service.sampling import CallContext, SamplingService
from journeyman.service.sessions import Session
from journeyman.service.turns import segments
from journeyman.store import Store
from journeyman.store.models import AdapterRow
from journeyman.types.sampling import JsonSchemaGrammar, LarkGrammar
from journeyman.types.training import CreateRollout, FinishRollout

TOOLS = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}]
CALL = '<tool_call>{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}</tool_call>'


class KnownVersions:
    @asynccontextmanager
    async def using(self, model: str) -> AsyncIterator[AdapterRow | None]:
        if model not in ("base", "m@1"):
            raise NotFoundError(f"there is no model {model!r} here")
        yield None if model == "base" else AdapterRow("r", "m", 1, Path("m@1"), "fingerprint")


class World:
    """A sampling service over a fake engine and a real store."""

    def __init__(self, tokenizer: Any, store: Store) -> None:
        self.replies: list[str] = []
        self.engine = FakeEngine(lambda _: self.replies.pop(0) if self.replies else "ok", tokenizer, context_length=512)
        self.renderer = Renderer(tokenizer, 512)
        self.recorder = Recorder(store)
        self.service = SamplingService(self.engine, self.renderer, self.recorder, KnownVersions())

    async def rollout(self, max_turns: int = 64) -> Session:
        ticket = await self.recorder.open(CreateRollout(model="base", scenario_id="s", max_turns=max_turns))
        return await self.recorder.session(ticket.id, ticket.token)


@pytest.fixture
def world(tiny_tokenizer: Any, tmp_path: Path) -> Any:
    with Store.open(tmp_path) as store:
        yield World(tiny_tokenizer, store)


def chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    history = list(messages) or [{"role": "user", "content": "What time is it?"}]
    return ChatRequest.model_validate({"model": "base", "messages": history, **fields})


async def test_a_call_comes_back_parsed_with_an_id_of_ours(world: World) -> None:
    world.replies = [CALL]
    reply = (await world.service.chat(chat(tools=TOOLS))).turns[0].reply
    assert reply.content is None
    assert reply.tool_calls[0].id.startswith("call_")
    assert reply.tool_calls[0].function.arguments == '{"zone": "Asia/Tokyo"}'


async def test_without_tools_what_looks_like_a_call_is_text(world: World) -> None:
    world.replies = [CALL, CALL]
    assert (await world.service.chat(chat())).turns[0].reply.content == CALL
    assert (await world.service.chat(chat(tools=TOOLS, tool_choice="none"))).turns[0].reply.tool_calls == ()


async def test_a_rollout_extends_token_by_token_although_the_framework_rewrites_arguments(world: World) -> None:
    session = await world.rollout()
    world.replies = ["I look. " + CALL, "It is noon."]
    user = {"role": "user", "content": "What time is it?"}
    first = (await world.service.chat(chat(user, tools=TOOLS), CallContext(session, "1", 0))).turns[0]
    echoed = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": first.reply.tool_calls[0].id,
                "type": "function",
                "function": {"name": "get_time", "arguments": '{"zone":"Asia\\/Tokyo"}'},
            }
        ],
    }
    result = {"role": "tool", "tool_call_id": first.reply.tool_calls[0].id, "content": "12:00"}
    second = (await world.service.chat(chat(user, echoed, result, tools=TOOLS), CallContext(session, "2", 0))).turns[0]
    assert second.prompt_ids[: len(first.prompt_ids) + len(first.sampled_ids)] == first.prompt_ids + first.sampled_ids
    trajectory = await world.recorder.finish(session.id, FinishRollout(reward=1.0))
    (only,) = segments(trajectory)
    assert only.num_sampled == len(first.sampled_ids) + len(second.sampled_ids)
    assert trajectory.answer == "It is noon."


async def test_the_turn_is_stored_when_the_reply_leaves(world: World) -> None:
    session = await world.rollout()
    reply = await world.service.chat(chat(), CallContext(session, "1", 0))
    assert (await world.recorder.trajectory(session.id)).turns == reply.turns


async def test_a_retry_gets_the_stored_answer_and_a_fresh_call_does_not(world: World) -> None:
    session = await world.rollout()
    first = await world.service.chat(chat(), CallContext(session, "same", 0))
    retried = await world.service.chat(chat(), CallContext(session, "same", 1))
    assert retried.turns == first.turns
    fresh = await world.service.chat(chat(), CallContext(session, "same", 0))
    assert fresh.turns[0].index == 1
    assert len(world.engine.requests) == 2


async def test_a_retry_joins_the_call_that_is_still_being_served(world: World) -> None:
    session = await world.rollout()
    world.engine.hold()
    first = asyncio.create_task(world.service.chat(chat(), CallContext(session, "same", 0)))
    await world.engine.until_running(1)
    retried = asyncio.create_task(world.service.chat(chat(), CallContext(session, "same", 1)))
    await _settle()
    first.cancel()
    await _settle()
    world.engine.release()
    assert [turn.index for turn in (await retried).turns] == [0]
    assert len(world.engine.requests) == 1


async def test_when_every_client_is_gone_the_sampling_is_cancelled(world: World) -> None:
    session = await world.rollout()
    world.engine.hold()
    task = asyncio.create_task(world.service.chat(chat(), CallContext(session, "1", 0)))
    await world.engine.until_running(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.engine.until_running(0)
    assert world.engine.num_cancelled == 1
    assert (await world.recorder.trajectory(session.id)).turns == ()


async def test_a_sealed_rollout_answers_410_and_calls_in_flight_end(world: World) -> None:
    session = await world.rollout()
    world.engine.hold()
    late = asyncio.create_task(world.service.chat(chat(), CallContext(session, "1", 0)))
    await world.engine.until_running(1)
    sealed = await world.recorder.finish(session.id, FinishRollout())
    assert sealed.turns == ()
    for call in (late, world.service.chat(chat(), CallContext(session, "2", 0))):
        with pytest.raises(ServiceError) as caught:
            await call
        assert (caught.value.status, caught.value.code) == (410, "rollout_sealed")
    assert world.recorder.pinned() == frozenset()


async def test_finishing_twice_returns_the_trajectory_as_sealed_first(world: World) -> None:
    session = await world.rollout()
    await world.service.chat(chat(), CallContext(session, "1", 0))
    first = await world.recorder.finish(session.id, FinishRollout(reward=1.0))
    assert await world.recorder.finish(session.id, FinishRollout(reward=0.0)) == first


async def test_the_call_cap_is_410_so_that_no_sdk_retries(world: World) -> None:
    session = await world.rollout(max_turns=1)
    await world.service.chat(chat(), CallContext(session, "1", 0))
    with pytest.raises(ServiceError, check=has_reason("turn_limit_reached")) as caught:
        await world.service.chat(chat(), CallContext(session, "2", 0))
    assert caught.value.status == 410


async def test_an_open_rollout_survives_a_restart_of_the_server(tiny_tokenizer: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        before = World(tiny_tokenizer, store)
        ticket = await before.recorder.open(CreateRollout(model="base", scenario_id="s"))
        session = await before.recorder.session(ticket.id, ticket.token)
        await before.service.chat(chat(), CallContext(session, "1", 0))
    with Store.open(tmp_path) as store:
        after = World(tiny_tokenizer, store)
        session = await after.recorder.session(ticket.id, ticket.token)
        assert [turn.index for turn in session.turns] == [0]
        await after.service.chat(chat(), CallContext(session, "1", 1))
        assert after.engine.requests == []


async def test_an_unknown_rollout_is_404_and_a_wrong_token_401(world: World) -> None:
    session = await world.rollout()
    with pytest.raises(NotFoundError):
        await world.recorder.session("ro_unknown", "t")
    with pytest.raises(ServiceError) as caught:
        await world.recorder.session(session.id, "wrong")
    assert caught.value.status == 401
    assert await world.recorder.session_by_token("wrong") is None


async def test_an_engine_failure_stores_nothing_and_the_rollout_goes_on(world: World) -> None:
    session = await world.rollout()
    world.engine.fail_with = EngineError("out of memory")
    with pytest.raises(EngineError):
        await world.service.chat(chat(), CallContext(session, "1", 0))
    world.engine.fail_with = None
    assert (await world.service.chat(chat(), CallContext(session, "1", 1))).turns[0].index == 0


async def test_n_replies_are_n_turns_with_their_own_seeds(world: World) -> None:
    session = await world.rollout()
    reply = await world.service.chat(chat(n=3, seed=7), CallContext(session, "1", 0))
    assert [turn.index for turn in reply.turns] == [0, 1, 2]
    assert [request.parameters.seed for request in world.engine.requests] == [7, 8, 9]
    assert (await world.service.chat(chat(n=3, seed=7), CallContext(session, "1", 2))).turns == reply.turns


@pytest.mark.parametrize("seed", [-1, -2, -128, 2**64 - 2, 10**30])
async def test_no_two_of_n_replies_share_a_draw_whatever_the_seed(world: World, seed: int) -> None:
    await world.service.chat(chat(n=4, seed=seed))
    draws = [random.Random(request.parameters.seed).random() for request in world.engine.requests]
    assert len(set(draws)) == 4


async def test_max_tokens_is_clamped_to_what_fits_and_a_full_context_is_refused(world: World) -> None:
    await world.service.chat(chat(max_tokens=4096))
    sent = world.engine.requests[-1]
    assert sent.parameters.max_tokens == 512 - len(sent.prompt_ids)
    with pytest.raises(ContextLengthError, match="512"):
        await world.service.chat(chat({"role": "user", "content": "x" * 600}))


async def test_text_is_cut_at_a_stop_string_but_the_tokens_are_kept(world: World) -> None:
    world.replies = ["one END two"]
    turn = (await world.service.chat(chat(stop="END"))).turns[0]
    assert turn.reply.content == "one "
    assert world.renderer.decode(turn.sampled_ids) == "one END"
    assert turn.finish_reason == "stop"


async def test_a_required_call_and_a_response_format_become_grammars(world: World) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    shaped = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    await world.service.chat(chat(tools=TOOLS, tool_choice="required"))
    await world.service.chat(chat(response_format=shaped))
    await world.service.chat(chat(tools=TOOLS, response_format=shaped))
    await world.service.chat(chat(tools=TOOLS))
    required, shaped_only, either, free = (request.grammar for request in world.engine.requests)
    assert isinstance(required, LarkGrammar)
    assert isinstance(shaped_only, JsonSchemaGrammar)
    assert json.loads(shaped_only.schema) == schema
    assert isinstance(either, LarkGrammar)
    assert "call | answer" in either.grammar
    assert free is None


async def test_a_raw_text_is_continued(world: World) -> None:
    world.replies = [' Tokyo"', ' Oslo"']
    reply = await world.service.complete(
        CompletionRequest.model_validate({"model": "base", "prompt": 'city: "', "n": 2, "stop": ['"'], "max_tokens": 9})
    )
    assert [completion.text for completion in reply.completions] == [" Tokyo", " Oslo"]


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0.5},
        {"top_logprobs": 3},
        {"logit_bias": {"1": 2}},
        {"tool_choice": "required"},
        {"n": 0},
        {"parallel_tool_calls": False, "tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        chat(**fields)


@pytest.mark.parametrize("choice", ["required", "none", {"type": "function", "function": {"name": "f"}}])
def test_one_call_at_most_is_promised_where_the_grammar_holds_the_reply_to_it(choice: object) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    grammar = grammar_of(chat(parallel_tool_calls=False, tools=tools, tool_choice=choice))
    assert grammar is None if choice == "none" else str(grammar).count("start: call") == 1
    assert grammar_of(chat(parallel_tool_calls=False)) is None


def test_null_is_absent_and_fields_that_change_nothing_are_ignored() -> None:
    request = chat(response_format=None, temperature=None, stop=None, tools=None, tool_choice=None, strict=True, store=False, n=None)
    assert (request.temperature, request.stop, request.tools, request.tool_choice) == (1.0, (), (), "auto")


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
