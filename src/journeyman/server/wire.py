"""OpenAI's reply shapes: a finished answer as one JSON object or as a stream of chunks. Not for reading requests."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from journeyman.chat.renderer import Renderer
from journeyman.service.requests import ChatRequest, CompletionRequest
from journeyman.service.sampling import ChatReply, CompletionReply
from journeyman.types.trajectory import Turn

DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"


def chat_completion(reply: ChatReply, request: ChatRequest, renderer: Renderer) -> dict[str, Any]:
    """A `chat.completion` object."""
    choices = [
        {
            "index": index,
            "message": _message(turn),
            "finish_reason": _finish_reason(turn),
            "logprobs": _logprobs(turn, renderer) if request.logprobs else None,
        }
        for index, turn in enumerate(reply.turns)
    ]
    usage = _usage(reply.num_prompt_tokens, reply.num_sampled_tokens)
    return {**_head("chatcmpl", "chat.completion", reply.model), "choices": choices, "usage": usage}


def chat_chunks(reply: ChatReply, request: ChatRequest, renderer: Renderer) -> Iterator[str]:
    """The same answer as server-sent events, in the order that every client we know accepts."""
    head = _head("chatcmpl", "chat.completion.chunk", reply.model)

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        return event({**head, "choices": choices, **more})

    for index, turn in enumerate(reply.turns):
        logprobs = _logprobs(turn, renderer) if request.logprobs else None
        for delta in _deltas(turn):
            yield chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])
        yield chunk([{"index": index, "delta": {}, "logprobs": logprobs, "finish_reason": _finish_reason(turn)}])
    if request.include_usage:
        yield chunk([], usage=_usage(reply.num_prompt_tokens, reply.num_sampled_tokens))
    yield DONE


def text_completion(reply: CompletionReply, request: CompletionRequest, renderer: Renderer) -> dict[str, Any]:
    """A `text_completion` object."""
    choices = [
        {
            "index": index,
            "text": completion.text,
            "finish_reason": completion.sample.finish_reason,
            "logprobs": None
            if request.logprobs is None
            else {
                "tokens": [renderer.decode([token]) for token in completion.sample.token_ids],
                "token_logprobs": list(completion.sample.logprobs),
                "top_logprobs": None,
                "text_offset": [],
            },
        }
        for index, completion in enumerate(reply.completions)
    ]
    num_sampled = sum(len(completion.sample.token_ids) for completion in reply.completions)
    usage = _usage(len(reply.prompt_ids), num_sampled)
    return {**_head("cmpl", "text_completion", reply.model), "choices": choices, "usage": usage}


def text_chunks(reply: CompletionReply, request: CompletionRequest, renderer: Renderer) -> Iterator[str]:
    """The same answer as server-sent events."""
    whole = text_completion(reply, request, renderer)
    usage = whole.pop("usage")
    for choice in whole["choices"]:
        yield event({**whole, "choices": [choice]})
    if request.include_usage:
        yield event({**whole, "choices": [], "usage": usage})
    yield DONE


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _usage(num_prompt: int, num_sampled: int) -> dict[str, int]:
    return {"prompt_tokens": num_prompt, "completion_tokens": num_sampled, "total_tokens": num_prompt + num_sampled}


def _finish_reason(turn: Turn) -> str:
    if turn.finish_reason != "length" and turn.reply.tool_calls:
        return "tool_calls"
    return "length" if turn.finish_reason == "length" else "stop"


def _message(turn: Turn) -> dict[str, Any]:
    reply = turn.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.reasoning_content is not None:
        # Two names for one thing: clients read one or the other.
        message["reasoning_content"] = message["reasoning"] = reply.reasoning_content
    if reply.tool_calls:
        message["tool_calls"] = [call.model_dump() for call in reply.tool_calls]
    return message


def _deltas(turn: Turn) -> Iterator[dict[str, Any]]:
    reply = turn.reply
    yield {"role": "assistant", "content": ""}
    if reply.reasoning_content:
        yield {"reasoning_content": reply.reasoning_content, "reasoning": reply.reasoning_content}
    if reply.content:
        yield {"content": reply.content}
    for number, call in enumerate(reply.tool_calls):
        opened = {"name": call.function.name, "arguments": ""}
        yield {"tool_calls": [{"index": number, "id": call.id, "type": "function", "function": opened}]}
        yield {"tool_calls": [{"index": number, "function": {"arguments": call.function.arguments}}]}


def _logprobs(turn: Turn, renderer: Renderer) -> dict[str, Any]:
    content = []
    for token, logprob in zip(turn.sampled_ids, turn.sampled_logprobs, strict=True):
        text = renderer.decode([token])
        content.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []})
    return {"content": content, "refusal": None}
