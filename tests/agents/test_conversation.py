"""Conversations on a real server over loopback, with a scripted engine, and on real MCP server processes."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, serve

from journeyman.agents import ServerPool
from journeyman.agents.conversation import CallAsked, CallDone, Conversation, ConversationSettings, Event, OutOfTurns, ReplyDone, TextPiece
from journeyman.chat.renderer import Renderer
from journeyman.client.backend import Connection
from journeyman.engine.fake import FakeEngine
from journeyman.errors import ContextLengthError, LlmError, LlmOutageError
from journeyman.llm import open_openai
from journeyman.local import serving
from journeyman.mcp import McpTarget, open_server
from journeyman.service.backend import Backend
from journeyman.store import Store

SERVER = Path(__file__).parents[1] / "mcp" / "servers" / "plain_server.py"
CALL = '<tool_call>\n{"name": "findCapital", "arguments": {"country_name": "Peru"}}\n</tool_call>'


class Served:
    """A scripted engine behind a real server: `script` is prompt -> reply and may be changed at any time."""

    def __init__(self, tokenizer: Any, home: Path, context_length: int = 4096) -> None:
        self.script: Callable[[str], str] = lambda prompt: "hello"
        self.engine = FakeEngine(lambda prompt: self.script(prompt), tokenizer, context_length=context_length)
        self.backend = Backend(self.engine, Renderer(tokenizer, context_length), Store.open(home), None)
        self.connection: Connection

    def conversation(self, **given: Any) -> Conversation:
        settings = given.pop("settings", ConversationSettings(max_tokens=400))
        return Conversation(self.connection.base_model().openai(), "base", settings, **given)


@pytest.fixture
async def served(tiny_tokenizer: Any, tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(tiny_tokenizer, tmp_path)
    async with serving(found.backend) as found.connection:
        yield found


@pytest.fixture
async def pool() -> AsyncIterator[ServerPool]:
    target = McpTarget(command=(sys.executable, str(SERVER), "good"))
    async with open_server(target) as server:
        tools = [tool for tool in server.tools if tool.name == "findCapital"]
    async with ServerPool(target, tools, "shared") as opened:
        yield opened


async def events_of(conversation: Conversation, text: str) -> list[Event]:
    return [event async for event in conversation.say(text)]


def said(conversation: Conversation) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in conversation.messages]


def tokenized(served: Served, text: str) -> list[int]:
    return list(served.backend.renderer.encode(text))


async def test_a_reply_comes_in_pieces_and_the_next_message_carries_what_was_said(served: Served) -> None:
    conversation = served.conversation(system="Be brief.")
    served.script = lambda prompt: "It is noon."
    events = await events_of(conversation, "What time is it?")
    pieces = [event.text for event in events if isinstance(event, TextPiece)]
    assert len(pieces) > 2
    assert "".join(pieces) == "It is noon."
    done = events[-1]
    assert isinstance(done, ReplyDone)
    assert (done.is_cut, done.num_calls) == (False, 0)
    assert done.num_tokens == len(tokenized(served, "It is noon.")) + 1
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "Yes."

    served.script = script
    await events_of(conversation, "Really?")
    assert [part in seen[0] for part in ("Be brief.", "What time is it?", "It is noon.", "Really?")] == [True] * 4
    assert said(conversation)[1:] == [
        ("user", "What time is it?"), ("assistant", "It is noon."), ("user", "Really?"), ("assistant", "Yes."),
    ]  # fmt: skip


async def test_a_call_is_run_and_its_result_leads_to_the_answer(served: Served, pool: ServerPool) -> None:
    conversation = served.conversation(pool=pool)
    served.script = lambda prompt: "Lima." if "Lima" in prompt else CALL
    events = await events_of(conversation, "What is the capital of Peru?")
    (asked,) = [event for event in events if isinstance(event, CallAsked)]
    (done,) = [event.event for event in events if isinstance(event, CallDone)]
    assert json.loads(asked.call.function.arguments) == {"country_name": "Peru"}
    assert (done.is_error, "Lima" in done.result) == (False, True)
    assert [event.num_calls for event in events if isinstance(event, ReplyDone)] == [1, 0]
    assert said(conversation)[-1] == ("assistant", "Lima.")


async def test_what_a_model_calls_wrongly_is_told_to_it_and_shown(served: Served, pool: ServerPool) -> None:
    conversation = served.conversation(pool=pool)
    served.script = lambda prompt: "I see." if "no tool" in prompt else CALL.replace("findCapital", "fly")
    events = await events_of(conversation, "Fly!")
    (done,) = [event.event for event in events if isinstance(event, CallDone)]
    assert done.is_error
    assert (done.is_known, "'fly'" in done.result) == (False, True)


async def test_a_model_that_never_stops_calling_is_stopped(served: Served, pool: ServerPool) -> None:
    conversation = served.conversation(pool=pool, settings=ConversationSettings(max_tokens=400, max_turns=2))
    served.script = lambda prompt: CALL
    events = await events_of(conversation, "Peru?")
    assert events[-1] == OutOfTurns(2)
    assert [role for role, _ in said(conversation)] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_a_saved_conversation_is_a_row_of_messages_and_tools(served: Served, pool: ServerPool) -> None:
    conversation = served.conversation(pool=pool, system="Use the tools.")
    served.script = lambda prompt: "Lima." if "Lima" in prompt else CALL
    await events_of(conversation, "What is the capital of Peru?")
    row = json.loads(json.dumps(conversation.row()))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["messages"][2]["tool_calls"][0]["id"] == row["messages"][3]["tool_call_id"]
    assert row["tools"][0]["function"]["name"] == "findCapital"


async def test_a_stopped_reply_stays_as_far_as_it_came(served: Served) -> None:
    conversation = served.conversation()
    served.script = lambda prompt: "one two three four five"
    served.engine.hold(after_tokens=3)
    heard: list[str] = []
    began = asyncio.Event()

    async def listen() -> None:
        async with aclosing(conversation.say("Count!")) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    heard.append(event.text)
                    began.set()

    task = asyncio.create_task(listen())
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    served.engine.release()
    assert task.cancelled()
    kept = "".join(heard)
    assert "one two three four five".startswith(kept)
    assert said(conversation) == [("user", "Count!"), ("assistant", kept)]


async def test_a_message_stopped_before_its_first_word_was_never_sent(served: Served) -> None:
    conversation = served.conversation()
    began = threading.Event()

    def script(prompt: str) -> str:
        began.set()
        return CALL

    served.script = script
    served.engine.hold(after_tokens=1)
    task = asyncio.create_task(events_of(conversation, "Hello?"))
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    served.engine.release()
    assert conversation.is_empty


async def test_a_full_context_says_how_to_begin_anew_and_the_message_was_never_sent(tiny_tokenizer: Any, tmp_path: Path) -> None:
    found = Served(tiny_tokenizer, tmp_path, context_length=64)
    async with serving(found.backend) as found.connection:
        conversation = found.conversation()
        await events_of(conversation, "hi")
        with pytest.raises(ContextLengthError) as caught:
            await events_of(conversation, "long " * 60)
        assert "/reset" in (caught.value.hint or "")
        assert said(conversation) == [("user", "hi"), ("assistant", "hello")]
        conversation.reset()
        assert conversation.is_empty


async def test_each_reply_has_a_seed_of_its_own_and_a_reset_begins_with_the_same_ones(served: Served) -> None:
    conversation = served.conversation(settings=ConversationSettings(seed=7, temperature=0.5))
    for text in ("a", "b"):
        await events_of(conversation, text)
    conversation.reset()
    await events_of(conversation, "a")
    assert [request.parameters.seed for request in served.engine.requests[-3:]] == [7, 8, 7]
    assert {request.parameters.temperature for request in served.engine.requests[-3:]} == {0.5}


async def test_an_unknown_model_and_an_absent_server_are_errors_of_ours(served: Served) -> None:
    import openai

    wrong = Conversation(served.connection.base_model().openai(), "nobody")
    with pytest.raises(LlmError, match="nobody"):
        await events_of(wrong, "hi")
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(LlmOutageError, match="cannot be reached"):
            await events_of(Conversation(client, "m"), "hi")


async def test_a_provider_that_takes_neither_temperature_nor_max_tokens_is_talked_to() -> None:
    def script(body: dict[str, Any]) -> Answer:
        if "temperature" in body:
            return Answer.error(400, "temperature is not supported with this model")
        if "max_tokens" in body:
            return Answer.error(400, "use max_completion_tokens instead of max_tokens")
        return Answer("From afar.")

    with serve(script) as server:
        async with open_openai(server.base_url, "none", max_retries=0) as client:
            conversation = Conversation(client, "m")
            for text in ("hi", "again"):
                await events_of(conversation, text)
    assert len(server.requests) == 4
    assert server.requests[-1]["max_completion_tokens"] == 256
    assert said(conversation)[-1] == ("assistant", "From afar.")


async def test_a_server_that_breaks_off_in_the_middle_of_a_reply_is_an_outage() -> None:
    import openai

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        choice = {"index": 0, "delta": {"content": "It"}}
        event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        chunk = f"data: {json.dumps(event)}\n\n".encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        conversation = Conversation(client, "m")
        with pytest.raises(LlmOutageError):
            await events_of(conversation, "hi")
        assert conversation.is_empty
