"""`/api/models` and `/api/jobs`: trainable models, training jobs, waiting for them."""

from __future__ import annotations

import asyncio
import math

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from journeyman.server.auth import Gate
from journeyman.server.body import read_body, record
from journeyman.server.calls import answer
from journeyman.server.errors import BadRequestError
from journeyman.service.backend import Backend
from journeyman.types.training import CreateModel, TrainJob

_JOB: TypeAdapter[TrainJob] = TypeAdapter(TrainJob)
_LONGEST_WAIT_SECONDS = 60.0


class TrainingRoutes:
    """The routes over one backend."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api")
        router.add_api_route("/models", self.create, methods=["POST"])
        router.add_api_route("/models/{name}", self.get, methods=["GET"])
        router.add_api_route("/models/{name}/train", self.train, methods=["POST"])
        router.add_api_route("/jobs/{job_id}", self.job, methods=["GET"])
        return router

    async def create(self, request: Request) -> Response:
        self._gate.check(request)
        body, _ = await read_body(request, CreateModel)
        return record(await self._backend.create_model(body), 201)

    async def get(self, request: Request, name: str) -> Response:
        self._gate.check(request)
        return record(self._backend.model_info(name))

    async def train(self, request: Request, name: str) -> Response:
        self._gate.check(request)
        job, _ = await read_body(request, _JOB)
        key, loop = request.headers.get("idempotency-key"), asyncio.get_running_loop()
        return record(await asyncio.to_thread(self._backend.train, name, job, key, loop), 202)

    async def job(self, request: Request, job_id: str, wait_seconds: str = "0") -> Response:
        """The job's status when it ends or after `wait_seconds` (at most a minute), whichever is first."""
        self._gate.check(request)
        seconds = _seconds(wait_seconds)
        if seconds:
            # Given up when the client is gone: a server that stops would wait for it.
            return await answer(request, self._backend.jobs.wait(job_id, seconds), record)
        return record(await asyncio.to_thread(self._backend.jobs.get, job_id))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise BadRequestError(f"wait_seconds must be a number of seconds, got {text!r}", "wait_seconds") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise BadRequestError(f"wait_seconds must be zero or more, got {text!r}", "wait_seconds")
    return min(seconds, _LONGEST_WAIT_SECONDS)
