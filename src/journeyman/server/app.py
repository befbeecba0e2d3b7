"""The whole HTTP application over one backend. Not for sockets and threads: see `serve.py`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from journeyman.server.auth import Gate, HostGate, KnownHosts
from journeyman.server.errors import add_error_handlers
from journeyman.server.openai import OpenAiRoutes
from journeyman.server.rollouts import RolloutRoutes
from journeyman.server.runs import RunRoutes
from journeyman.server.training import TrainingRoutes
from journeyman.service.backend import Backend
from journeyman.version import __version__


def create_app(backend: Backend, *, api_key: str | None = None, host: str = "127.0.0.1", allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """The application. It owns the backend from now on: when the server stops, the backend is closed.

    Args:
        backend: used on the server's event loop only, once the server has started.
        api_key: bearer token that `/v1` and `/api` require; None: none (bind loopback only).
        host: what the server will be bound to; `allowed_hosts`: further names it may be called by. Calls by any other name are refused,
            with a key too.

    Raises SettingError: malformed_key, no_host.
    """
    hosts = KnownHosts(host, allowed_hosts)
    gate = Gate(api_key, hosts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(backend.recorder.keep_expiring())
        try:
            yield
        finally:
            expiring.cancel()
            await asyncio.gather(expiring, return_exceptions=True)
            await backend.close()

    app = FastAPI(title="Journeyman", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    for routes in (
        OpenAiRoutes(backend, gate),
        RolloutRoutes(backend, gate),
        TrainingRoutes(backend, gate),
        RunRoutes(backend, gate),
    ):
        app.include_router(routes.router())

    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "engine": dataclasses.asdict(backend.engine.info), "version": __version__}

    app.add_api_route("/healthz", healthz, methods=["GET"])
    add_error_handlers(app)
    app.add_middleware(HostGate, hosts=hosts)
    return app
