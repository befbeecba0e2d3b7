"""`/v1/*`, OpenAI-compatible, and its recorded twin `/r/{rollout}.{token}/v1/*`. What a request may hold: docs/server.md."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from journeyman.errors import NotFoundError, ServiceError
from journeyman.server.auth import Gate, bearer
from journeyman.server.body import read_body
from journeyman.server.calls import answer, stream
from journeyman.server.wire import chat_chunks, chat_completion, text_chunks, text_completion
from journeyman.service.backend import Backend
from journeyman.service.capture import Session, split_rollout_path
from journeyman.service.requests import ChatRequest, CompletionRequest
from journeyman.service.sampling import CallContext
from journeyman.types.names import BASE, Version

AGENT = "agent"  # the alias for a rollout's model: no slash, which some frameworks would split at
_MAX_DIGITS = 9  # of a count of retries


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
        router.add_api_route("/v1/models/{model:path}", self.model, methods=["GET"])
        router.add_api_route("/v1/completions", self.completions, methods=["POST"])
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
        self._gate.check(request)
        body, _ = await read_body(request, CompletionRequest)
        renderer = self._sampling.renderer
        if body.stream:
            return await stream(request, text_chunks(self._sampling.stream_completion(body), body, renderer))
        return await answer(request, self._sampling.complete(body), lambda reply: JSONResponse(text_completion(reply, body, renderer)))

    async def models(self, request: Request) -> Response:
        session = await self._session(request)
        names = [AGENT] if session is not None else self._names()
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request, model: str) -> Response:
        self._gate.check(request)
        self._backend.weights.find(model)
        return JSONResponse(_model(model))

    async def responses(self, request: Request) -> Response:
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
            return await recorder.session(*split_rollout_path(name))
        token = bearer(request)
        session = await recorder.session_by_token(token) if token else None
        if session is None:
            self._gate.check(request)
        return session


def _retry_count(request: Request) -> int | None:
    given = request.headers.get("x-stainless-retry-count")
    if given is None:
        return None
    if not given.isdecimal() or len(given) > _MAX_DIGITS:
        raise ServiceError(f"x-stainless-retry-count must be a number, got {given[:20]!r}", status=400, code="invalid_header")
    return int(given)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(time.time()), "owned_by": "journeyman"}
