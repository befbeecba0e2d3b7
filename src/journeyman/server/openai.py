"""`/v1/*`, OpenAI-compatible, and its recorded twin `/r/{rollout}.{token}/v1/*`: the routes, and an answer in OpenAI's shapes, as one JSON
object or as a stream of chunks. What a request may hold: `service/requests.py`, docs/server.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from journeyman.chat.renderer import Renderer
from journeyman.errors import NotFoundError, ServiceError
from journeyman.server.auth import Gate, bearer
from journeyman.server.calls import answer, event, read_body, stream
from journeyman.service.backend import Backend
from journeyman.service.requests import ChatRequest, CompletionRequest
from journeyman.service.sampling import CallContext, ChatReply, CompletionReply
from journeyman.service.sessions import Session
from journeyman.service.streaming import ReplyDelta
from journeyman.types.names import BASE, Version
from journeyman.types.sampling import FinishReason
from journeyman.types.trajectory import Turn

AGENT = "agent"  # the alias for a rollout's model: no slash, which some frameworks would split at
_MAX_DIGITS = 9  # of a count of retries
_DONE = "data: [DONE]\n\n"


class OpenAiRoutes:
    """The routes over one backend."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._sampling = backend.sampling
        self._gate = gate

    def router(self) -> APIRouter:
        router = APIRouter()
        for prefix in ("/v1", "/r/{name}/v1"):
            router.add_api_route(f"{prefix}/chat/completions", self.chat, methods=["POST"])
            router.add_api_route(f"{prefix}/models", self.models, methods=["GET"])
            router.add_api_route(f"{prefix}/responses", self.responses, methods=["POST"])
        guarded = [Depends(self._gate.check)]
        router.add_api_route("/v1/models/{model:path}", self.model, methods=["GET"], dependencies=guarded)
        router.add_api_route("/v1/completions", self.completions, methods=["POST"], dependencies=guarded)
        return router

    async def chat(self, request: Request) -> Response:
        session = await self._session(request)
        body, body_hash = await read_body(request, ChatRequest)
        context = CallContext(session, body_hash, _retry_count(request), request.headers.get("idempotency-key"))
        renderer = self._sampling.renderer
        if body.stream:
            model = body.model or (session.model if session is not None else "")
            return await stream(request, chat_chunks(self._sampling.stream_chat(body, context), body, model, renderer))
        return await answer(request, self._sampling.chat(body, context), lambda reply: JSONResponse(chat_completion(reply, body, renderer)))

    async def completions(self, request: Request) -> Response:
        body, _ = await read_body(request, CompletionRequest)
        renderer = self._sampling.renderer
        if body.stream:
            return await stream(request, text_chunks(self._sampling.stream_completion(body), body, renderer))
        return await answer(request, self._sampling.complete(body), lambda reply: JSONResponse(text_completion(reply, body, renderer)))

    async def models(self, request: Request) -> Response:
        session = await self._session(request)
        names = [AGENT] if session is not None else self._names()
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, model: str) -> Response:
        self._backend.weights.find(model)
        return JSONResponse(_model(model))

    async def responses(self) -> Response:
        raise NotFoundError(
            "this server has no /v1/responses",
            hint="use chat completions: OpenAIChatCompletionsModel (Agents SDK), OpenAIChatModel (pydantic-ai), "
            "use_responses_api=False (LangChain)",
        )

    def _names(self) -> list[str]:
        trained = self._backend.weights.models
        versions = [str(Version(name, step)) for name in trained for step in sorted(trained[name])]
        return list(dict.fromkeys([BASE, self._backend.base, *trained, *versions]))

    async def _session(self, request: Request) -> Session | None:
        """The rollout a call belongs to: named by the URL, or by the token sent as API key; None outside rollouts."""
        recorder = self._backend.recorder
        name = request.path_params.get("name")
        if name is not None:
            return await recorder.session(*_split_rollout_path(name))
        token = bearer(request)
        session = await recorder.session_by_token(token) if token else None
        if session is None:
            await self._gate.check(request)
        return session


def _split_rollout_path(name: str) -> tuple[str, str]:
    """(rollout id, token) of the `{id}.{token}` part of a recorded URL. Raises NotFoundError when it is none."""
    rollout_id, dot, token = name.partition(".")
    if not dot or not rollout_id or not token:
        raise NotFoundError("this URL names no rollout", hint="use the base URL of the rollout as it was given: /r/<rollout>.<token>/v1")
    return rollout_id, token


def _retry_count(request: Request) -> int | None:
    text = request.headers.get("x-stainless-retry-count")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise ServiceError(f"x-stainless-retry-count must be a number, got {text[:20]!r}", status=400, code="invalid_header")
    return int(text)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(time.time()), "owned_by": "journeyman"}


# OpenAI's shapes ------------------------------------------------------------------------------------------------------


def chat_completion(reply: ChatReply, request: ChatRequest, renderer: Renderer) -> dict[str, Any]:
    """A `chat.completion` object."""
    choices = [
        {
            "index": index,
            "message": _message(turn),
            "finish_reason": _finish_reason(turn.finish_reason, bool(turn.reply.tool_calls)),
            "logprobs": _logprobs(_Drawn(turn.sampled_ids, turn.sampled_logprobs), renderer) if request.logprobs else None,
        }
        for index, turn in enumerate(reply.turns)
    ]
    usage = _usage(reply.num_prompt_tokens, reply.num_sampled_tokens)
    return {**_head("chatcmpl", "chat.completion", reply.model), "choices": choices, "usage": usage}


async def chat_chunks(deltas: AsyncGenerator[ReplyDelta], request: ChatRequest, model: str, renderer: Renderer) -> AsyncGenerator[str]:
    """The same answer as server-sent events, in the order that every client we know accepts. Closing it closes `deltas`."""
    head = _head("chatcmpl", "chat.completion.chunk", model)
    opened: set[int] = set()
    unsent = _Unsent()
    async with aclosing(deltas):
        async for delta in deltas:
            unsent.add(delta)
            pieces: list[tuple[dict[str, Any], str | None]] = [(piece, None) for piece in _pieces(delta)]
            if delta.index not in opened:
                # Also when the text is held back: the client sees that its answer has begun.
                opened.add(delta.index)
                pieces.insert(0, ({"role": "assistant", "content": ""}, None))
            if delta.finish_reason is not None:
                pieces.append(({}, _finish_reason(delta.finish_reason, bool(delta.tool_calls))))
            for number, (piece, reason) in enumerate(pieces, start=1):
                # Tokens go with the last chunk they belong to; the one that only opens the answer has no text.
                is_last = number == len(pieces) and piece.get("content") != ""
                logprobs = _logprobs(unsent.take(delta.index), renderer) if request.logprobs and is_last else None
                choice = {"index": delta.index, "delta": piece, "logprobs": logprobs, "finish_reason": reason}
                yield event({**head, "choices": [choice]})
    if request.include_usage:
        yield event({**head, "choices": [], "usage": unsent.usage()})
    yield _DONE


def text_completion(reply: CompletionReply, request: CompletionRequest, renderer: Renderer) -> dict[str, Any]:
    """A `text_completion` object."""
    choices = [
        _text_choice(
            index,
            completion.text,
            completion.sample.finish_reason,
            _text_logprobs(_Drawn(completion.sample.token_ids, completion.sample.logprobs), request, renderer),
        )
        for index, completion in enumerate(reply.completions)
    ]
    num_sampled = sum(len(completion.sample.token_ids) for completion in reply.completions)
    usage = _usage(len(reply.prompt_ids), num_sampled)
    return {**_head("cmpl", "text_completion", reply.model), "choices": choices, "usage": usage}


async def text_chunks(deltas: AsyncGenerator[ReplyDelta], request: CompletionRequest, renderer: Renderer) -> AsyncGenerator[str]:
    """The same answer as server-sent events. Closing it closes `deltas`."""
    head = _head("cmpl", "text_completion", request.model)
    unsent = _Unsent()
    async with aclosing(deltas):
        async for delta in deltas:
            unsent.add(delta)
            if delta.content or delta.finish_reason is not None:
                logprobs = _text_logprobs(unsent.take(delta.index), request, renderer)
                yield event({**head, "choices": [_text_choice(delta.index, delta.content, delta.finish_reason, logprobs)]})
    if request.include_usage:
        yield event({**head, "choices": [], "usage": unsent.usage()})
    yield _DONE


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Tokens of a reply that follow each other; `is_start`: they are its first."""

    ids: Sequence[int]
    logprobs: Sequence[float]
    is_start: bool = True


class _Unsent:
    """Tokens whose log-probabilities wait for a chunk of their reply, and how many there were in all."""

    def __init__(self) -> None:
        self._tokens: dict[int, tuple[list[int], list[float]]] = {}
        self._started: set[int] = set()
        self._num_prompt = 0
        self._num_sampled = 0

    def add(self, delta: ReplyDelta) -> None:
        ids, logprobs = self._tokens.setdefault(delta.index, ([], []))
        ids.extend(delta.token_ids)
        logprobs.extend(delta.logprobs)
        self._num_prompt = delta.num_prompt_tokens
        self._num_sampled += len(delta.token_ids)

    def take(self, index: int) -> _Drawn:
        ids, logprobs = self._tokens.pop(index, ([], []))
        drawn = _Drawn(ids, logprobs, is_start=index not in self._started)
        if ids:
            self._started.add(index)
        return drawn

    def usage(self) -> dict[str, int]:
        return _usage(self._num_prompt, self._num_sampled)


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _usage(num_prompt: int, num_sampled: int) -> dict[str, int]:
    return {"prompt_tokens": num_prompt, "completion_tokens": num_sampled, "total_tokens": num_prompt + num_sampled}


def _finish_reason(reason: FinishReason, has_calls: bool) -> str:
    if reason != "length" and has_calls:
        return "tool_calls"
    return "length" if reason == "length" else "stop"


def _message(turn: Turn) -> dict[str, Any]:
    reply = turn.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.reasoning_content is not None:
        # Two names for one thing: clients read one or the other.
        message["reasoning_content"] = message["reasoning"] = reply.reasoning_content
    if reply.tool_calls:
        message["tool_calls"] = [call.model_dump() for call in reply.tool_calls]
    return message


def _pieces(delta: ReplyDelta) -> Iterator[dict[str, Any]]:
    if delta.reasoning:
        yield {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
    if delta.content:
        yield {"content": delta.content}
    for number, call in enumerate(delta.tool_calls):
        opened = {"name": call.function.name, "arguments": ""}
        yield {"tool_calls": [{"index": number, "id": call.id, "type": "function", "function": opened}]}
        yield {"tool_calls": [{"index": number, "function": {"arguments": call.function.arguments}}]}


def _logprobs(drawn: _Drawn, renderer: Renderer) -> dict[str, Any]:
    content = [
        {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw), "top_logprobs": []}
        for raw, logprob in zip(renderer.token_bytes.of(drawn.ids, is_start=drawn.is_start), drawn.logprobs, strict=True)
    ]
    return {"content": content, "refusal": None}


def _text_choice(index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": reason, "logprobs": logprobs}


def _text_logprobs(drawn: _Drawn, request: CompletionRequest, renderer: Renderer) -> dict[str, Any] | None:
    if request.logprobs is None:
        return None
    tokens = [_spelt(raw) for raw in renderer.token_bytes.of(drawn.ids, is_start=drawn.is_start)]
    return {"tokens": tokens, "token_logprobs": list(drawn.logprobs), "top_logprobs": None, "text_offset": []}


def _spelt(raw: bytes) -> str:
    """A token as OpenAI's older API writes it: a part of a character by its bytes, `bytes:\\xe4`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{number:02x}" for number in raw)
