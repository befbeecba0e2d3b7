"""Streamable HTTP on loopback, with a key: each way of not getting in is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from mcp.server import MCPServer

from journeyman.errors import McpError, SettingError
from journeyman.mcp import McpTarget, open_server

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def _guarded(app: App) -> App:
    async def guard(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"authorization", b"Bearer secret") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        await app(scope, receive, send)

    return guard


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[str]:
    made = MCPServer("web")

    @made.tool()
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(_guarded(made.streamable_http_app()), log_level="warning"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def _reason(target: McpTarget) -> str:
    with pytest.raises(McpError) as caught:
        async with open_server(target, start_timeout_seconds=20):
            pass
    return caught.value.reason


async def test_a_url_with_the_right_header_works_and_wrong_ones_are_told_apart() -> None:
    key = {"Authorization": "Bearer secret"}
    async with _serving() as root:
        async with open_server(McpTarget(url=f"{root}/mcp", headers=key)) as server:
            assert (await server.call("double", {"number": 4})).text == "8"
        assert await _reason(McpTarget(url=f"{root}/mcp")) == "unauthorized"
        assert await _reason(McpTarget(url=f"{root}/elsewhere", headers=key)) == "wrong_path"


@pytest.mark.parametrize("value", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "nonsense"])
async def test_a_server_on_loopback_is_reached_whatever_proxy_is_set(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, value)
    async with (
        _serving() as root,
        open_server(McpTarget(url=f"{root}/mcp", headers={"Authorization": "Bearer secret\n"})) as server,
    ):
        assert (await server.call("double", {"number": 4})).text == "8"


async def test_a_port_where_nobody_listens_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert await _reason(McpTarget(url=f"http://127.0.0.1:{port}/mcp")) == "connection_refused"


@pytest.mark.parametrize("place", ["[bad/mcp", "[::1/mcp", "127.0.0.1:port/mcp", "127.0.0.1/a\x00b"])
async def test_an_address_that_is_none_is_told_without_its_secrets(place: str) -> None:
    with pytest.raises(SettingError) as caught:
        async with open_server(McpTarget(url=f"http://{place}?token=geheim-123")):
            pass
    assert caught.value.reason == "no_url"
    assert "geheim" not in str(caught.value)
