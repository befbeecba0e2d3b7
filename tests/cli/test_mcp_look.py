"""What `journeyman mcp tools` and `mcp scenarios` print, on a real server and without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.llm_server import Answer, scripted, serve

from journeyman.cli.mcp_look import show_scenarios, show_tools
from journeyman.errors import LlmError, McpError
from journeyman.scenarios import McpTarget

SERVER = Path(__file__).parents[1] / "scenarios" / "servers" / "plain_server.py"


def _target(kind: str) -> McpTarget:
    return McpTarget(command=(sys.executable, str(SERVER), kind))


async def test_tools_are_listed_with_what_training_would_use(capsys: pytest.CaptureFixture[str]) -> None:
    await show_tools(_target("good"))
    printed = capsys.readouterr().out
    assert "findCapital(country_name: string)" in printed
    assert "no: it may change something, by its name" in printed


async def test_tools_as_json_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    await show_tools(_target("good"), as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["used"]) for row in rows] == [("findCapital", True), ("box_area", True), ("delete_everything", False)]


async def test_a_server_without_usable_tools_is_an_error_after_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(McpError, match="may change something"):
        await show_tools(_target("writes"))
    assert "create_note" in capsys.readouterr().out


async def test_scenarios_need_no_model_when_the_schema_gives_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    await show_scenarios(_target("good"), tools=("box_area",), read_only=("box_area",), count=2)
    printed = capsys.readouterr().out
    assert "64 held-out scenarios, 2 of them:" in printed
    assert "96 training scenarios" in printed


async def test_a_writer_that_does_not_answer_is_named_before_any_tool_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(scripted(Answer.error(404, "no such model"))) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        with pytest.raises(LlmError, match=r"the writer does not answer: .*no such model"):
            await show_scenarios(McpTarget(command=("no-such-server",)), writer="big-model")
