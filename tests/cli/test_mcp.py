"""What `journeyman mcp tools` and `mcp scenarios` print, on a real server and without a model."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from tests.llm_server import Answer, scripted, serve

from journeyman.cli.app import run
from journeyman.cli.console import Terminal
from journeyman.cli.mcp import print_scenarios, print_tools, show_scenarios, show_tools
from journeyman.errors import LlmError, McpError
from journeyman.mcp import McpTarget
from journeyman.mcp.tools import WHY, describe_tool
from journeyman.scenarios import ScenarioSet, ScenarioSettings
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Witness

SERVER = Path(__file__).parents[1] / "mcp" / "servers" / "plain_server.py"
RAW = SERVER.with_name("raw_server.py")


def _target(kind: str) -> McpTarget:
    return McpTarget(command=(sys.executable, str(SERVER), kind))


@pytest.mark.parametrize("allow_writes", [False, True])
@pytest.mark.parametrize("read_only", [(), ("plain",)])
async def test_of_each_tool_is_told_what_was_decided_why_and_whether_it_would_be_used(
    capsys: pytest.CaptureFixture[str], read_only: tuple[str, ...], allow_writes: bool
) -> None:
    target = McpTarget(command=(sys.executable, str(RAW), "hints"))
    settings = ScenarioSettings(read_only=read_only, allow_writes=allow_writes)
    await show_tools(target, settings, as_json=True)
    rows = {row["name"]: (row["decided"], row["used"]) for row in json.loads(capsys.readouterr().out)}
    assert rows["says_yes"] == ("says_reads", True)
    assert rows["says_no"] == ("says_writes", allow_writes)
    assert rows["plain"] == (("named_by_user", True) if read_only else ("says_nothing", allow_writes))
    await show_tools(target, settings)
    shown = " ".join(capsys.readouterr().out.split())
    assert all(WHY[decided] in shown for decided, _ in rows.values())
    assert shown.count("used: yes") == sum(is_used for _, is_used in rows.values())


async def test_a_tool_that_cannot_be_used_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    await show_tools(McpTarget(command=(sys.executable, str(RAW), "invalid")), ScenarioSettings())
    shown = capsys.readouterr().out
    assert "odd()" in shown
    assert "banana" in shown
    assert shown.count("used: yes") == 1


FORGED = "real\n  used: yes; about 1 tokens of schema\n\x0b\u2028note: all is well"


def test_what_a_server_says_makes_no_line_of_its_own() -> None:
    console = Terminal(record=True, width=200, file=io.StringIO())
    sound = describe_tool(FORGED, FORGED, {"type": "object", "properties": {FORGED: {"type": "string"}}}, (False, None))
    print_tools(console, [sound, describe_tool(FORGED, None, {}, (None, None), problem=FORGED)], used=())
    task = Scenario(id="s", task=FORGED, witness=Witness(calls=(), answers=(ExpectedAnswer(value=FORGED),)))
    print_scenarios(console, ScenarioSet(train=(task,), heldout=()), count=1)
    lines = console.export_text().splitlines()
    assert len(lines) == 4 + 2 + 4
    assert [line for line in lines if line.startswith(("  used: yes", "note:"))] == []


WAYS_TO_A_TOOL = [
    ["mcp", "tools"],
    ["mcp", "scenarios"],
    ["mcp", "train", "--home", "home"],
    ["chat", "--base", "smollm2-135m", "-m", "hello", "--home", "home"],
    ["eval", "--prompt-only", "smollm2-135m", "--home", "home"],
]
SILENT = f"{sys.executable} {RAW} pages"  # three tools of which nobody says anything


@pytest.mark.parametrize("command", WAYS_TO_A_TOOL, ids=" ".join)
@pytest.mark.parametrize(("options", "code"), [((), 1), (("--read-only", "tool.0,find_it"), 2), (("--tools", "tool.1,find_it"), 2)])
def test_on_every_way_to_a_tool_it_is_refused_where_nobody_vouches_for_it_or_it_is_not_there(
    command: list[str],
    options: tuple[str, ...],
    code: int,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*command, "--server", SILENT, *options]) == code
    shown = capsys.readouterr()
    assert all(name in shown.out + shown.err for name in ("tool.0", "tool.1", "tool.2", options[0] if options else "--read-only"))


async def test_a_server_without_usable_tools_is_an_error_after_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(McpError) as caught:
        await show_tools(_target("writes"), ScenarioSettings())
    assert caught.value.reason == "only_write_tools"
    assert "create_note" in capsys.readouterr().out


async def test_scenarios_need_no_model_when_the_schema_gives_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    await show_scenarios(_target("good"), ScenarioSettings(tools=("box_area",), read_only=("box_area",)), count=2)
    printed = capsys.readouterr()
    assert re.findall(r"^(\d+) .* scenarios, 2 ", printed.out, re.MULTILINE) == ["64", "96"]
    assert [word for word in ("start", "explore", "write tasks") if f"\n{word}" not in f"\n{printed.err}"] == []


async def test_a_writer_that_does_not_answer_is_named_before_any_tool_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(scripted(Answer.error(404, "no such model"))) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        with pytest.raises(LlmError, match=r"writer.*no such model"):
            await show_scenarios(McpTarget(command=("no-such-server",)), ScenarioSettings(), writer="big-model")
