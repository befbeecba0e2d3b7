"""Starting and stopping: ports, addresses, failures at the start, a clean end."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from journeyman.errors import ServiceError, SettingError
from journeyman.server.serve import Server, bind


def test_a_taken_port_is_a_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(SettingError, match="is taken") as caught:
        bind("127.0.0.1", taken.getsockname()[1])
    assert caught.value.hint is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_others_can_reach_needs_an_api_key(host: str) -> None:
    with pytest.raises(SettingError, match="API key"):
        Server(FastAPI(), host=host)


def test_an_address_that_is_not_ours_is_a_clear_error() -> None:
    with pytest.raises(SettingError, match="cannot listen"):
        Server(FastAPI(), host="192.0.2.1", api_key="k")


def test_stopping_closes_what_the_application_owns(start_server: Callable[..., Any]) -> None:
    running = start_server()
    with urllib.request.urlopen(f"{running.url}/healthz", timeout=10) as reply:
        assert reply.status == 200
    running.server.stop()
    assert running.engine.is_closed
    with bind("127.0.0.1", running.server.port):
        pass  # the port is free again
    running.server.stop()


def test_an_application_that_cannot_start_is_an_error_not_a_hang() -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no room for the model")
        yield

    with pytest.raises(ServiceError, match="did not start"):
        Server(FastAPI(lifespan=lifespan)).__enter__()
