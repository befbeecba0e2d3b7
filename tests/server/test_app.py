"""Starting and stopping: ports, addresses, failures at the start, a clean end."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from journeyman.errors import ServiceError, SettingError
from journeyman.server.app import Server, bind


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


async def test_answers_are_sent_at_once_and_not_held_back_for_an_acknowledgement() -> None:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.StreamWriter] = loop.create_future()
    with bind("127.0.0.1", 0) as listener:
        serving = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listener)
        async with serving:
            _, client = await asyncio.open_connection(*listener.getsockname())
            writer = await asyncio.wait_for(accepted, 10)
            connection: socket.socket = writer.get_extra_info("socket")
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            client.close()
            writer.close()


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
