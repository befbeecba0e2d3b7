"""What servers list as their tools: what is odd is left out by name, and the rest works."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.mcp.servers.odd_tools import CANNOT_BE_USED, NAMELESS, ODD, RESULTS, UNREADABLE, USABLE, unreadable_page

from journeyman.errors import McpError
from journeyman.mcp import McpTarget, open_server
from journeyman.mcp.client import McpServer
from journeyman.mcp.messages import MAX_PAGES, MAX_TOOLS, Listing, repaired_json
from journeyman.mcp.tools import choose_tools
from journeyman.scenarios.build import ScenarioSettings, build_scenarios

Make = Callable[..., McpTarget]


def _names(server: McpServer) -> list[str]:
    return [tool.server_name for tool in server.tools]


async def test_each_odd_tool_is_left_out_by_name_and_the_others_work(target: Make) -> None:
    async with open_server(target("raw_server", "odd_tools")) as server:
        choice = choose_tools(server.tools, "test")
        assert {tool.server_name for tool in choice.tools} == {"fine", *(str(tool["name"]) for tool in USABLE)}
        left_out = {tool.server_name: tool.problem for tool in server.tools if tool.problem}
        assert left_out.keys() >= ODD.keys()
        assert len(left_out) == len(ODD) + len(NAMELESS)
        assert all(any(repr(name) in note and str(why) in note for note in choice.notes) for name, why in left_out.items())
        assert all(len(note) < 500 for note in choice.notes)
        for tool in choice.tools:
            assert (await server.call(tool.name, {})).text == f"called {tool.server_name}"


@pytest.mark.parametrize("name", sorted(ODD))
async def test_an_odd_tool_that_is_named_is_refused_with_its_reason(name: str) -> None:
    listing = Listing()
    listing.take({"tools": [ODD[name], {"name": "fine", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}]})
    with pytest.raises(McpError) as caught:
        choose_tools(listing.tools(), "test", [name])
    assert caught.value.reason == "invalid_schema"
    assert name in caught.value.message
    assert [tool.name for tool in choose_tools(listing.tools(), "test", ["fine"]).tools] == ["fine"]


@pytest.mark.parametrize("name", ["empty_schema", "null_properties"])
def test_a_schema_that_says_nothing_is_one_without_arguments(name: str) -> None:
    listing = Listing()
    listing.take({"tools": [tool for tool in USABLE if tool["name"] == name]})
    (tool,) = listing.tools()
    assert (tool.problem, tool.properties, tool.required) == (None, {}, ())


def test_a_keyword_that_is_null_counts_as_not_given() -> None:
    listing = Listing()
    listing.take({"tools": [tool for tool in USABLE if tool["name"] == "null_keywords"]})
    assert listing.tools()[0].properties == {"a": {"type": "integer", "enum": [1, None]}}


@pytest.mark.parametrize("kind", ["same_cursor", "endless_copies", "number_cursor", "page_that_fails", "page_that_is_text"])
async def test_a_list_that_does_not_end_well_gives_each_tool_once_and_a_note(target: Make, kind: str) -> None:
    async with open_server(target("raw_server", kind), start_timeout_seconds=6.0 if "text" in kind else 60.0) as server:
        assert _names(server) == ["fine"]
        assert len(server.notes) == 1
        assert (await server.call("fine", {})).text == "called fine"


async def test_a_list_that_never_ends_is_read_up_to_a_bound(target: Make) -> None:
    async with open_server(target("raw_server", "endless_news")) as server:
        assert _names(server) == [f"fine{page}" for page in range(MAX_PAGES)]
        assert len(server.notes) == 1


async def test_empty_pages_between_others_are_passed(target: Make) -> None:
    async with open_server(target("raw_server", "empty_pages")) as server:
        assert (_names(server), server.notes) == (["fine"], ())


async def test_a_page_that_is_longer_than_the_bound_is_cut_and_told(target: Make) -> None:
    async with open_server(target("raw_server", "many_at_once")) as server:
        assert (len(server.tools), len(server.notes)) == (MAX_TOOLS, 1)


async def test_half_a_character_or_nan_does_not_take_the_whole_message(target: Make) -> None:
    async with open_server(target("raw_server", "no_json")) as server:
        assert [(tool.name, tool.problem is None) for tool in server.tools] == [("fine", False), ("other", True)]
        assert server.tools[0].description == "Half \N{REPLACEMENT CHARACTER}."
        assert (await server.call("other", {})).text == "half \N{REPLACEMENT CHARACTER}"


async def test_a_server_that_knows_no_lists_of_tools_has_none(target: Make) -> None:
    async with open_server(target("raw_server", "no_such_method")) as server:
        assert server.tools == ()


def test_a_list_that_is_none_is_told() -> None:
    listing = Listing()
    assert listing.take({"tools": "fine"})["tools"] == []
    assert (listing.tools(), len(listing.notes)) == ((), 1)


async def test_a_tool_that_is_listed_twice_is_one_tool_or_none(target: Make) -> None:
    async with open_server(target("raw_server", "twice")) as server:
        assert [(tool.server_name, tool.problem is None) for tool in server.tools] == [("fine", True), ("x", False)]


async def test_names_that_become_alike_stay_apart(target: Make) -> None:
    async with open_server(target("raw_server", "alike_names")) as server:
        assert [(tool.server_name, tool.is_read_only) for tool in server.tools] == [("a.b", False), ("a_b", True)]
        for tool in server.tools:
            assert (await server.call(tool.name, {})).text == f"called {tool.server_name}"


async def test_results_of_any_shape_are_results(target: Make) -> None:
    async with open_server(target("raw_server", "results")) as server:
        found = {name: await server.call(name, {}) for name in RESULTS}
    assert found["null_content"].text == found["structured_only"].text == '{"a": 1}'
    assert {name for name, result in found.items() if result.is_error} >= {"text_content", "broken_promise", "forgotten_promise"}
    assert found["null_fields"].text == found["odd_remarks"].text == "1"
    assert not any(found[name].is_error for name in ("null_content", "structured_only", "null_fields", "odd_remarks", "huge"))
    assert all(found[name].is_error for name in ("null_result", "list_result", "text_result"))
    assert len(found["huge"].text) <= 1_000_000


async def test_a_tool_that_breaks_its_own_output_schema_or_that_no_value_fits_makes_no_scenarios_and_is_named(target: Make) -> None:
    async with open_server(target("raw_server", "breaks_promise")) as server:
        made = await build_scenarios(server, ScenarioSettings(num_train=4, num_heldout=2))
    assert {tool.server_name for tool in made.tools} == {"square"}
    assert all(any(name in note for note in made.notes) for name in ("broken_promise", "impossible"))


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
