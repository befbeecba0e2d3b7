"""`/api/*`: runs and their steps, trainable models, training jobs, rollouts. All of it behind the API key."""

from __future__ import annotations

import asyncio
import math

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from journeyman.server.auth import Gate
from journeyman.server.calls import answer, read_body, record, records
from journeyman.server.errors import BadRequestError
from journeyman.service.backend import Backend
from journeyman.types.runs import CreateRun
from journeyman.types.training import CreateModel, CreateRollout, FinishRollout, TrainJob

_JOB: TypeAdapter[TrainJob] = TypeAdapter(TrainJob)
_LONGEST_WAIT_SECONDS = 60.0


class ApiRoutes:
    """The routes over one backend. Store work is done in threads."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api", dependencies=[Depends(self._gate.check)])
        for method, path, handler in (
            ("POST", "/runs", self.create_run),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{run}", self.run),
            ("GET", "/runs/{run}/steps", self.steps),
            ("POST", "/models", self.create_model),
            ("GET", "/models/{name}", self.model),
            ("POST", "/models/{name}/train", self.train),
            ("GET", "/jobs/{job_id}", self.job),
            ("POST", "/rollouts", self.open_rollout),
            ("GET", "/rollouts", self.kept_attempts),
            ("GET", "/rollouts/{rollout_id}", self.trajectory),
            ("POST", "/rollouts/{rollout_id}/finish", self.finish_rollout),
        ):
            router.add_api_route(path, handler, methods=[method])
        return router

    # Runs ---------------------------------------------------------------------------------------------------------

    async def create_run(self, request: Request) -> Response:
        body, _ = await read_body(request, CreateRun)
        return record(await asyncio.to_thread(self._backend.create_run, body), 201)

    async def runs(self) -> Response:
        return records(await asyncio.to_thread(self._backend.store.runs.list))

    async def run(self, run: str) -> Response:
        return record(await asyncio.to_thread(self._backend.store.runs.get, run))

    async def steps(self, run: str) -> Response:
        return records(await asyncio.to_thread(self._backend.store.runs.steps, run))

    # Models and jobs ----------------------------------------------------------------------------------------------

    async def create_model(self, request: Request) -> Response:
        body, _ = await read_body(request, CreateModel)
        return record(await self._backend.create_model(body), 201)

    async def model(self, name: str) -> Response:
        return record(self._backend.model_info(name))

    async def train(self, request: Request, name: str) -> Response:
        job, _ = await read_body(request, _JOB)
        key, loop = request.headers.get("idempotency-key"), asyncio.get_running_loop()
        return record(await asyncio.to_thread(self._backend.train, name, job, key, loop), 202)

    async def job(self, request: Request, job_id: str, wait_seconds: str = "0") -> Response:
        """The job's status when it ends or after `wait_seconds` (at most a minute), whichever is first."""
        seconds = _seconds(wait_seconds)
        if seconds:
            # Given up when the client is gone: a server that stops would wait for it.
            return await answer(request, self._backend.jobs.wait(job_id, seconds), record)
        return record(await asyncio.to_thread(self._backend.jobs.get, job_id))

    # Rollouts -----------------------------------------------------------------------------------------------------

    async def open_rollout(self, request: Request) -> Response:
        body, _ = await read_body(request, CreateRollout)
        return record(await self._backend.open_rollout(body), 201)

    async def kept_attempts(self, model: str, key: str) -> Response:
        """Attempts that were made before under a key."""
        return records(await self._backend.kept_attempts(model, key))

    async def trajectory(self, rollout_id: str) -> Response:
        return record(await self._backend.recorder.trajectory(rollout_id))

    async def finish_rollout(self, request: Request, rollout_id: str) -> Response:
        body, _ = await read_body(request, FinishRollout)
        return record(await self._backend.finish_rollout(rollout_id, body))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise BadRequestError(f"wait_seconds must be a number of seconds, got {text!r}", "wait_seconds") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise BadRequestError(f"wait_seconds must be zero or more, got {text!r}", "wait_seconds")
    return min(seconds, _LONGEST_WAIT_SECONDS)
