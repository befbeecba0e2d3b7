"""The whole HTTP application over one backend, and the server that runs it: on a socket and in a thread of its own, with a clear start and
a clean end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import uvicorn
from fastapi import FastAPI

from journeyman.errors import ServiceError, SettingError, WaitTimeoutError
from journeyman.server.api import ApiRoutes
from journeyman.server.auth import AllowedHosts, Gate, HostGate, check_bind
from journeyman.server.errors import add_error_handlers
from journeyman.server.openai import OpenAiRoutes
from journeyman.service.backend import Backend
from journeyman.version import __version__

_log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_STOP_SECONDS = 180.0
_DRAIN_SECONDS = 5


def create_app(backend: Backend, *, api_key: str | None = None, host: str = "127.0.0.1", allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """The application. It owns the backend from now on: when the server stops, the backend is closed.

    Args:
        backend: used on the server's event loop only, once the server has started.
        api_key: bearer token that `/v1` and `/api` require; None: none (bind loopback only).
        host: what the server will be bound to; `allowed_hosts`: further names it may be called by. Calls by any other name are refused,
            with a key too.

    Raises SettingError: malformed_key, no_host.
    """
    hosts = AllowedHosts(host, allowed_hosts)
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
    app.include_router(OpenAiRoutes(backend, gate).router())
    app.include_router(ApiRoutes(backend, gate).router())

    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "engine": dataclasses.asdict(backend.engine.info), "version": __version__}

    app.add_api_route("/healthz", healthz, methods=["GET"])
    add_error_handlers(app)
    app.add_middleware(HostGate, hosts=hosts)
    return app


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingError when the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once (TCP_NODELAY) only if the protocol is named; else an answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingError(
                f"port {port} on {host} is taken", hint="stop what uses it, or choose another with --port (0 takes a free one)"
            ) from error
        raise SettingError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint="try --host 127.0.0.1") from error
    return listener


class Server:
    """A running server in a thread of its own. Use it as a context manager.

    Args:
        app: the application; its lifespan ends when the server stops.
        host, port: where to listen; port 0 takes a free one.
        api_key: the key the application checks; without one only loopback addresses are allowed (SettingError).

    Example:
        >>> with Server(app) as server:                                     # doctest: +SKIP
        ...     print(server.url)
    """

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, api_key: str | None = None) -> None:
        check_bind(host, api_key)
        self._socket = bind(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            # Longer than clients keep idle connections: else a request may meet a connection that is just being closed.
            timeout_keep_alive=120,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        self._server = _ThreadedServer(config)
        self._thread = threading.Thread(target=self._run, name="journeyman-server", daemon=True)
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Address without `/v1`. A server on all interfaces is named by its loopback address."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Start, and return when requests are answered. Raises ServiceError when the application does not start."""
        self._thread.start()
        if not self._server.ready.wait(_START_SECONDS):
            self._server.should_exit = True
            raise WaitTimeoutError(f"waited {_START_SECONDS:.0f} s for the server on {self.url} to start")
        if not self._server.started:
            self._thread.join(_STOP_SECONDS)
            raise ServiceError(f"the server on {self.url} did not start: {self._failure or 'see the log'}") from self._failure

    def stop(self) -> None:
        """Stop: requests get a few seconds to end, then the application closes what it owns. Twice is fine."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                _log.warning("the server on %s did not stop within %.0f s", self.url, _STOP_SECONDS)
        self._socket.close()

    def wait(self) -> None:
        """Block until the server stops by itself or `stop` is called from another thread; Ctrl-C gets through."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except (Exception, SystemExit) as error:  # noqa: BLE001  the top of a thread: raised by start()
            self._failure = error
        finally:
            self._server.ready.set()


class _ThreadedServer(uvicorn.Server):
    """Says when it is ready, or has failed to become so."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
