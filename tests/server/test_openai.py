"""The OpenAI routes, through the real openai client over a real port."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

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
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1] == {"reasoning_content": "hm", "reasoning": "hm"}
    assert deltas[2] == {"content": "I look."}
    assert deltas[3]["tool_calls"][0]["function"] == {"name": "get_time", "arguments": ""}
    assert deltas[4] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"zone": "Asia/Tokyo"}'}}]}
    assert deltas[5] == {}
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


async def test_null_and_unknown_fields_are_fine(running: Any) -> None:
    extra = {"response_format": None, "max_tokens": 4096, "tools": None, "store": True, "service_tier": "auto", "stop": None}
    async with client(running) as api:
        reply = await api.chat.completions.create(model="base", messages=USER, extra_body=extra)
    assert reply.choices[0].message.content == "ok"


async def test_a_body_that_is_no_json_and_an_unknown_path_answer_in_openais_shape(running: Any) -> None:
    for path, data, status in (("v1/chat/completions", b"{", 400), ("v1/nothing", b"{}", 404)):
        got_status, body = await asyncio.to_thread(_post, f"{running.url}/{path}", data)
        assert got_status == status
        assert set(body["error"]) == {"message", "type", "param", "code"}


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


def _post_stream(url: str, body: dict[str, Any]) -> list[str]:
    request = urllib.request.Request(url, data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.read().decode().split("\n\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def _poll(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
