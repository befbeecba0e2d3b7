"""One odd sign in what a server sends costs at most the tool that it stands in, over stdio and over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.mcp.servers.odd_tools import CANNOT_BE_USED, UNREADABLE, unreadable_page

from journeyman.mcp import McpTarget, open_server
from journeyman.mcp.client import McpServer
from journeyman.mcp.messages import repaired_json


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    envelope = b"%s"
    kind = "application/json"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = request.get("params") or {}
        said = {"protocolVersion": asked.get("protocolVersion"), "capabilities": {"tools": {}}, "serverInfo": {"name": "a", "version": "1"}}
        result = unreadable_page() if request["method"] == "tools/list" else json.dumps(said).encode()
        answer = self.envelope % b'{"jsonrpc": "2.0", "id": %s, "result": %s}' % (json.dumps(request.get("id")).encode(), result)
        body = answer if "id" in request else b""
        self.send_response(200 if body else 202)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Events(_Handler):
    envelope = b"event: message\r\ndata: %s\r\n\r\n"
    kind = "text/event-stream"


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[McpTarget]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield McpTarget(url=f"http://127.0.0.1:{served.server_address[1]}/mcp")
        served.shutdown()


def _check(server: McpServer) -> None:
    assert {tool.name: tool.problem is not None for tool in server.tools} == {name: name in CANNOT_BE_USED for name in UNREADABLE}
    texts = {tool.name: tool.properties["a"].get("description") for tool in server.tools if tool.problem is None}
    mark = "\N{REPLACEMENT CHARACTER}"
    assert texts == {"half": f"half {mark}", "bell": "ring \x07\x1b[31m", "latin_1": f"caf{mark}"}


async def test_over_stdio(target: Callable[..., McpTarget]) -> None:
    async with open_server(target("raw_server", "unreadable")) as server:
        _check(server)


@pytest.mark.parametrize("handler", [_Handler, _Events])
async def test_over_http(handler: type[BaseHTTPRequestHandler]) -> None:
    with _serving(handler) as served:
        async with open_server(served) as server:
            _check(server)


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b'{"a": 1,}', b'{"a": "\xc3\xa9"}', b"[" * 500, b'"'])
def test_what_can_be_read_or_cannot_be_mended_stays_as_it_is(text: bytes) -> None:
    assert repaired_json(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'["a\nb"]', ["a\nb"]),
        (b'{"\\udc00": "[[[[ }"}', {"\N{REPLACEMENT CHARACTER}": "[[[[ }"}),
        (b'["\\ud83d\\ude00", "\\ud83d"]', ["\N{GRINNING FACE}", "\N{REPLACEMENT CHARACTER}"]),
    ],
)
def test_what_only_a_strict_parser_refuses_is_read(text: bytes, value: object) -> None:
    assert json.loads(repaired_json(text)) == value
