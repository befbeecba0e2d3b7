"""Connections to real processes: what works, and what each way of failing says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp.types
import pytest

from journeyman.errors import McpError, SettingError
from journeyman.mcp import McpTarget, choose_tools, open_server
from journeyman.mcp.client import read_result
from journeyman.mcp.results import leaves

Make = Callable[..., McpTarget]


async def test_lists_and_calls_the_tools_of_a_command(target: Make) -> None:
    async with open_server(target("plain_server", "good")) as server:
        assert [tool.name for tool in server.tools] == ["findCapital", "box_area", "delete_everything"]
        assert [tool.is_read_only for tool in server.tools] == [True, False, False]
        found = await server.call("findCapital", {"country_name": "Italy"})
        assert '"Rome"' in found.text
        assert not found.is_error
        assert (await server.call("findCapital", {"country_name": "Mars"})).is_error
        assert (await server.call("findCapital", {})).is_error
        assert (await server.call("nothing", {})).is_error


async def test_calls_may_run_at_the_same_time(target: Make) -> None:
    async with open_server(target("plain_server", "good")) as server:
        found = await asyncio.gather(*(server.call("findCapital", {"country_name": name}) for name in ("Peru", "Cuba", "Chad")))
        assert [result.is_error for result in found] == [False] * 3


async def test_references_in_schemas_are_resolved(target: Make) -> None:
    async with open_server(target("plain_server", "good")) as server:
        area = server.tool("box_area")
        assert area is not None
        assert area.properties["box"]["properties"]["width"] == {"type": "integer", "minimum": 1, "maximum": 50}
        assert "$defs" not in area.parameters
        assert (await server.call("box_area", {"box": {"width": 3, "height": 4}})).text == "12 square cm"


async def test_all_pages_of_tools_are_read_and_names_are_mapped(target: Make) -> None:
    async with open_server(target("raw_server", "pages")) as server:
        assert [tool.server_name for tool in server.tools] == ["tool.0", "tool.1", "tool.2"]
        assert [tool.name for tool in server.tools] == ["tool_0", "tool_1", "tool_2"]


async def test_ref_and_one_of_become_plain_schemas(target: Make) -> None:
    async with open_server(target("raw_server", "ref")) as server:
        tool = server.tool("odd")
        assert tool is not None
        assert tool.problem is None
        assert tool.properties == {"place": {"type": "string", "enum": ["north", "south"]}, "size": {"type": "integer", "maximum": 9}}


def _logs(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("mcp-server-*.log"))


async def _failure(target: McpTarget, seconds: float = 20.0) -> McpError:
    with pytest.raises(McpError) as caught:
        async with open_server(target, start_timeout_seconds=seconds):
            pass
    return caught.value


async def test_a_command_that_does_not_exist_is_named() -> None:
    error = await _failure(McpTarget.parse("no-such-mcp-server --flag"))
    assert error.reason == "command_not_found"
    assert "'no-such-mcp-server'" in error.message


async def test_a_missing_folder_is_named() -> None:
    error = await _failure(McpTarget(command=("python",), cwd="/no/such/folder"))
    assert "/no/such/folder" in error.message


async def test_a_server_that_exits_at_start_shows_its_log(target: Make) -> None:
    error = await _failure(target("raw_server", "exit"))
    assert error.reason == "exited_at_start"
    assert "API_TOKEN is not set" in error.message


@pytest.mark.parametrize("kind", ["junk", "json_junk"])
async def test_a_server_that_prints_junk_is_told_apart_from_one_that_hangs(target: Make, kind: str) -> None:
    error = await _failure(target("raw_server", kind), 2.0)
    assert error.reason == "junk_on_stdout"
    assert "Starting up" in error.message


async def test_a_handshake_that_never_ends_times_out(target: Make) -> None:
    error = await _failure(target("raw_server", "hang"), 1.0)
    assert error.reason == "handshake_timeout"
    assert "1 s" in error.message


async def test_a_server_that_dies_in_a_call_says_so_and_stays_dead(target: Make) -> None:
    async with open_server(target("plain_server", "ends")) as server:
        with pytest.raises(McpError) as caught:
            await server.call("die", {"code": 7})
        assert caught.value.reason == "died"
        assert "dying now" in caught.value.message
        assert not server.is_alive
        with pytest.raises(McpError, match="gone"):
            await server.call("number", {})


async def test_a_call_that_times_out_leaves_the_connection_usable(target: Make) -> None:
    async with open_server(target("plain_server", "ends")) as server:
        with pytest.raises(McpError) as caught:
            await server.call("hang", {}, timeout_seconds=0.3)
        assert caught.value.reason == "call_timeout"
        assert (await server.call("number", {})).text.isdecimal()


async def test_an_error_of_the_caller_closes_the_server_and_passes_through(target: Make) -> None:
    with pytest.raises(KeyError):
        async with open_server(target("plain_server", "none")):
            raise KeyError("mine")


async def test_the_log_stays_where_it_was_asked_for(target: Make, tmp_path: Path) -> None:
    async with open_server(target("plain_server", "ends"), log_folder=tmp_path) as server:
        with pytest.raises(McpError):
            await server.call("die", {"code": 1})
    assert "dying now" in _logs(tmp_path)


async def test_no_tools_and_only_write_tools_are_errors_with_a_reason(target: Make) -> None:
    async with open_server(target("plain_server", "none")) as server:
        with pytest.raises(McpError) as caught:
            choose_tools(server.tools, "x")
        assert caught.value.reason == "no_tools"
    async with open_server(target("plain_server", "writes")) as server:
        with pytest.raises(McpError) as caught:
            choose_tools(server.tools, "x")
        assert caught.value.reason == "only_write_tools"
        assert len(choose_tools(server.tools, "x", allow_writes=True).tools) == 2


def test_a_target_is_read_from_a_command_line_or_a_url() -> None:
    assert McpTarget.parse('server --name "a b"').command == ("server", "--name", "a b")
    assert McpTarget.parse("http://127.0.0.1:1/mcp").url == "http://127.0.0.1:1/mcp"
    for text in ("", 'server "open'):
        with pytest.raises(SettingError):
            McpTarget.parse(text)


def test_python_means_the_one_that_runs_us() -> None:
    assert McpTarget.parse("python -m x").program().startswith(str(Path(sys.executable).parent))


async def test_a_server_whose_output_is_not_utf8_is_used_as_far_as_it_can_be_read(target: Make) -> None:
    async with open_server(target("raw_server", "latin1")) as server:
        assert [tool.server_name for tool in server.tools]
        result = await server.call(server.tools[0].name, {})
    assert "caf\ufffd" in result.text


PNG = {"type": "image", "data": "AAAA", "mimeType": "image/png"}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "seen"}, PNG]}, "seen\n[image left out: image/png, 3 bytes]"),
        ({"content": [{"type": "audio", "data": "AAAAAA==", "mimeType": "audio/wav"}]}, "[audio left out: audio/wav, 4 bytes]"),
        (
            {"content": [{"type": "resource", "resource": {"uri": "file:///a.pdf", "blob": "AAAA", "mimeType": "application/pdf"}}]},
            "[resource left out: application/pdf, 3 bytes, file:///a.pdf]",
        ),
        ({"content": [{"type": "resource", "resource": {"uri": "file:///a.txt", "text": "inside"}}]}, "inside"),
        ({"content": [{"type": "resource_link", "name": "a", "uri": "file:///a.txt"}]}, "[resource a: file:///a.txt]"),
        ({"content": [PNG], "structuredContent": {"total": 3}}, '[image left out: image/png, 3 bytes]\n{"total": 3}'),
        ({"content": [], "structuredContent": {"total": 3}}, '{"total": 3}'),
        ({"content": [{"type": "text", "text": "3"}], "structuredContent": {"total": 3}}, "3"),
    ],
)
def test_no_block_of_a_result_vanishes(result: dict[str, Any], text: str) -> None:
    read = read_result(mcp.types.CallToolResult.model_validate(result), 0.0)
    assert read.text == text
    assert [leaf for _, leaf in leaves(read.text)] != [text] or "left out" not in text  # nothing is asked about a mark
