"""By which names a server answers: a page whose own name was made to lead here (DNS rebinding) is refused on every route."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import SettingError
from journeyman.server.auth import AllowedHosts, HostGate

KNOWN = [
    "127.0.0.1:{port}", "localhost", "LocalHost:{port}", "localhost.:1", "app.localhost:{port}", "127.9.9.9", "[::1]:{port}", "[::1]",
    "[::ffff:127.0.0.1]:80", "localhost:",
]  # fmt: skip
UNKNOWN = [
    "evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io:{port}", "evil-localhost",
    "user@localhost", "localhost@evil.example", "localhost:80@evil.example", "localhost:{port}, evil.example",
    "localhost/evil", "localhost#",
    "localhost:8x", "", ":{port}", "[::1", "::1", "[::1].evil.example", "192.168.1.7", "10.0.0.1:{port}", "0.0.0.0:{port}", "[::]",
    "[2001:db8::1]", "local host", "localhost\\", "xn--lcalhost-54a", "2130706433",
]  # fmt: skip
ROUTES = [
    "GET /healthz",
    "GET /v1/models",
    "POST /v1/chat/completions",
    "GET /api/runs",
    "GET /r/1.t/v1/models",
    "GET /docs",
    "GET /nowhere",
    "OPTIONS /v1/models",
]


def ask(port: int, route: str, *headers: str) -> tuple[int, Any]:
    """Status and body of a call with just these headers."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        lines = [f"{route} HTTP/1.1", *headers, "Content-Length: 2", "Connection: close"]
        connection.sendall("\r\n".join([*lines, "", "{}"]).encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


def test_a_server_is_called_by_any_name_of_loopback(running: Any) -> None:
    for host in KNOWN:
        status, _ = ask(running.server.port, "GET /healthz", f"Host: {host.replace('{port}', str(running.server.port))}")
        assert status == 200, host


def test_a_call_by_another_name_is_refused_on_every_route(running: Any) -> None:
    for route, host in itertools.product(ROUTES, ("evil.example", f"evil.example:{running.server.port}")):
        status, body = ask(running.server.port, route, f"Host: {host}", "Origin: http://localhost", "X-Forwarded-Host: localhost")
        assert (status, body["error"]["code"], body["error"]["reason"]) == (421, "unknown_host", "unknown_host")
        assert "evil.example" in body["error"]["message"]
        assert "--allow-host" in body["error"]["message"]


def test_every_unknown_name_is_refused(running: Any) -> None:
    for host in UNKNOWN:
        status, body = ask(running.server.port, "GET /healthz", f"Host: {host.replace('{port}', str(running.server.port))}")
        assert status in (400, 421), host
        assert status == 400 or body["error"]["reason"] == "unknown_host", host


def test_a_call_that_names_no_host_or_two_is_refused(running: Any) -> None:
    assert ask(running.server.port, "GET /healthz")[0] in (400, 421)
    assert ask(running.server.port, "GET /healthz", "Host: localhost", "Host: evil.example")[0] in (400, 421)
    assert ask(running.server.port, "GET http://evil.example/healthz", "Host: evil.example")[0] == 421


def test_the_check_holds_with_a_key_too(start_server: Callable[..., Any]) -> None:
    running = start_server(api_key="k")
    assert ask(running.server.port, "GET /v1/models", "Host: evil.example", "Authorization: Bearer k")[0] == 421
    assert ask(running.server.port, "GET /v1/models", "Host: localhost", "Authorization: Bearer k")[0] == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_gate_stands_before_whatever_is_served(kind: str) -> None:
    reached, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["headers"])

    async def send(message: Any) -> None:
        sent.append(message["type"])

    gate = HostGate(app, AllowedHosts())
    for headers in ([], [(b"host", b"evil.example")], [(b"host", b"localhost"), (b"host", b"localhost")], [(b"host", b"\xff")]):
        await gate({"type": kind, "path": "/x", "headers": headers, "method": "GET"}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert reached == []
    assert len([one for one in sent if one in ("http.response.start", "websocket.close")]) == 4
    await gate({"type": kind, "path": "/x", "headers": [(b"host", b"localhost")]}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert len(reached) == 1


def test_a_server_others_can_reach_is_called_by_address_or_by_a_name_of_its_own() -> None:
    hosts = AllowedHosts("0.0.0.0", ["Box.Example.", "2001:db8::7"])
    for name in (
        "192.168.1.7:8100",
        "[2001:db8::1]",
        "localhost",
        "box.example:80",
        f"{socket.gethostname()}:8100",
        f"{socket.gethostname()}.local",
    ):
        assert name in hosts
    for name in ("evil.example", "journeyman", "a.box.example", "192.168.1.7.nip.io"):
        assert name not in hosts
    assert "gpu-box:8100" in AllowedHosts("gpu-box")
    assert "2001:db8::7" not in hosts
    assert "[2001:db8::7]:1" in hosts


@pytest.mark.parametrize("name", ["http://box", "box:80", "box/x", "", "*", "a b", "me@box", "https://box.example/"])
def test_what_is_no_name_cannot_be_allowed(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        AllowedHosts(allowed=[name])
    assert (caught.value.reason, caught.value.exit_code) == ("no_host", 2)


PIECES = "localhost LOCALHOST4 localdomain ip6-loopback evil example 127 0 1 :: [ ] . : 80 @ - /".split()
SHIPPED_NAMES = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
PORT = re.compile(r":[0-9]{0,5}\Z")


@given(st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_only_names_of_loopback_pass_where_none_is_allowed(text: str) -> None:
    if text in AllowedHosts():
        name = PORT.sub("", text).lower().removesuffix(".")
        if name not in SHIPPED_NAMES and not name.endswith(".localhost"):
            address = ipaddress.ip_address(name.strip("[]"))
            assert (getattr(address, "ipv4_mapped", None) or address).is_loopback


ODD = ["http://[", "http://[::1", "chrome-extension://localhost", "localhost", "", "http://localhost\r\nOrigin: http://evil.example"]


def test_pages_of_allowed_names_may_call_a_server_without_a_key(running: Any) -> None:
    port = running.server.port
    assert ask(port, "GET /api/runs", "Host: localhost", f"Origin: http://localhost:{port}")[0] == 200
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://localhost@evil.example", "file://", *ODD):
        assert ask(port, "GET /api/runs", "Host: localhost", f"Origin: {origin}")[0] == 403
