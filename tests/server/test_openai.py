"""The OpenAI routes, through the real openai client over a real port."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from journeyman.errors import EngineError

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}, "strict": True}}
]
USER: list[Any] = [{"role": "user", "content": "What time is it?"}]
CALL = '<tool_call>{"name": "get_time", "arguments": {"zone": "Asia/Tokyo"}}</tool_call>'


def client(running: Any, base_url: str | None = None, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url or running.v1, api_key=key)


async def test_a_chat_completion_has_everything_a_client_reads(running: Any) -> None:
    running.replies.append("It is noon.")
    async with client(running) as api:
        reply = await api.chat.completions.create(model="base", messages=USER, logprobs=True)
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == ("It is noon.", "stop", None)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == "It is noon.<|im_end|>"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(choice.logprobs.content)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


async def test_tool_calls_n_and_length_come_back_in_openais_shape(running: Any) -> None:
    running.replies += [CALL, "a longer text"]
    async with client(running) as api:
        called = await api.chat.completions.create(model="base", messages=USER, tools=TOOLS)
        cut = await api.chat.completions.create(model="base", messages=USER, max_tokens=2)
        several = await api.chat.completions.create(model="base", messages=USER, n=3)
    assert called.choices[0].finish_reason == "tool_calls"
    assert called.choices[0].message.content is None
    assert called.choices[0].message.tool_calls is not None
    call: Any = called.choices[0].message.tool_calls[0]
    assert (call.type, call.function.name, call.function.arguments) == ("function", "get_time", '{"zone": "Asia/Tokyo"}')
    assert cut.choices[0].finish_reason == "length"
    assert [choice.index for choice in several.choices] == [0, 1, 2]


async def test_a_stream_has_the_order_that_clients_accept(running: Any) -> None:
    running.replies.append("<think>hm</think>I look. " + CALL)
    body = {"model": "base", "messages": USER, "tools": TOOLS, "stream": True, "stream_options": {"include_usage": True}}
    events = await asyncio.to_thread(_post_stream, f"{running.v1}/chat/completions", body)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    kinds = [kind for kind, _ in itertools.groupby(next(iter(delta), "end") for delta in deltas)]
    assert kinds == ["role", "reasoning_content", "content", "tool_calls", "end"]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "hm"
    assert "".join(delta.get("content", "") for delta in deltas) == "I look."
    assert deltas[-3]["tool_calls"][0]["function"] == {"name": "get_time", "arguments": ""}
    assert deltas[-2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"zone": "Asia/Tokyo"}'}}]}
    assert deltas[-1] == {}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"] > 0) == ([], True)
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_the_openai_client_reads_our_streams(running: Any) -> None:
    running.replies += ["It is noon.", CALL]
    async with client(running) as api:
        stream = await api.chat.completions.create(model="base", messages=USER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        async with api.chat.completions.stream(model="base", messages=USER, tools=TOOLS) as helper:
            final = await helper.get_final_completion()
    assert text == "It is noon."
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"zone": "Asia/Tokyo"}'


async def test_text_arrives_while_it_is_being_drawn_and_a_hang_up_ends_the_drawing(running: Any) -> None:
    asked = {"chat/completions": {"messages": USER}, "completions": {"prompt": "x"}}
    for number, (path, prompt) in enumerate(asked.items(), start=1):
        running.replies.append("one two three four five six")
        running.engine.hold(after_tokens=12)
        body = {"model": "base", **prompt, "stream": True}
        begun = await asyncio.to_thread(_read_begin_and_hang_up, f"{running.v1}/{path}", body)
        assert "one two three four".startswith(begun), begun
        await asyncio.wait_for(asyncio.to_thread(_poll, lambda count=number: running.engine.num_cancelled == count), 20)
    assert running.engine.num_finished == 0


async def test_streamed_replies_come_side_by_side_and_their_tokens_have_logprobs(running: Any) -> None:
    running.replies += ["one two", "three"]
    texts, tokens, reasons = ["", ""], ["", ""], ["", ""]
    async with client(running) as api:
        stream = await api.chat.completions.create(model="base", messages=USER, n=2, logprobs=True, stream=True)
        async for chunk in stream:
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason or ""
            if choice.logprobs is not None and choice.logprobs.content is not None:
                tokens[choice.index] += "".join(token.token for token in choice.logprobs.content)
    assert texts == ["one two", "three"]
    assert tokens == ["one two<|im_end|>", "three<|im_end|>"]
    assert reasons == ["stop", "stop"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_bytes_of_tokens_join_to_the_text_though_characters_are_split(running: Any, is_stream: bool) -> None:
    said = "naïve 你好 🙂"
    running.replies += [said, said]
    body: Any = {"model": "base", "messages": USER, "logprobs": True, "stream": is_stream}
    async with client(running) as api:
        answer: Any = await api.chat.completions.create(**body)
        whole = [chunk async for chunk in answer] if is_stream else [answer]
        text = await api.completions.create(model="base", prompt="x", logprobs=0, max_tokens=64)
    told = [token for part in whole for choice in part.choices if choice.logprobs for token in choice.logprobs.content]
    assert bytes(number for token in told for number in token.bytes).decode() == said + "<|im_end|>"
    assert any(len(token.bytes) == 1 and token.bytes[0] >= 0x80 for token in told)
    assert text.choices[0].logprobs is not None
    assert "bytes:\\xe4" in (text.choices[0].logprobs.tokens or [])


async def test_a_streamed_reply_of_a_rollout_leaves_whole_after_its_turn_is_stored(running: Any) -> None:
    running.replies.append("one two three")
    async with client(running) as api:
        ticket: Any = await api.post(f"{running.url}/api/rollouts", cast_to=object, body={"model": "base", "scenario_id": "s"})
        async with client(running, f"{running.url}/r/{ticket['id']}.{ticket['token']}/v1") as recorded:
            stream = await recorded.chat.completions.create(model="agent", messages=USER, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    assert chunk.choices[0].delta.content == "one two three"
                stored = running.backend.store.rollouts.trajectory(ticket["id"])
                assert [turn.reply.content for turn in stored.turns] == ["one two three"]


async def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(running: Any) -> None:
    running.engine.fail_with = EngineError("out of memory")
    running.engine.hold()
    body = {"model": "base", "messages": USER, "stream": True}
    reading = asyncio.create_task(asyncio.to_thread(_post_stream, f"{running.v1}/chat/completions", body, running.engine.release))
    assert json.loads((await reading)[-1])["error"]["message"] == "out of memory"


async def test_raw_texts_are_continued(running: Any) -> None:
    running.replies += [' Tokyo"', ' Oslo"']
    async with client(running) as api:
        reply = await api.completions.create(model="base", prompt='city: "', n=2, stop='"', max_tokens=20, logprobs=0)
        streamed = await api.completions.create(model="base", prompt="x", stream=True)
        text = "".join([chunk.choices[0].text async for chunk in streamed])
    assert [choice.text for choice in reply.choices] == [" Tokyo", " Oslo"]
    assert text == "ok"


async def test_models_are_listed_and_found(running: Any) -> None:
    async with client(running) as api:
        names = [model.id async for model in api.models.list()]
        assert (await api.models.retrieve("base")).id == "base"
        with pytest.raises(openai.NotFoundError):
            await api.models.retrieve("nobody/nothing")
    assert names == ["base", "fake-model"]


async def test_a_prompt_that_does_not_fit_is_context_length_exceeded(running: Any) -> None:
    async with client(running) as api:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                await api.chat.completions.create(model="base", messages=[{"role": "user", "content": "x" * 600}], stream=stream)
            assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "nobody"}, "nobody"),
        ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x'"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
    ],
)
async def test_unusable_requests_are_refused_by_name(running: Any, fields: dict[str, Any], message: str) -> None:
    async with client(running) as api:
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
            await api.post("/chat/completions", cast_to=object, body={"model": "base", "messages": USER, **fields})
    assert message in str(caught.value)
    assert running.engine.requests == []


@pytest.mark.parametrize(
    ("message", "param", "reason"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}, "messages[1].content[1]", "unsupported_part"),
        ({"role": "system", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[1].content[0]", "unsupported_part"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}, "messages[1].content[0]", "unsupported_part"),
        ({"role": "developer", "content": [{"type": "hologram"}]}, "messages[1].content[0]", "unsupported_part"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[1].audio", "unsupported_field"),
        ({"role": "narrator", "content": "x"}, "messages[1].role", "unknown_role"),
        ({"role": "user", "content": 3}, "messages[1].content", "invalid_value"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, "messages[1].function_call", "unsupported_field"),
    ],
)
async def test_messages_that_hold_no_text_are_refused_with_their_place(
    running: Any, message: dict[str, Any], param: str, reason: str
) -> None:
    async with client(running) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(model="base", messages=[*USER, message])
    assert isinstance(caught.value.body, dict)
    assert (caught.value.body["param"], caught.value.body["reason"]) == (param, reason)
    assert running.engine.requests == []


async def test_a_tools_image_reaches_the_model_as_a_mark(running: Any) -> None:
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    async with client(running) as api:
        await api.chat.completions.create(model="base", messages=[*USER, result])
    (asked,) = running.engine.requests
    assert "[image left out: image/png, 3 bytes]" in running.backend.sampling.renderer.decode(asked.prompt_ids)


async def test_null_and_fields_that_change_nothing_are_fine(running: Any) -> None:
    extra = {"response_format": None, "max_tokens": 4096, "tools": None, "store": True, "service_tier": "auto", "stop": None}
    async with client(running) as api:
        reply = await api.chat.completions.create(model="base", messages=USER, extra_body=extra)
    assert reply.choices[0].message.content == "ok"


async def test_a_body_that_is_no_json_and_an_unknown_path_answer_in_openais_shape(running: Any) -> None:
    for path, data, status in (("v1/chat/completions", b"{", 400), ("v1/nothing", b"{}", 404)):
        got_status, body = await asyncio.to_thread(_post, f"{running.url}/{path}", data)
        assert got_status == status
        assert set(body["error"]) - {"reason"} == {"message", "type", "param", "code"}


async def test_responses_says_what_to_use_instead(running: Any) -> None:
    async with client(running) as api:
        with pytest.raises(openai.NotFoundError, match="chat completions"):
            await api.responses.create(model="base", input="hi")


async def test_an_engine_failure_is_a_500_that_sdks_may_retry(running: Any) -> None:
    running.engine.fail_with = RuntimeError("secret internals")
    async with client(running).with_options(max_retries=0) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await api.chat.completions.create(model="base", messages=USER)
    assert "secret" not in str(caught.value)


async def test_a_client_that_hangs_up_frees_its_place_in_the_engine(running: Any) -> None:
    running.engine.hold()
    for stream in (False, True):
        async with client(running).with_options(max_retries=0, timeout=0.3) as api:
            with pytest.raises(openai.APITimeoutError):
                await api.chat.completions.create(model="base", messages=USER, stream=stream)
    await asyncio.wait_for(asyncio.to_thread(_poll, lambda: running.engine.num_cancelled == 2), 20)


def _post(url: str, data: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _post_stream(url: str, body: dict[str, Any], on_open: Callable[[], None] = lambda: None) -> list[str]:
    request = urllib.request.Request(url, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as reply:
        on_open()
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.read().decode().split("\n\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def _read_begin_and_hang_up(url: str, body: dict[str, Any]) -> str:
    """The text so far once it has 8 characters."""
    request = urllib.request.Request(url, data=json.dumps(body).encode())
    text = ""
    with urllib.request.urlopen(request, timeout=20) as reply:
        while len(text) < 8:
            line = reply.readline().decode()
            if line.startswith("data: "):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return text


def _poll(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "9" * 5000])
async def test_a_count_of_retries_that_is_none_is_refused(running: Any, count: str) -> None:
    async with client(running) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(model="base", messages=USER, extra_headers={"x-stainless-retry-count": count})
    assert caught.value.code == "invalid_header"
