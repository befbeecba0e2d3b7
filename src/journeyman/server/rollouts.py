"""`/api/rollouts`: open a rollout, seal it, read its trajectory; find attempts that were made before under a key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from journeyman.server.auth import Gate
from journeyman.server.body import read_body, record, records
from journeyman.service.backend import Backend
from journeyman.types.training import CreateRollout, FinishRollout


class RolloutRoutes:
    """The routes over one backend."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/rollouts")
        router.add_api_route("", self.create, methods=["POST"])
        router.add_api_route("", self.kept, methods=["GET"])
        router.add_api_route("/{rollout_id}", self.get, methods=["GET"])
        router.add_api_route("/{rollout_id}/finish", self.finish, methods=["POST"])
        return router

    async def create(self, request: Request) -> Response:
        self._gate.check(request)
        body, _ = await read_body(request, CreateRollout)
        return record(await self._backend.open_rollout(body), 201)

    async def kept(self, request: Request, model: str, key: str) -> Response:
        self._gate.check(request)
        return records(await self._backend.kept_attempts(model, key))

    async def get(self, request: Request, rollout_id: str) -> Response:
        self._gate.check(request)
        return record(await self._backend.recorder.trajectory(rollout_id))

    async def finish(self, request: Request, rollout_id: str) -> Response:
        self._gate.check(request)
        body, _ = await read_body(request, FinishRollout)
        return record(await self._backend.finish_rollout(rollout_id, body))
