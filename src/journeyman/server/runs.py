"""`/api/runs`: create, list and read runs and their step metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from journeyman.server.auth import Gate
from journeyman.server.body import read_body, record, records
from journeyman.service.backend import Backend
from journeyman.types.runs import CreateRun


class RunRoutes:
    """The routes over one backend."""

    def __init__(self, backend: Backend, gate: Gate) -> None:
        self._backend = backend
        self._gate = gate

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/runs")
        router.add_api_route("", self.create, methods=["POST"])
        router.add_api_route("", self.list, methods=["GET"])
        router.add_api_route("/{run}", self.get, methods=["GET"])
        router.add_api_route("/{run}/steps", self.steps, methods=["GET"])
        return router

    async def create(self, request: Request) -> Response:
        self._gate.check(request)
        body, _ = await read_body(request, CreateRun)
        return record(await asyncio.to_thread(self._backend.create_run, body), 201)

    async def list(self, request: Request) -> Response:
        self._gate.check(request)
        return records(await asyncio.to_thread(self._backend.store.runs.list))

    async def get(self, request: Request, run: str) -> Response:
        self._gate.check(request)
        return record(await asyncio.to_thread(self._backend.store.runs.get, run))

    async def steps(self, request: Request, run: str) -> Response:
        self._gate.check(request)
        return records(await asyncio.to_thread(self._backend.store.runs.steps, run))
