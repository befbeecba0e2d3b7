"""A streamed reply that is none, or breaks off, is a named error; what has one meaning is read."""

from __future__ import annotations

import json

import pytest
from tests.llm_server import Answer, scripted, serve

from journeyman.agents.conversation import Conversation, ReplyDone
from journeyman.errors import LlmError
from journeyman.llm import open_openai

JSON = "application/json"


def sent(text: str, content_type: str = "text/event-stream") -> Answer:
    return Answer(raw=text.encode(), headers={"content-type": content_type})


STREAMS: dict[str, tuple[Answer, str]] = {
    "web page": (Answer(raw=b"<html>Sign in</html>", headers={"content-type": "text/html"}), "web_page"),
    "whole completion": (sent('{"choices": [{"message": {"content": "a"}}]}', JSON), "no_stream"),
    "null": (sent("null", JSON), "no_stream"),
    "nothing": (sent(""), "empty_answer"),
    "only the end": (sent("data: [DONE]\n\n"), "empty_answer"),
    "a page called stream": (sent("<html>"), "empty_answer"),
    "no JSON": (sent("data: {oops\n\n"), "no_json"),
    "a chunk null": (sent("data: null\n\n"), "empty_answer"),
    "a chunk of a list": (sent("data: [1]\n\n"), "empty_answer"),
    "delta null": (sent('data: {"choices": [{"delta": null}]}\n\n'), "no_message"),
    "delta missing": (sent('data: {"choices": [{}]}\n\n'), "no_message"),
    "choices an object": (sent('data: {"choices": {"a": 1}}\n\n'), "no_message"),
    "content a list": (sent('data: {"choices": [{"delta": {"content": [1]}}]}\n\n'), "unknown_part"),
    "a call without a name": (sent('data: {"choices": [{"delta": {"tool_calls": [null]}}]}\n\n'), "no_tool_call"),
    "an error as the whole chunk": (sent('data: {"object": "error", "message": "died", "code": 500}\n\n'), "outage"),
    "an error in the choice": (
        sent('data: {"choices": [{"delta": {"content": "a"}, "error": {"code": 400, "message": "no"}}]}\n\n'),
        "refused",
    ),
    "an event of an error": (sent('event: error\ndata: {"message": "Overloaded"}\n\n'), "outage"),
    "a circle": (Answer(raw=b"", status=308, headers={"location": "/v1/chat/completions"}), "redirected"),
    "half a character": (sent('data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n'), "half_surrogate"),
    "calls a text": (sent('data: {"choices": [{"delta": {"content": null, "tool_calls": "f"}}]}\n\n'), "no_text"),
    "arguments a list": (
        sent('data: {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}}]}\n\n'),
        "no_tool_call",
    ),
    "an error": (sent('data: {"error": {"message": "no", "code": 400}}\n\n'), "refused"),
    "busy": (sent('data: {"error": {"message": "no", "code": 503}}\n\n'), "outage"),
    "busy in a 200": (sent('{"error": {"message": "no", "code": 503}}', JSON), "outage"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_none_is_told_by_name(name: str) -> None:
    answer, reason = STREAMS[name]
    with serve(scripted(answer)) as server:
        async with open_openai(server.base_url, "none", max_retries=0) as client:
            conversation = Conversation(client, "m")
            with pytest.raises(LlmError) as caught:
                async for _ in conversation.say("Hi"):
                    pass
    assert caught.value.reason == reason
    assert conversation.is_empty


async def test_a_stream_of_parts_is_read() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"text": "b"}]
    events = sent("data: " + json.dumps({"choices": [{"delta": {"content": parts}}]}) + "\n\n")
    with serve(scripted(events)) as server:
        async with open_openai(server.base_url, "none") as client:
            conversation = Conversation(client, "m")
            _ = [event async for event in conversation.say("Hi")]
    assert conversation.messages[-1].content == "ab"


async def test_a_stream_with_odd_numbers_and_arguments_as_an_object_is_read() -> None:
    chunk = {"choices": [{"delta": {"content": "a"}, "finish_reason": 3}], "usage": {"prompt_tokens": "7", "completion_tokens": None}}
    with serve(scripted(sent(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"))) as server:
        async with open_openai(server.base_url, "none") as client:
            events = [event async for event in Conversation(client, "m").say("Hi")]
    done = events[-1]
    assert isinstance(done, ReplyDone)
    assert (done.num_prompt_tokens, done.num_tokens) == (None, None)
